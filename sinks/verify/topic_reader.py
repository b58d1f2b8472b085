"""Committed records of one partition of a topic, from first to last, as bytes.

A reader of its own, in no group and with no position: it moves nothing and disturbs nobody.
"""

import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AdminClient,
    ConfigResource,
    ResourceType,
)
from msgspec import Struct

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig

TIMEOUT_S: Final = 30.0
CHUNK: Final = 2_000
# A commit is seen in one partition a moment before it is in another: so long for all of it.
CATCH_UP_S = 15.0
PAUSE_S: Final = 0.1


def retention_ms(config: ClientConfig, topic: str) -> int | None:
    """How old a record of a topic becomes at least; None: it is never deleted. Where size deletes
    it, no age is sure."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({**config})
    try:
        (answer,) = admin.describe_configs([resource], request_timeout=TIMEOUT_S).values()
        settings = answer.result(TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        raise Failure(f"the settings of {topic} cannot be read: {error}") from None
    if int(settings["retention.bytes"].value) >= 0:
        return 0
    age_ms = int(settings["retention.ms"].value)
    return None if age_ms < 0 else age_ms


class TopicRecord(Struct, frozen=True, gc=False):
    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int


class TopicPartitionReader:
    """One partition of one topic. Of one that is `trimmed` the first records may go at any time."""

    def __init__(
        self, config: ClientConfig, topic: str, partition: int, *, trimmed: bool = False
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._config = config
        self._reset = "earliest" if trimmed else "error"
        self._made: Consumer | None = None

    @property
    def _consumer(self) -> Consumer:
        if self._made is None:
            self._made = self._make()
        return self._made

    def _make(self) -> Consumer:
        return Consumer(
            {
                **self._config,
                "group.id": "none",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": self._reset,
                "fetch.wait.max.ms": 100,
                "queued.min.messages": 20_000,
                "queued.max.messages.kbytes": 32 * 1024,
                # A batch when it is no longer compressed, too.
                "receive.message.max.bytes": 2**31 - 1,
            }
        )

    def close(self) -> None:
        """Lets go of the connection; it is made again when it is needed."""
        if self._made is not None:
            self._made.close()
            self._made = None

    def range(self) -> tuple[int, int]:
        """The first offset, and the end of what is committed."""
        asked = TopicPartition(self.topic, self.partition)
        try:
            return self._consumer.get_watermark_offsets(asked, timeout=TIMEOUT_S)
        except KafkaException as error:
            raise Failure(
                f"partition {self.partition} of {self.topic} cannot be read: {error.args[0].str()}"
            ) from None

    def records(self, start: int, end: int) -> Iterator[TopicRecord]:
        """Those from start up to, not with, end."""
        if start >= end:
            return
        self._consumer.assign([TopicPartition(self.topic, self.partition, start)])
        quiet_since = time.monotonic()
        while True:
            first = self._consumer.poll(1.0)
            if first is not None:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > TIMEOUT_S:
                raise Failure(f"partition {self.partition} of {self.topic}: no answer from Kafka")
            # What has arrived already; asking for many at once would wait for as many.
            for message in () if first is None else (first, *self._consumer.consume(CHUNK, 0)):
                error, offset = message.error(), message.offset() or 0
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if offset >= end:
                    return
                if error is None:
                    yield _record(message)
                    if offset == end - 1:
                        return

    def last(self) -> TopicRecord | None:
        """The last committed record: markers of transactions take offsets after it, and so do the
        records of a batch that was aborted."""
        start, end = self.range()
        back = 8
        while True:
            last = None
            for record in self.records(max(start, end - back), end):
                last = record
            if last is not None or end - back <= start:
                return last
            back *= 8


def _record(message: Message) -> TopicRecord:
    return TopicRecord(
        message.offset() or 0, message.key(), message.value(), message.timestamp()[1]
    )
