"""A consumer of partitions from offsets that are named to it, in no group; and what it does where
the client stands still.

librdkafka may stop fetching a partition for good, without an error, when the partition's broker
restarts at a bad moment. So the brokers are asked, every few seconds, how far the partitions go: a
client that brings nothing of what is there is replaced by a new one, which goes on where its owner
says. The offsets of what a reader hands on only rise in each partition. It knows no topic.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from plumbing.kafka import clients
from plumbing.kafka.clients import ClientConfig

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 5.0
# Between two looks it must have been read from so often: a quiet partition's records may lie behind
# those of a busy one, with its owner.
LEAST_READS = 5
PATIENCE: Final = 2
ANSWER_S: Final = 4.0
# A topic and a partition.
Place = tuple[str, int]


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
        self._admin: AdminClient | None = None
        self._asked: dict[TopicPartition, Future[Any]] = {}
        self._look_at = time.monotonic() + LOOK_EVERY_S
        self._reads = 0
        # The lowest offset that the next record of each partition may have.
        self._expected: dict[Place, int] = {}
        # Where partitions were seen to end, markers and aborted records and all.
        self._ends: dict[Place, int] = {}
        # Where those were read to that went further, and at how many looks in a row.
        self._behind: dict[Place, tuple[int, int]] = {}
        # Where clients were replaced, and at how many looks the next one will be: at twice as many
        # each time, lest what takes long be begun again and again.
        self._patience: dict[Place, tuple[int, int]] = {}

    def start(self) -> None:
        self._expected = dict(self._next_offsets())
        self._client.assign([TopicPartition(*place, at) for place, at in self._expected.items()])

    def poll(self, timeout_s: float) -> Message | None:
        """The next record, or the end of a partition. Raises `OutOfOrder`."""
        self._before_reading()
        message = self._client.poll(timeout_s)
        if message is not None:
            self._check_order(message)
        return message

    def consume(self, most: int, timeout_s: float) -> list[Message]:
        """As many as there are. Raises `OutOfOrder`."""
        self._before_reading()
        messages = self._client.consume(most, timeout_s)
        for message in messages:
            self._check_order(message)
        return messages

    def note_end(self, topic: str, end: Message) -> None:
        """`end` is no record, but was read."""
        self._ends[topic, end.partition() or 0] = end.offset() or 0

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
        # Its threads end with it.
        self._asked, self._admin = {}, None

    def _check_order(self, message: Message) -> None:
        if message.error() is not None:
            return
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None and partition is not None and offset is not None
        expected = self._expected[topic, partition]
        if offset < expected:
            raise OutOfOrder((topic, partition), offset, expected)
        self._expected[topic, partition] = offset + 1

    def _before_reading(self) -> None:
        self._reads += 1
        if time.monotonic() >= self._look_at:
            self._look()
            self._look_at = time.monotonic() + LOOK_EVERY_S

    def _look(self) -> None:
        places = self._next_offsets()
        if self._reads >= LEAST_READS:
            self._reads = 0
            self._behind = {
                place: (at, 1 + _same(self._behind.get(place), at, 0))
                for place, end in self._answers().items()
                if (at := max(places[place], self._ends.get(place, 0))) < end
            }
            stands = {
                place: at
                for place, (at, looks) in self._behind.items()
                if looks >= _same(self._patience.get(place), at, PATIENCE)
            }
            if stands:
                self._replace(stands)
        self._ask(places)

    def _ask(self, places: Iterable[Place]) -> None:
        if self._admin is None:
            # Asking for a topic may make it, where brokers do so and the client lets them.
            self._admin = AdminClient({**self._config, "allow.auto.create.topics": False})
        where = [TopicPartition(*place) for place in places]
        self._asked = clients.request_ends(self._admin, where, ANSWER_S)

    def _answers(self) -> dict[Place, int]:
        """Where partitions ended when that was asked last, of those that somebody answered for."""
        ends = {}
        for where, answer in self._asked.items():
            if answer.done() and answer.exception() is None:
                ends[where.topic, where.partition] = int(answer.result().offset)
        return ends

    def _replace(self, stands: Mapping[Place, int]) -> None:
        for place, at in stands.items():
            log.warning("a client stands still", topic=place[0], partition=place[1], at=at)
            self._patience[place] = at, 2 * _same(self._patience.get(place), at, PATIENCE)
        places = self._next_offsets()
        # With the epochs of what was read: the new client finds out whether the log was cut
        # meanwhile, as the old one would have.
        goes_on = self._client.position([TopicPartition(*place) for place in places])
        for each in goes_on:
            each.offset = places[each.topic, each.partition]
        self._client.close()
        self._client = self._make()
        self._client.assign(goes_on)
        self._behind = {}

    def _make(self) -> Consumer:
        return clients.committed_consumer({**self._config, **self._options})


def _same(noted: tuple[int, int] | None, at: int, otherwise: int) -> int:
    """What was noted, if it was of this place."""
    return noted[1] if noted is not None and noted[0] == at else otherwise
