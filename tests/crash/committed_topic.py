"""What a read_committed reader sees of the ledger's topics, record by record, as bytes.

Shares nothing with the processor: a plain consumer, assigned by hand, from the first record on.
"""

import hashlib
import time
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

TIMEOUT_S = 30.0
CHUNK = 5_000
# What is longer is known by its digest alone.
KEPT_BYTES = 64 * 1024


class CommittedRecord(NamedTuple):
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int
    digest: str


class CommittedTopic:
    """Every committed record of one topic, once, in each partition's order."""

    def __init__(self, client: dict[str, str | int | float | bool], name: str, count: int) -> None:
        self.name = name
        self._consumer = Consumer(
            {
                **client,
                "group.id": "audit",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                # Of a batch when it is no longer compressed, too.
                "receive.message.max.bytes": 2**31 - 1,
            }
        )
        self._partitions = [TopicPartition(name, number, 0) for number in range(count)]
        self._seen = [0] * count
        self._consumer.assign(self._partitions)

    def close(self) -> None:
        self._consumer.close()

    def ranges(self) -> list[tuple[int, int]]:
        """Of each partition the first offset and the end of what is committed."""
        return [
            self._consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)
            for partition in self._partitions
        ]

    def news(self) -> Iterator[CommittedRecord]:
        """What has been committed since the last call."""
        ends = [end for _, end in self.ranges()]
        deadline = time.monotonic() + TIMEOUT_S
        while any(seen < end for seen, end in zip(self._seen, ends, strict=True)):
            messages = self._consumer.consume(CHUNK, 0.1)
            if messages:
                deadline = time.monotonic() + TIMEOUT_S
            assert time.monotonic() < deadline, f"{self.name} is not read: {self._seen} of {ends}"
            for message in messages:
                error, partition, offset = message.error(), message.partition(), message.offset()
                assert partition is not None and offset is not None
                if error is None:
                    self._seen[partition] = offset + 1
                    yield _record(
                        partition, offset, message.key(), message.value(), message.timestamp()[1]
                    )
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._seen[partition] = max(self._seen[partition], offset)
                elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                    raise KafkaException(error)


def _record(
    partition: int, offset: int, key: bytes | None, value: bytes | None, time_ms: int
) -> CommittedRecord:
    digest = hashlib.sha256(value or b"").hexdigest()
    kept = None if value is not None and len(value) > KEPT_BYTES else value
    return CommittedRecord(partition, offset, key, kept, time_ms, digest)
