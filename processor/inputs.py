"""What a lane reads: batches of `legs` and `commands`, from the offsets that the partitions' states
name.

One consumer for both topics of all of a lane's partitions, never in a group: where to read is for
the states to say. Each batch names the offsets at which the one before it ended, so that a record
left out, or read twice, is found.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from plumbing import kafka
from plumbing.kafka import ClientConfig
from schemas.state import InputPosition, Position
from schemas.topics import Names

MAX_RECORDS = 8_000
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
    """What was read of one partition since its batch before, legs and commands each in order."""

    partition: int
    legs_from: int
    legs: list[Read]
    commands_from: int
    commands: list[Read]


class Inputs:
    def __init__(self, config: Mapping[str, Any], names: Names) -> None:
        self._commands, self._legs = names.commands, names.legs
        self._consumer = kafka.reader(
            {
                **config,
                "fetch.wait.max.ms": 500,
                "fetch.min.bytes": 1,
                "fetch.error.backoff.ms": 100,
                **MOST_BYTES,
                # What is fetched ahead of a busy partition is what a leg, or a quiet partition of
                # the lane, has to wait behind.
                "fetch.message.max.bytes": 128 * KIB,
                "queued.min.messages": 1_000,
                "queued.max.messages.kbytes": 4 * KIB,
                # A queue that is full is looked at again soon: the client's own pause is a second.
                "fetch.queue.backoff.ms": 5,
            }
        )
        self._next_commands: dict[int, int] = {}
        self._next_legs: dict[int, int] = {}
        # The partitions whose commands were read to the end.
        self._at_end: set[int] = set()

    def start(self, positions: Mapping[int, Position]) -> None:
        for partition, position in positions.items():
            self._next_commands[partition] = position.commands.next_offset
            self._next_legs[partition] = position.legs.next_offset
        self._consumer.assign(
            [
                TopicPartition(topic, *each)
                for topic, next_offsets in (
                    (self._commands, self._next_commands),
                    (self._legs, self._next_legs),
                )
                for each in next_offsets.items()
            ]
        )

    def take(self, timeout_s: float) -> list[Batch]:
        """All that has arrived, as soon as anything has; nothing if nothing did in time, or the end
        of a topic was all that came."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        batches: dict[int, Batch] = {}
        for message in (first, *self._consumer.consume(MAX_RECORDS - 1, 0)):
            of_commands = message.topic() == self._commands
            if _ends(message):
                if of_commands:
                    self._at_end.add(_partition(message))
                continue
            read, partition = as_read(message), _partition(message)
            batch = batches.get(partition)
            if batch is None:
                batch = batches[partition] = Batch(
                    partition, self._next_legs[partition], [], self._next_commands[partition], []
                )
            if of_commands:
                self._at_end.discard(partition)
                batch.commands.append(read)
            else:
                batch.legs.append(read)
        for batch in batches.values():
            if batch.commands:
                self._next_commands[batch.partition] = batch.commands[-1].offset + 1
            if batch.legs:
                self._next_legs[batch.partition] = batch.legs[-1].offset + 1
        return list(batches.values())

    def lag(self, partition: int) -> int:
        """Offsets of `commands` that are known to be there and were not taken, transaction markers
        among them; 0 where no record was left; -1 if not known."""
        if partition in self._at_end:
            return 0
        where = TopicPartition(self._commands, partition)
        try:
            _, end = self._consumer.get_watermark_offsets(where, cached=True)
        except KafkaException:
            return -1
        return max(0, end - self._next_commands[partition]) if end >= 0 else -1

    def close(self) -> None:
        self._consumer.close()


def _ends(message: Message) -> bool:
    """Whether it is none, but tells that nothing more lies in its topic."""
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def _partition(message: Message) -> int:
    partition = message.partition()
    assert partition is not None, "a record lies in a partition, and so does an end"
    return partition


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
