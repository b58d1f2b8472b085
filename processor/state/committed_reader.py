"""Reading what is committed in a partition, from one offset to another, in no consumer group.

For recovery and for those who look from outside; the batches of a running partition are read by
`inputs`. An end is asked for once: what is written meanwhile is not read.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from plumbing.failures import Failure
from plumbing.kafka import clients
from plumbing.kafka.clients import NoAnswer
from processor.lanes.batch_reader import MOST_BYTES
from processor.state.record_digest import ReadRecord

TIMEOUT_S = 20.0
CHUNK = 10_000
# The broker's word, and the client's where it is told not to choose another offset.
_OUT_OF_RANGE = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


class OffsetRange(NamedTuple):
    """The offsets that a read_committed reader can see: from start up to, not with, end."""

    start: int
    end: int


class OutOfRange(Failure):
    def __init__(self, topic: str, partition: int, offset: int, range: OffsetRange) -> None:
        super().__init__(
            f"partition {partition} of `{topic}`, offset {offset}: there is no such offset; the"
            f" topic has offsets {range.start} to {range.end}"
        )


class CommittedReader:
    def __init__(self, config: Mapping[str, Any]) -> None:
        # Asking for a topic may make it, where brokers do so and the client lets them.
        self._admin = AdminClient({**config, "allow.auto.create.topics": False})
        self._consumer = clients.reader(
            {
                **config,
                "fetch.wait.max.ms": 100,
                # Small records take several times their bytes in the client's queue.
                "fetch.message.max.bytes": 1024 * 1024,
                "queued.min.messages": 50_000,
                "queued.max.messages.kbytes": 4 * 1024,
                "fetch.queue.backoff.ms": 5,
                **MOST_BYTES,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> int:
        known = self._consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        # Of a topic that it may not see the client tells no partitions, and why.
        if known.error is not None:
            raise KafkaException(known.error)
        return len(known.partitions)

    def range(self, topic: str, partition: int) -> OffsetRange:
        asked = TopicPartition(topic, partition)
        return OffsetRange(*clients.watermarks(self._consumer, asked, TIMEOUT_S))

    def open_from(self, topic: str, partition: int) -> int | None:
        """The offset from which on a transaction is open; None where all are ended."""
        # Else a fresh client may ask who leads the partition before it is connected, and asks again
        # only 3 s later.
        self._admin.list_topics(topic, timeout=TIMEOUT_S)
        where = TopicPartition(topic, partition)
        stable, high = (
            int(clients.ask_ends(self._admin, [where], TIMEOUT_S, level)[where].result().offset)
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        )
        return stable if stable < high else None

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[ReadRecord]:
        """Every committed record from start up to, not with, end."""
        self._consumer.assign([TopicPartition(topic, partition, start)])
        heard = time.monotonic()
        while True:
            messages = self._consumer.consume(CHUNK, 0.2)
            if not messages and time.monotonic() - heard > TIMEOUT_S:
                raise NoAnswer(f"partition {partition} of {topic} cannot be read: no answer")
            for message in messages:
                error, offset = message.error(), message.offset() or 0
                if error is not None and error.code() in _OUT_OF_RANGE:
                    raise OutOfRange(topic, partition, start, self.range(topic, partition))
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if offset >= end:
                    return
                if error is None:
                    _, time_ms = message.timestamp()
                    yield ReadRecord(offset, message.key(), message.value(), time_ms)
            if messages:
                # Not counted as silence: what the caller did with them.
                heard = time.monotonic()

    def at(self, topic: str, partition: int, offset: int) -> ReadRecord | None:
        for read in self.read(topic, partition, offset, offset + 1):
            return read if read.offset == offset else None
        return None

    def last(self, topic: str, partition: int) -> ReadRecord | None:
        """The last committed record."""
        start, end = self.range(topic, partition)
        # Transaction markers and aborted records take offsets too: it is a little before the end,
        # or a whole batch.
        back = 8
        while True:
            last = None
            for read in self.read(topic, partition, max(start, end - back), end):
                last = read
            if last is not None or end - back <= start:
                return last
            back *= 8
