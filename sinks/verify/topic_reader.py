"""One partition of one topic for `verify` and rebuilds: a committed reader that connects late.

It joins no consumer group and commits no offset, so it disturbs no other client. It must not know
what the records mean.
"""

import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AdminClient,
    ConfigResource,
    ResourceType,
)

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedReader, CommittedRecord, OffsetRange

TIMEOUT_S: Final = 30.0
# A transaction becomes visible in one partition before it does in another. This is how long verify
# waits for the rest of it, and for copies that lag behind.
CATCH_UP_S = 15.0
PAUSE_S: Final = 0.1


def retention_ms(config: ClientConfig, topic: str) -> int | None:
    """The age that each record of a topic reaches; None if records are never deleted. It is 0 where
    the topic's size is bounded."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({**config})
    try:
        (config_future,) = admin.describe_configs([resource], request_timeout=TIMEOUT_S).values()
        topic_config = config_future.result(TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise Failure(f"cannot read the configuration of {topic}: {error}") from None
    if int(topic_config["retention.bytes"].value) >= 0:
        return 0
    age_ms = int(topic_config["retention.ms"].value)
    return None if age_ms < 0 else age_ms


class TopicPartitionReader:
    """`trimmed`: the first records may be deleted at any time."""

    def __init__(
        self, config: ClientConfig, topic: str, partition: int, *, trimmed: bool = False
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._config = config
        self._trimmed = trimmed
        self._connected: CommittedReader | None = None

    @property
    def _reader(self) -> CommittedReader:
        if self._connected is None:
            self._connected = CommittedReader(self._config, trimmed=self._trimmed)
        return self._connected

    def close(self) -> None:
        """The next read connects again."""
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    def range(self) -> OffsetRange:
        try:
            return self._reader.range(self.topic, self.partition)
        except KafkaException as error:
            raise Failure(
                f"cannot read partition {self.partition} of {self.topic}: {error.args[0].str()}"
            ) from None

    def records(self, start: int, end: int) -> Iterator[CommittedRecord]:
        """The records from `start` up to, but not including, `end`."""
        return self._reader.read(self.topic, self.partition, start, end)

    def last(self) -> CommittedRecord | None:
        return self._reader.last(self.topic, self.partition)


class GrowingRecords:
    """The records of a partition up to an end that may grow while verify runs."""

    def __init__(self, reader: TopicPartitionReader) -> None:
        self._reader = reader
        self.start, self.end = reader.range()
        self.records: Iterator[CommittedRecord] = reader.records(self.start, self.end)
        # How long `grow` waits. After one time-out it no longer does.
        self.catch_up_s = CATCH_UP_S

    def grow(self, offset: int) -> bool:
        """Whether the partition grew beyond an offset in time; then `records` continues."""
        deadline = time.monotonic() + self.catch_up_s
        while True:
            end = self._reader.range()[1]
            if end > offset:
                self.records = self._reader.records(self.end, end)
                self.end = end
                return True
            if time.monotonic() >= deadline:
                self.catch_up_s = 0.0
                return False
            time.sleep(PAUSE_S)
