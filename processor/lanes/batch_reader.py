"""Reads batches of `coordination` and `commands` from the offsets in the states, and decodes them.

One consumer reads both topics of all partitions of a lane. It is in no group: only the states say
where to read. Each batch names the offsets at which the previous one ended, so that a record left
out, or read twice, is found. It must not know how records are decided.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from plumbing.kafka import clients
from plumbing.kafka.partition_consumer import PartitionConsumer
from plumbing.kafka.stall_watchdog import Place
from processor.rules.decision import DecisionInput
from processor.rules.journal_header import input_of
from schemas.coordination import CoordinationMessage, Refused, Undecodable
from schemas.encoding import codecs
from schemas.encoding.codecs import AvroSchemas
from schemas.reasons import Reason
from schemas.state import PartitionPosition
from schemas.topics import Names
from schemas.validation.command_validation import UnreadableRecord

KIB = 1024
MIB = 1024 * KIB
# The bounds of a batch, over all partitions. One read may exceed the bytes.
MAX_RECORDS, MAX_INPUT_BYTES = 9_000, 8 * MIB
# The part of a batch that may be read ahead. The rest is room for what arrives last, coordination
# messages among it.
MAX_READ_AHEAD = 6_500
RECORDS_PER_READ = 200

_REASONS = frozenset(Reason)
_decode_message = msgspec.json.Decoder(CoordinationMessage).decode


class Batch(NamedTuple):
    """The next records of one partition: coordination messages and commands, each in order."""

    partition: int
    coordination_from: int
    messages: list[DecisionInput]
    commands_from: int
    commands: list[DecisionInput]


class BatchReader:
    def __init__(self, config: Mapping[str, Any], names: Names, schemas: AvroSchemas) -> None:
        self._commands, self._coordination = names.commands, names.coordination
        self._schemas = schemas
        self._consumer = PartitionConsumer(
            config,
            {
                "fetch.wait.max.ms": 500,
                "fetch.min.bytes": 1,
                "fetch.error.backoff.ms": 100,
                **clients.LARGEST_RESPONSE,
                # A quiet partition of the lane waits behind what is fetched of a busy one.
                "fetch.message.max.bytes": 128 * KIB,
                "queued.min.messages": 1_000,
                "queued.max.messages.kbytes": 4 * KIB,
                # How soon a full queue is checked again; the client's default is a second.
                "fetch.queue.backoff.ms": 5,
            },
            self._next_offsets,
        )
        self._next_commands: dict[int, int] = {}
        self._next_coordination: dict[int, int] = {}
        # The partitions whose commands were read to the end.
        self._at_end: set[int] = set()
        # The ends of `commands` that the client knew of after the last read.
        self._ends: dict[int, int] = {}
        # What was read and not taken.
        self._untaken: dict[int, Batch] = {}
        self._records = self._bytes = 0

    def start(self, positions: Mapping[int, PartitionPosition]) -> None:
        for partition, position in positions.items():
            self._next_commands[partition] = position.commands.next_offset
            self._next_coordination[partition] = position.coordination.next_offset
        self._consumer.start()

    def wait_for_record(self, timeout_s: float) -> tuple[int, int] | None:
        """Where the next batch begins, by partition and offset of `commands`; None if no record
        arrived in time."""
        message = self._consumer.poll(timeout_s)
        if message is not None:
            self._add(message)
        self._note_ends()
        first = next(iter(self._untaken.values()), None)
        return None if first is None else (first.partition, first.commands_from)

    def take(self, timeout_s: float) -> list[Batch]:
        """Everything that has arrived, as soon as a record has; nothing if none arrived in time."""
        if not self._untaken and self.wait_for_record(timeout_s) is None:
            return []
        while (room := self._room(MAX_RECORDS)) and self._read(room, 0) == room:
            pass
        taken, self._untaken = list(self._untaken.values()), {}
        self._records = self._bytes = 0
        for batch in taken:
            if batch.commands:
                self._next_commands[batch.partition] = batch.commands[-1].offset + 1
            if batch.messages:
                self._next_coordination[batch.partition] = batch.messages[-1].offset + 1
        self._note_ends()
        return taken

    def read_ahead(self, timeout_s: float) -> bool:
        """Reads some of what arrives in time, for the next batch. Whether there was room."""
        room = self._room(MAX_READ_AHEAD)
        if room:
            self._read(room, timeout_s)
            self._note_ends()
        return room > 0

    def untaken(self, partition: int) -> int:
        """How many commands of a partition were read and not taken."""
        batch = self._untaken.get(partition)
        return len(batch.commands) if batch else 0

    def _room(self, limit: int) -> int:
        """How many records one read may return, if at most `limit` may wait to be taken."""
        if self._bytes >= MAX_INPUT_BYTES:
            return 0
        return max(0, min(RECORDS_PER_READ, limit - self._records))

    def _read(self, limit: int, timeout_s: float) -> int:
        """How many messages arrived, ends of partitions among them."""
        messages = self._consumer.consume(limit, timeout_s)
        for message in messages:
            self._add(message)
        return len(messages)

    def _add(self, message: Message) -> None:
        error, partition = message.error(), message.partition()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        assert partition is not None, "records and ends have a partition"
        is_command = message.topic() == self._commands
        if error is not None:
            self._consumer.note_end(self._commands if is_command else self._coordination, message)
            if is_command:
                self._at_end.add(partition)
            return
        batch = self._untaken.get(partition)
        if batch is None:
            batch = self._untaken[partition] = Batch(
                partition,
                self._next_coordination[partition],
                [],
                self._next_commands[partition],
                [],
            )
        offset, key, value = message.offset(), message.key(), message.value() or b""
        assert offset is not None, "a message without error has an offset"
        _, time_ms = message.timestamp()
        if is_command:
            self._at_end.discard(partition)
            command = codecs.decode_command(value, self._schemas)
            batch.commands.append(input_of("commands", offset, key, value, time_ms, command))
        else:
            batch.messages.append(
                input_of("coordination", offset, key, value, time_ms, _decode_coordination(value))
            )
        self._records += 1
        self._bytes += len(value) + len(key or b"")

    def backlog(self) -> int:
        """How many commands are known to wait, read or not."""
        return sum(max(0, self.lag(partition)) for partition in self._next_commands)

    def lag(self, partition: int) -> int:
        """How many offsets of `commands` are known and not taken, transaction markers among them;
        0 if no record was left, -1 if the end is unknown."""
        if partition in self._at_end and not self.untaken(partition):
            return 0
        end = self._ends.get(partition, -1)
        return max(0, end - self._next_commands[partition]) if end >= 0 else -1

    def _note_ends(self) -> None:
        """For the other thread: it must not ask a client that this one may be replacing."""
        for partition in self._next_commands:
            self._ends[partition] = self._consumer.known_end((self._commands, partition))

    def close(self) -> None:
        self._consumer.close()

    def _next_offsets(self) -> dict[Place, int]:
        """Where to read on, behind what was read ahead."""
        offsets = {(self._commands, partition): at for partition, at in self._next_commands.items()}
        offsets |= {
            (self._coordination, partition): at for partition, at in self._next_coordination.items()
        }
        for batch in self._untaken.values():
            for topic, inputs in (
                (self._commands, batch.commands),
                (self._coordination, batch.messages),
            ):
                if inputs:
                    offsets[topic, batch.partition] = inputs[-1].offset + 1
        return offsets


def _decode_coordination(value: bytes) -> CoordinationMessage | UnreadableRecord | Undecodable:
    try:
        message: CoordinationMessage = _decode_message(value)
    except (ValueError, RecursionError) as error:
        if _is_ours(value):
            return Undecodable(str(error))
        return UnreadableRecord(Reason.MALFORMED, str(error), None)
    if isinstance(message, Refused) and message.reason not in _REASONS:
        return Undecodable(f"unknown reason {message.reason!r}")
    return message


def _is_ours(value: bytes) -> bool:
    """Whether any version of this program may have written it: then it names its kind, or its
    number among the messages of a partition."""
    try:
        message = msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and (
        "message" in message or {"source", "number"} <= message.keys()
    )
