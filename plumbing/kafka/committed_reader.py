"""Reads the committed records of a partition, from one offset to another, in no consumer group.

For recovery, rebuilds, `verify` and operators' commands. A lane that runs reads its batches with
`partition_consumer`. The end is fixed by the caller: records written later are not read. It knows
no topic.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from plumbing.failures import Failure
from plumbing.kafka import clients
from plumbing.kafka.clients import NoAnswer

TIMEOUT_S: Final = 20.0
CHUNK: Final = 10_000
# The last record is searched from here on, each time in a window that is so many times as long.
FIRST_WINDOW: Final = 8
# The broker's error, and the client's where it may not choose another offset.
_OUT_OF_RANGE: Final = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)


class CommittedRecord(Struct, frozen=True, gc=False):
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int


class OffsetRange(NamedTuple):
    """The offsets that a read_committed consumer sees: from start up to, not with, end."""

    start: int
    end: int


class OutOfRange(Failure):
    def __init__(self, topic: str, partition: int, offset: int, range: OffsetRange) -> None:
        super().__init__(
            f"partition {partition} of `{topic}`, offset {offset}: there is no such offset; the"
            f" topic has offsets {range.start} to {range.end}"
        )


class CommittedReader:
    """`trimmed`: the first records of the topics may be deleted at any time; reading begins with
    those that are left."""

    def __init__(self, config: Mapping[str, Any], *, trimmed: bool = False) -> None:
        # A request about a topic may create it, where brokers do so and the client lets them.
        self._admin_config = {**config, "allow.auto.create.topics": False}
        self._admin: AdminClient | None = None
        self._consumer = clients.committed_consumer(
            {
                **config,
                "auto.offset.reset": "earliest" if trimmed else "error",
                "fetch.wait.max.ms": 100,
                # Small records take several times their bytes in the client's queue.
                "fetch.message.max.bytes": 1024 * 1024,
                "queued.min.messages": 50_000,
                "queued.max.messages.kbytes": 4 * 1024,
                "fetch.queue.backoff.ms": 5,
                **clients.LARGEST_RESPONSE,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def partitions(self, topic: str) -> int:
        metadata = self._consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        # A topic that this user may not see has an error and no partitions.
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        return len(metadata.partitions)

    def range(self, topic: str, partition: int) -> OffsetRange:
        where = TopicPartition(topic, partition)
        return OffsetRange(*clients.watermarks(self._consumer, where, TIMEOUT_S))

    def open_from(self, topic: str, partition: int) -> int | None:
        """The offset of the first open transaction; None without one."""
        admin = self._admin = self._admin or AdminClient(self._admin_config)
        # A fresh client may ask for the partition's leader before it is connected; it would retry
        # only after 3 s.
        admin.list_topics(topic, timeout=TIMEOUT_S)
        where = TopicPartition(topic, partition)
        stable, high = (
            int(clients.request_ends(admin, [where], TIMEOUT_S, level)[where].result().offset)
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        )
        return stable if stable < high else None

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[CommittedRecord]:
        """Every committed record from start up to, not with, end."""
        if start >= end:
            return
        self._consumer.assign([TopicPartition(topic, partition, start)])
        heard_at = time.monotonic()
        while True:
            first = self._consumer.poll(1.0)
            if first is None and time.monotonic() - heard_at > TIMEOUT_S:
                raise NoAnswer(f"partition {partition} of {topic} cannot be read: no answer")
            # Take what has already arrived: a larger request would wait until it is filled.
            for message in () if first is None else (first, *self._consumer.consume(CHUNK, 0)):
                error, offset = message.error(), message.offset() or 0
                if error is not None and error.code() in _OUT_OF_RANGE:
                    raise OutOfRange(topic, partition, start, self.range(topic, partition))
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if offset >= end:
                    return
                if error is None:
                    _, time_ms = message.timestamp()
                    yield CommittedRecord(offset, message.key(), message.value(), time_ms)
                    if offset == end - 1:
                        return
            if first is not None:
                # The caller's work between two records does not count as silence.
                heard_at = time.monotonic()

    def at(self, topic: str, partition: int, offset: int) -> CommittedRecord | None:
        for record in self.read(topic, partition, offset, offset + 1):
            return record if record.offset == offset else None
        return None

    def last(self, topic: str, partition: int) -> CommittedRecord | None:
        """The last committed record. Transaction markers and aborted records follow it and take
        offsets too: a few, or a whole batch."""
        start, end = self.range(topic, partition)
        window = FIRST_WINDOW
        while True:
            last = None
            for record in self.read(topic, partition, max(start, end - window), end):
                last = record
            if last is not None or end - window <= start:
                return last
            window *= 8
