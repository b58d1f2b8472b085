"""A consumer of partitions from offsets that its owner names, in no group.

Keeps two rules: the offsets of the records that it returns only rise in each partition, and a
consumer that has stalled (`stall_watchdog`) is replaced by one that continues where its owner says.
It knows no topic.
"""

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from plumbing.kafka import clients
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.stall_watchdog import Place, StallWatchdog

log = structlog.get_logger(__name__)


class OutOfOrder(Exception):
    """A record came twice, or after a later one. Which records came is unknown, so none of this
    read may be used; a new process reads on from what is committed."""

    def __init__(self, place: Place, offset: int, expected: int) -> None:
        super().__init__(
            f"partition {place[1]} of {place[0]}: a record at offset {offset} came, after"
            f" {expected - 1}"
        )


class PartitionConsumer:
    """`config` is what every client has, `options` what this consumer has beside it.
    `next_offsets` tells what to read, and from where on: whatever was returned counts in it by the
    next call, or it is read again.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        options: ClientConfig,
        next_offsets: Callable[[], Mapping[Place, int]],
    ) -> None:
        self._config = config
        self._options = options
        self._next_offsets = next_offsets
        self._client = self._make()
        self._watchdog = StallWatchdog(config, next_offsets)
        # The lowest offset that the next record of each partition may have.
        self._expected: dict[Place, int] = {}

    def start(self) -> None:
        self._expected = dict(self._next_offsets())
        self._client.assign([TopicPartition(*place, at) for place, at in self._expected.items()])

    def poll(self, timeout_s: float) -> Message | None:
        """The next record, or the end of a partition. Raises `OutOfOrder`."""
        self._replace_if_stalled()
        message = self._client.poll(timeout_s)
        if message is not None:
            self._check_order(message)
        return message

    def consume(self, most: int, timeout_s: float) -> list[Message]:
        """As many as there are. Raises `OutOfOrder`."""
        self._replace_if_stalled()
        messages = self._client.consume(most, timeout_s)
        for message in messages:
            self._check_order(message)
        return messages

    def note_end(self, topic: str, end: Message) -> None:
        """`end` marks the end of a partition; it is not a record."""
        self._watchdog.note_end((topic, end.partition() or 0), end.offset() or 0)

    def watermarks(self, place: Place, timeout_s: float) -> tuple[int, int]:
        """The partition's first offset and its end, as the brokers say."""
        return clients.watermarks(self._client, TopicPartition(*place), timeout_s)

    def known_end(self, place: Place) -> int:
        """The partition's end as far as the client has heard of it, -1 before that."""
        try:
            _, end = self._client.get_watermark_offsets(TopicPartition(*place), cached=True)
        except KafkaException:
            return -1
        return max(-1, end)

    def close(self) -> None:
        self._client.close()
        self._watchdog.close()

    def _check_order(self, message: Message) -> None:
        if message.error() is not None:
            return
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None and partition is not None and offset is not None
        expected = self._expected[topic, partition]
        if offset < expected:
            raise OutOfOrder((topic, partition), offset, expected)
        self._expected[topic, partition] = offset + 1

    def _replace_if_stalled(self) -> None:
        stalled = self._watchdog.before_read()
        if stalled:
            self._replace(stalled)

    def _replace(self, stalled: Mapping[Place, int]) -> None:
        for (topic, partition), offset in stalled.items():
            log.warning(
                "consumer stalled; replacing it", topic=topic, partition=partition, at=offset
            )
        next_offsets = self._next_offsets()
        # With the leader epochs of what was read, so that the new client notices a log that was
        # cut meanwhile, as the old one would have.
        places = self._client.position([TopicPartition(*place) for place in next_offsets])
        for place in places:
            place.offset = next_offsets[place.topic, place.partition]
        self._client.close()
        self._client = self._make()
        self._client.assign(places)

    def _make(self) -> Consumer:
        return clients.committed_consumer({**self._config, **self._options})
