"""Topics in memory that replace those that `sinks.verify.topic_reader` reads.

Verify as a whole takes milliseconds with it. Its own reading of Kafka is tested with Kafka.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedRecord
from schemas.topics import Names
from sinks.verify import topic_reader
from sinks.verify.report import VerifyReport
from sinks.verify.verification import VerifyOptions, verify

DAY_MS = 24 * 3_600_000


class Topics:
    """Stands in for a producer and keeps its records."""

    def __init__(self) -> None:
        self.records: defaultdict[tuple[str, int], list[CommittedRecord]] = defaultdict(list)
        self.starts: defaultdict[tuple[str, int], int] = defaultdict(int)
        # How many records at the end to hide, in turn, each time that a reader looks up the end.
        self.hidden: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        self.retention_ms: dict[str, int | None] = {"results": 7 * DAY_MS}

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        timestamp: int = 0,
    ) -> None:
        records = self.records[topic, partition]
        time_ms = timestamp or int(time.time() * 1_000)
        records.append(CommittedRecord(len(records), key, value, time_ms))

    def empty(self, topic: str, partition: int) -> None:
        """Removes all records, as if the topic was created again."""
        self.records[topic, partition].clear()

    def delete_until(self, topic: str, partition: int, offset: int) -> None:
        self.starts[topic, partition] = offset


class _Partition:
    def __init__(
        self, config: ClientConfig, topic: str, partition: int, *, trimmed: bool = False
    ) -> None:
        self.topic, self.partition = topic, partition
        self._topics: Any = config["topics"]
        self._at = topic, partition

    def close(self) -> None:
        pass

    def range(self) -> tuple[int, int]:
        hidden = self._topics.hidden[self._at]
        end = len(self._topics.records[self._at]) - (hidden.pop(0) if hidden else 0)
        return self._topics.starts[self._at], end

    def records(self, start: int, end: int) -> Iterator[CommittedRecord]:
        first = max(start, self._topics.starts[self._at])
        yield from list(self._topics.records[self._at][first:end])

    def last(self) -> CommittedRecord | None:
        start, end = self.range()
        return self._topics.records[self._at][end - 1] if end > start else None


def install(patch: pytest.MonkeyPatch) -> None:
    def retention_ms(config: ClientConfig, topic: str) -> int | None:
        topics: Any = config["topics"]
        retention: int | None = topics.retention_ms.get(topic)
        return retention

    patch.setattr(topic_reader, "TopicPartitionReader", _Partition)
    patch.setattr(topic_reader, "retention_ms", retention_ms)
    patch.setattr(topic_reader, "CATCH_UP_S", 0.2)
    patch.setattr(topic_reader, "PAUSE_S", 0.001)


def verified(topics: Topics, partitions: int, *, against_rules: bool = False) -> VerifyReport:
    config: Any = {"topics": topics}
    options = VerifyOptions(
        config=config,
        names=Names(),
        partitions=partitions,
        database_url=None,
        against_rules=against_rules,
    )
    return verify(options, lambda done, total: None)
