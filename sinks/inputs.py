"""What a sink reads: a partition's journal, from the offset that the tables and the results name.

One consumer for one partition, never in a group: where to read is for them to say.
"""

from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from plumbing import kafka
from plumbing.failures import Failure
from plumbing.kafka import ClientConfig
from schemas.topics import Names
from sinks.reading import Position, Read

# Enough that a batch's fixed costs vanish; rows of as many are still a small transaction.
MAX_RECORDS = 8_000
TIMEOUT_S = 20.0
KIB = 1024


class Range(NamedTuple):
    """The offsets that a read_committed reader can see: start up to, not with, end."""

    start: int
    end: int


class Journal:
    def __init__(self, config: ClientConfig, names: Names, partition: int) -> None:
        self._where = TopicPartition(names.journal, partition)
        self._consumer = Consumer(
            {
                **config,
                # Required by the client; nothing is ever committed or subscribed under it.
                "group.id": "none",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 500,
                "fetch.min.bytes": 1,
                "fetch.error.backoff.ms": 100,
                "fetch.message.max.bytes": 4 * KIB * KIB,
                "queued.min.messages": 2 * MAX_RECORDS,
                "queued.max.messages.kbytes": 16 * KIB,
                "fetch.queue.backoff.ms": 5,
            }
        )
        self._next_offset = 0
        self._at_end = False

    def start(self, position: Position) -> None:
        topic, partition = self._where.topic, self._where.partition
        there = Range(*kafka.watermarks(self._consumer, self._where, TIMEOUT_S))
        self._next_offset = position.next_offset
        if not there.start <= self._next_offset <= there.end:
            raise Failure(
                f"partition {partition} of `{topic}` has offsets {there.start} to {there.end}; the"
                f" tables or the results are at {self._next_offset}"
            )
        self._consumer.assign([TopicPartition(topic, partition, self._next_offset)])

    def take(self, timeout_s: float) -> list[Read]:
        """All that has arrived, as soon as anything has; nothing if nothing did in time."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        reads = []
        for message in (first, *self._consumer.consume(MAX_RECORDS - 1, 0)):
            error, offset = message.error(), message.offset()
            self._at_end = error is not None
            if error is None:
                assert offset is not None, "a message without error has an offset"
                reads.append(Read(offset, message.value() or b""))
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
        if reads:
            self._next_offset = reads[-1].offset + 1
        return reads

    def lag(self) -> int:
        """Offsets that are known to be there and were not taken, transaction markers among them; 0
        where no record was left; -1 if not known."""
        if self._at_end:
            return 0
        try:
            _, end = self._consumer.get_watermark_offsets(self._where, cached=True)
        except KafkaException:
            return -1
        return max(0, end - self._next_offset) if end >= 0 else -1

    def close(self) -> None:
        self._consumer.close()
