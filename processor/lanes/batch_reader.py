"""What a lane reads: batches of `coordination` and `commands`, from the offsets that the states
name, each record decoded.

One consumer for both topics of all of a lane's partitions, never in a group: where to read is for
the states to say. Each batch names the offsets at which the one before it ended, so that a record
left out, or read twice, is found.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from plumbing.kafka import clients
from plumbing.kafka.partition_consumer import PartitionConsumer, Place
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
# What is taken at once, of all partitions together. It may go beyond the bytes by what is read in
# one go.
MAX_RECORDS, MAX_INPUT_BYTES = 9_000, 8 * MIB
# So much of it may have been read before: who takes it mostly still gets what has come last, too, a
# message among it.
MAX_AHEAD = 6_500
AT_A_TIME = 200

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
        self._reader = PartitionConsumer(
            config,
            {
                "fetch.wait.max.ms": 500,
                "fetch.min.bytes": 1,
                "fetch.error.backoff.ms": 100,
                **clients.LARGEST_RESPONSE,
                # What is fetched ahead of a busy partition is what another one with few records
                # the lane, has to wait behind.
                "fetch.message.max.bytes": 128 * KIB,
                "queued.min.messages": 1_000,
                "queued.max.messages.kbytes": 4 * KIB,
                # A queue that is full is looked at again soon: the client's own pause is a second.
                "fetch.queue.backoff.ms": 5,
            },
            self._places,
        )
        self._next_commands: dict[int, int] = {}
        self._next_coordination: dict[int, int] = {}
        # The partitions whose commands were read to the end.
        self._at_end: set[int] = set()
        # The ends of `commands` that the client knew of after the last read.
        self._ends: dict[int, int] = {}
        # What was read and is not taken yet.
        self._ahead: dict[int, Batch] = {}
        self._records = self._bytes = 0

    def start(self, positions: Mapping[int, PartitionPosition]) -> None:
        for partition, position in positions.items():
            self._next_commands[partition] = position.commands.next_offset
            self._next_coordination[partition] = position.coordination.next_offset
        self._reader.start()

    def wait_for_record(self, timeout_s: float) -> tuple[int, int] | None:
        """Where the next batch begins, by partition and offset of `commands`; None if no record
        arrived in time."""
        message = self._reader.poll(timeout_s)
        if message is not None:
            self._add(message)
        self._note_ends()
        first = next(iter(self._ahead.values()), None)
        return None if first is None else (first.partition, first.commands_from)

    def take(self, timeout_s: float) -> list[Batch]:
        """All that has arrived, as soon as anything has; nothing if nothing did in time, or the end
        of a topic was all that came."""
        if not self._ahead and self.wait_for_record(timeout_s) is None:
            return []
        while (room := self._room(MAX_RECORDS)) and self._read(room, 0) == room:
            pass
        taken, self._ahead = list(self._ahead.values()), {}
        self._records = self._bytes = 0
        for batch in taken:
            if batch.commands:
                self._next_commands[batch.partition] = batch.commands[-1].offset + 1
            if batch.messages:
                self._next_coordination[batch.partition] = batch.messages[-1].offset + 1
        self._note_ends()
        return taken

    def read_ahead(self, timeout_s: float) -> bool:
        """Some of what arrives in time, for who takes next. Whether there was room for it."""
        room = self._room(MAX_AHEAD)
        if room:
            self._read(room, timeout_s)
            self._note_ends()
        return room > 0

    def ahead(self, partition: int) -> int:
        """How many commands of a partition were read and not taken."""
        batch = self._ahead.get(partition)
        return len(batch.commands) if batch else 0

    def _room(self, most: int) -> int:
        """How many records may be read in one go, if so many may wait to be taken."""
        if self._bytes >= MAX_INPUT_BYTES:
            return 0
        return max(0, min(AT_A_TIME, most - self._records))

    def _read(self, most: int, timeout_s: float) -> int:
        """How many came, the ends of topics among them."""
        messages = self._reader.consume(most, timeout_s)
        for message in messages:
            self._add(message)
        return len(messages)

    def _add(self, message: Message) -> None:
        error, partition = message.error(), message.partition()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        assert partition is not None, "a record lies in a partition, and so does an end"
        of_commands = message.topic() == self._commands
        if error is not None:
            self._reader.note_end(self._commands if of_commands else self._coordination, message)
            if of_commands:
                self._at_end.add(partition)
            return
        batch = self._ahead.get(partition)
        if batch is None:
            batch = self._ahead[partition] = Batch(
                partition,
                self._next_coordination[partition],
                [],
                self._next_commands[partition],
                [],
            )
        offset, key, value = message.offset(), message.key(), message.value() or b""
        assert offset is not None, "a message without error has an offset"
        _, time_ms = message.timestamp()
        if of_commands:
            self._at_end.discard(partition)
            command = codecs.decode_command(value, self._schemas)
            batch.commands.append(input_of("commands", offset, key, value, time_ms, command))
        else:
            batch.messages.append(
                input_of("coordination", offset, key, value, time_ms, _message(value))
            )
        self._records += 1
        self._bytes += len(value) + len(key or b"")

    def backlog(self) -> int:
        """How many commands are known to wait."""
        return sum(max(0, self.lag(partition)) for partition in self._next_commands)

    def lag(self, partition: int) -> int:
        """Offsets of `commands` that are known to be there and were not taken, transaction markers
        among them; 0 where no record was left; -1 if not known."""
        if partition in self._at_end and not self.ahead(partition):
            return 0
        end = self._ends.get(partition, -1)
        return max(0, end - self._next_commands[partition]) if end >= 0 else -1

    def _note_ends(self) -> None:
        """For another thread: it must not ask a client that this one may be replacing."""
        for partition in self._next_commands:
            self._ends[partition] = self._reader.known_end((self._commands, partition))

    def close(self) -> None:
        self._reader.close()

    def _places(self) -> dict[Place, int]:
        """Where to read on, after what was read ahead."""
        places = {(self._commands, partition): at for partition, at in self._next_commands.items()}
        places |= {
            (self._coordination, partition): at for partition, at in self._next_coordination.items()
        }
        for batch in self._ahead.values():
            for topic, read in (
                (self._commands, batch.commands),
                (self._coordination, batch.messages),
            ):
                if read:
                    places[topic, batch.partition] = read[-1].offset + 1
        return places


def _message(value: bytes) -> CoordinationMessage | UnreadableRecord | Undecodable:
    try:
        message: CoordinationMessage = _decode_message(value)
    except (ValueError, RecursionError) as error:
        if _is_ours(value):
            return Undecodable(str(error))
        return UnreadableRecord(Reason.MALFORMED, str(error), None)
    if isinstance(message, Refused) and message.reason not in _REASONS:
        return Undecodable(f"no reason {message.reason!r} is known")
    return message


def _is_ours(value: bytes) -> bool:
    """Whether a processor or a command of ours may have written it: by whatever version, it names
    its kind, or its place among the messages of a partition."""
    try:
        message = msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and (
        "message" in message or {"source", "number"} <= message.keys()
    )
