"""Compares a partition's inputs with its journal: each command, and each message that was not
deleted.

It also derives the input position that the state must hold, and notes an input that the journal
skips. It must not know the rules.
"""

import hashlib
from typing import Final, Literal

import msgspec

from plumbing.kafka.committed_reader import CommittedRecord
from schemas import state
from schemas.commands import Command
from schemas.coordination import CoordinationMessage, LogTime
from schemas.journal import JournalRecord
from schemas.state import InputPosition
from sinks.verify import expected_messages, topic_reader
from sinks.verify.report import Differences

_decode_command: Final = msgspec.json.Decoder(Command).decode
_decode_message: Final = msgspec.json.Decoder(CoordinationMessage).decode
JSON_FIRST_BYTE: Final = b"{"
# A producer may write a key of any size to `commands`; the journal keeps its first bytes.
JOURNALED_KEY_BYTES: Final = 256


class LogTimes:
    """The log times that operators decided for records of one partition, from its journal."""

    def __init__(self) -> None:
        self._decisions: list[LogTime] = []

    def fold(self, record: JournalRecord) -> None:
        """Keeps the decisions on records that are still to be read."""
        source, message = record.source, record.message
        self._decisions = [
            decision
            for decision in self._decisions
            if decision.topic != source.topic or decision.last > source.offset
        ]
        if record.step == "timed" and isinstance(message, LogTime):
            others = [decision for decision in self._decisions if decision != message]
            self._decisions = [*others, message]

    def pending(self) -> tuple[state.LogTimeDecision, ...]:
        """As the state must hold them."""
        return tuple(
            state.LogTimeDecision(decision.topic, decision.first, decision.last, decision.time_ms)
            for decision in self._decisions
        )

    def log_time(self, topic: str, offset: int, time_ms: int) -> int:
        """The record's own log time, or an earlier decided one; the latest decision counts."""
        for decision in reversed(self._decisions):
            if decision.topic == topic and decision.first <= offset <= decision.last:
                return min(decision.time_ms, time_ms)
        return time_ms


class InputTopic:
    """One partition of `commands` or `coordination`, read in step with its journal."""

    def __init__(
        self,
        topic: Literal["commands", "coordination"],
        reader: topic_reader.TopicPartitionReader,
        differences: Differences,
        log_times: LogTimes,
    ) -> None:
        self.compared = 0
        self._log_times = log_times
        self._topic = topic
        self._reader = reader
        self._differences = differences
        self._growing = topic_reader.GrowingRecords(reader)
        self._start = self._growing.start
        self._next_record: CommittedRecord | None = None
        self._last_record: CommittedRecord | None = None
        self._last_offset = -1

    def compare(
        self, journal_offset: int, journal_key: bytes | None, record: JournalRecord, time_ms: int
    ) -> bytes | None:
        """Compares a journal record with its input and returns the input's value; None if that is
        deleted or missing. `time_ms` is the partition's time before the record."""
        offset = record.source.offset
        self._last_offset, self._last_record = offset, None

        def note(what: str) -> None:
            self._differences.note(
                self._topic,
                what,
                partition=self._reader.partition,
                offset=journal_offset,
                sequence=record.sequence,
                transaction_id=record.transaction_id,
            )

        if offset < self._start:
            if self._topic == "commands":
                note(f"the topic starts at offset {self._start}: command {offset} is missing")
            return None
        input_record = self._read_offset(offset)
        if input_record is None and self._topic == "coordination":
            # The processor deletes messages that it has read, also while verify runs.
            self._start = self._reader.range()[0]
            if offset < self._start:
                return None
        if input_record is None:
            note(f"{self._topic} {offset} is in the journal, but not in the topic")
            return None
        self._last_record = input_record
        self.compared += 1
        value = input_record.value or b""
        digest = hashlib.sha256(value).hexdigest()
        if digest != record.digest:
            note(f"{self._topic} {offset} has digest {digest}, in the journal {record.digest}")
        elif not self._has_same_contents(value, record):
            note(f"{self._topic} {offset} has different contents in the journal")
        log_time = self._log_times.log_time(self._topic, offset, input_record.time_ms)
        if isinstance(record.message, LogTime):
            # A log-time decision does not move the partition's time.
            log_time = time_ms
        if record.time_ms != max(time_ms, log_time):
            note(f"{self._topic} {offset} has log time {log_time}, in the journal {record.time_ms}")
        key = None if input_record.key is None else input_record.key[:JOURNALED_KEY_BYTES]
        if key != journal_key:
            note(f"{self._topic} {offset} has key {key!r}, in the journal {journal_key!r}")
        return value

    def _has_same_contents(self, value: bytes, record: JournalRecord) -> bool:
        """Compares JSON only; the digest covers the other encodings."""
        if self._topic == "coordination":
            return record.message is None or bool(_decode_message(value) == record.message)
        refused = record.refused
        if refused is not None:
            return refused.size == len(value) and refused.head == expected_messages.head_of(value)
        if record.command is None or value[:1] != JSON_FIRST_BYTE:
            return True
        try:
            return bool(_decode_command(value) == record.command)
        except ValueError:
            return False

    def _read_offset(self, offset: int) -> CommittedRecord | None:
        while True:
            if self._next_record is None:
                self._next_record = next(self._growing.records, None)
            # On a live system the journal may be read further than this topic's first end.
            beyond = self._next_record is None and offset >= self._growing.end
            if beyond and self._growing.grow(offset):
                continue
            next_record = self._next_record
            if next_record is None or next_record.offset > offset:
                return None
            self._next_record = None
            if next_record.offset == offset:
                return next_record
            self._note_without_outcome(next_record)

    def _note_without_outcome(self, record: CommittedRecord) -> None:
        self._differences.note(
            self._topic,
            f"{self._topic} {record.offset} has no outcome, but a later one has",
            partition=self._reader.partition,
        )

    def position(self) -> InputPosition:
        """The input position that the state must hold here; without a digest if the record is
        deleted."""
        last = self._last_record
        if last is None:
            return InputPosition(self._last_offset + 1, self._last_offset)
        key, value = last.key or b"", last.value or b""
        head = f"{last.offset}:{last.time_ms}:{len(key)}:{len(value)}:".encode()
        digest = hashlib.sha256(head + key + value).digest()[:16]
        return InputPosition(last.offset + 1, last.offset, digest)

    def count_waiting(self) -> int:
        """How many records follow the last one that the journal has."""
        buffered = 0 if self._next_record is None else 1
        return buffered + sum(1 for _ in self._growing.records)
