"""Reads the committed records of a topic as bytes, from the first one on.

It is a plain consumer with assigned partitions. It must not know the product's code.
"""

import hashlib
import time
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

TIMEOUT_S = 30.0
MAX_CONSUMED_MESSAGES = 5_000
# Of longer values only the digest is kept.
MAX_VALUE_BYTES = 64 * 1024


class CommittedRecord(NamedTuple):
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int
    digest: str


class CommittedTopic:
    """Yields each committed record of one topic once, in each partition's order."""

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
                # The limit also applies to a decompressed batch.
                "receive.message.max.bytes": 2**31 - 1,
            }
        )
        self._partitions = [TopicPartition(name, number, 0) for number in range(count)]
        self._next_offsets = [0] * count
        self._consumer.assign(self._partitions)

    def close(self) -> None:
        self._consumer.close()

    def ranges(self) -> list[tuple[int, int]]:
        """The first offset and the last stable offset of each partition."""
        return [
            self._consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)
            for partition in self._partitions
        ]

    def new_records(self) -> Iterator[CommittedRecord]:
        """The records committed since the last call."""
        ends = [end for _, end in self.ranges()]
        deadline = time.monotonic() + TIMEOUT_S
        while any(
            next_offset < end for next_offset, end in zip(self._next_offsets, ends, strict=True)
        ):
            messages = self._consumer.consume(MAX_CONSUMED_MESSAGES, 0.1)
            if messages:
                deadline = time.monotonic() + TIMEOUT_S
            assert time.monotonic() < deadline, (
                f"{self.name} was not read in time: {self._next_offsets} of {ends}"
            )
            for message in messages:
                error, partition, offset = message.error(), message.partition(), message.offset()
                assert partition is not None and offset is not None
                if error is None:
                    self._next_offsets[partition] = offset + 1
                    yield _record(
                        partition, offset, message.key(), message.value(), message.timestamp()[1]
                    )
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._next_offsets[partition] = max(self._next_offsets[partition], offset)
                elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                    raise KafkaException(error)


def _record(
    partition: int, offset: int, key: bytes | None, value: bytes | None, time_ms: int
) -> CommittedRecord:
    digest = hashlib.sha256(value or b"").hexdigest()
    short_value = None if value is not None and len(value) > MAX_VALUE_BYTES else value
    return CommittedRecord(partition, offset, key, short_value, time_ms, digest)
