"""What a partition reads: batches of `legs` and `commands`, from the offsets that its state names.

One consumer for both topics of one partition, never in a group: where to read is for the state to
say. Each batch names the offsets at which the one before it ended, so that a record left out, or
read twice, is found.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from plumbing.kafka import ClientConfig
from schemas.state import InputPosition
from schemas.topics import Names

MAX_RECORDS = 2_000
# A batch of `commands` is small as it lies in the topic, but may be compressed from much more.
MOST_BYTES: ClientConfig = {"receive.message.max.bytes": 2**31 - 1}
KIB = 1024


class Read(Struct, frozen=True, gc=False):
    """A record as it lies in its topic."""

    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int


class Batch(NamedTuple):
    """What was read since the batch before, legs and commands each in order."""

    legs_from: int
    legs: list[Read]
    commands_from: int
    commands: list[Read]


class Inputs:
    def __init__(self, config: Mapping[str, Any], names: Names, partition: int) -> None:
        self._commands = TopicPartition(names.commands, partition)
        self._legs = TopicPartition(names.legs, partition)
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
                **MOST_BYTES,
                # What is fetched ahead is what a leg may have to wait behind.
                "fetch.message.max.bytes": 512 * KIB,
                "queued.min.messages": 2 * MAX_RECORDS,
                "queued.max.messages.kbytes": 2 * KIB,
                # A queue that is full is looked at again soon: the client's own pause is a second.
                "fetch.queue.backoff.ms": 5,
            }
        )
        self._next_commands = self._next_legs = 0
        self._commands_at_end = False

    def start(self, commands_next_offset: int, legs_next_offset: int) -> None:
        self._next_commands, self._next_legs = commands_next_offset, legs_next_offset
        self._consumer.assign(
            [
                TopicPartition(self._commands.topic, self._commands.partition, self._next_commands),
                TopicPartition(self._legs.topic, self._legs.partition, self._next_legs),
            ]
        )

    def take(self, timeout_s: float) -> Batch | None:
        """All that has arrived, as soon as anything has; None if nothing did in time, or the end of
        a topic was all that came."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return None
        batch = Batch(self._next_legs, [], self._next_commands, [])
        for message in (first, *self._consumer.consume(MAX_RECORDS - 1, 0)):
            of_commands, ends = message.topic() == self._commands.topic, _ends(message)
            if of_commands:
                self._commands_at_end = ends
            if not ends:
                (batch.commands if of_commands else batch.legs).append(as_read(message))
        if batch.commands:
            self._next_commands = batch.commands[-1].offset + 1
        if batch.legs:
            self._next_legs = batch.legs[-1].offset + 1
        return batch if batch.commands or batch.legs else None

    def lag(self) -> int:
        """Offsets of `commands` that are known to be there and were not taken, transaction markers
        among them; 0 where no record was left; -1 if not known."""
        if self._commands_at_end:
            return 0
        try:
            _, end = self._consumer.get_watermark_offsets(self._commands, cached=True)
        except KafkaException:
            return -1
        return max(0, end - self._next_commands) if end >= 0 else -1

    def close(self) -> None:
        self._consumer.close()


def _ends(message: Message) -> bool:
    """Whether it is none, but tells that nothing more lies in its topic."""
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def as_read(message: Message) -> Read:
    error = message.error()
    if error is not None:
        raise KafkaException(error)
    offset = message.offset()
    assert offset is not None, "a message without error has an offset"
    return Read(offset, message.key(), message.value(), message.timestamp()[1])


def position_after(last: Read) -> InputPosition:
    return InputPosition(last.offset + 1, last.offset, digest(last))


def digest(read: Read) -> bytes:
    """What tells a record from another one that lies at its offset in another topic."""
    key, value = read.key or b"", read.value or b""
    head = f"{read.offset}:{read.time_ms}:{len(key)}:{len(value)}:".encode()
    return hashlib.sha256(head + key + value).digest()[:16]
