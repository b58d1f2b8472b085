"""What a partition has read, beside what its journal says of it: each command by its digest, each
message that is still kept too, and where its reading stands.

A command that the journal passes over has no outcome, and is told.
"""

import hashlib
import time
from collections.abc import Iterator
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
_JSON: Final = b"{"
# Anyone may write a key of any size to `commands`; the journal has its first bytes.
_KEY_BYTES: Final = 256


class LogTimes:
    """The times that operators gave to records of one partition, as its journal has them."""

    def __init__(self) -> None:
        self._given: list[LogTime] = []

    def fold(self, record: JournalRecord) -> None:
        """Those of records that are still to come; of two on one record the last one counts."""
        source, decision = record.source, record.message
        self._given = [
            each for each in self._given if each.topic != source.topic or each.last > source.offset
        ]
        if record.step == "timed" and isinstance(decision, LogTime):
            self._given = [*(each for each in self._given if each != decision), decision]

    def to_come(self) -> tuple[state.LogTimeDecision, ...]:
        """As the state must have them."""
        return tuple(
            state.LogTimeDecision(each.topic, each.first, each.last, each.time_ms)
            for each in self._given
        )

    def of(self, topic: str, offset: int, time_ms: int) -> int:
        for given in reversed(self._given):
            if given.topic == topic and given.first <= offset <= given.last:
                return min(given.time_ms, time_ms)
        return time_ms


class InputTopic:
    """One partition of `commands` or `coordination`, read in step with its journal."""

    def __init__(
        self,
        topic: Literal["commands", "coordination"],
        of: topic_reader.TopicPartitionReader,
        differences: Differences,
        log_times: LogTimes,
    ) -> None:
        self.compared = 0
        self._log_times = log_times
        self._topic = topic
        self._of = of
        self._differences = differences
        self._start, self._end = of.range()
        self._records: Iterator[CommittedRecord] = of.records(self._start, self._end)
        self._ahead: CommittedRecord | None = None
        self._last: CommittedRecord | None = None
        self._last_offset = -1
        self._patience_s = topic_reader.CATCH_UP_S

    def answered(
        self, journal_offset: int, journal_key: bytes | None, record: JournalRecord, time_ms: int
    ) -> bytes | None:
        """The value that a journal record answers, compared with it; None where it is no longer
        kept. `time_ms` is the partition's time before it.
        """
        offset = record.source.offset
        self._last_offset, self._last = offset, None

        def note(what: str) -> None:
            self._differences.note(
                self._topic,
                what,
                partition=self._of.partition,
                offset=journal_offset,
                sequence=record.sequence,
                transaction_id=record.transaction_id,
            )

        if offset < self._start:
            if self._topic == "commands":
                note(f"the topic begins at {self._start}: command {offset} is not kept")
            return None
        found = self._at(offset)
        if found is None and self._topic == "coordination":
            # Coordination messages that were read are deleted, beside a live system at any time.
            self._start = self._of.range()[0]
            if offset < self._start:
                return None
        if found is None:
            note(f"the journal answers {self._topic} {offset}, which is not there")
            return None
        self._last = found
        self.compared += 1
        value = found.value or b""
        digest = hashlib.sha256(value).hexdigest()
        if digest != record.digest:
            note(f"{self._topic} {offset} has the digest {digest}, in the journal {record.digest}")
        elif not self._same_message(value, record):
            note(f"{self._topic} {offset} says something else than the journal has of it")
        log_time = self._log_times.of(self._topic, offset, found.time_ms)
        if isinstance(record.message, LogTime):
            # It lets no time pass.
            log_time = time_ms
        if record.time_ms != max(time_ms, log_time):
            note(f"{self._topic} {offset} is of {log_time}, in the journal {record.time_ms}")
        key = None if found.key is None else found.key[:_KEY_BYTES]
        if key != journal_key:
            note(f"{self._topic} {offset} has the key {key!r}, in the journal {journal_key!r}")
        return value

    def _same_message(self, value: bytes, record: JournalRecord) -> bool:
        """As far as JSON tells; other encodings are judged by their digest."""
        if self._topic == "coordination":
            return record.message is None or bool(_decode_message(value) == record.message)
        refused = record.refused
        if refused is not None:
            return refused.size == len(value) and refused.head == expected_messages.head_of(value)
        if record.command is None or value[:1] != _JSON:
            return True
        try:
            return bool(_decode_command(value) == record.command)
        except ValueError:
            return False

    def _at(self, offset: int) -> CommittedRecord | None:
        while True:
            if self._ahead is None:
                self._ahead = next(self._records, None)
            if self._ahead is None and offset >= self._end and self._more(offset):
                continue
            ahead = self._ahead
            if ahead is None or ahead.offset > offset:
                return None
            self._ahead = None
            if ahead.offset == offset:
                return ahead
            self._passed_over(ahead)

    def _more(self, offset: int) -> bool:
        """Whether the topic goes on to an offset by now: beside a live system the journal may be
        read further than to the end that was taken here. A topic that is cut is waited for once."""
        deadline = time.monotonic() + self._patience_s
        while True:
            end = self._of.range()[1]
            if end > offset:
                self._records = self._of.records(self._end, end)
                self._end = end
                return True
            if time.monotonic() >= deadline:
                self._patience_s = 0.0
                return False
            time.sleep(topic_reader.PAUSE_S)

    def _passed_over(self, record: CommittedRecord) -> None:
        # The last message that was read before the others were deleted is kept as a proof.
        self._differences.note(
            self._topic,
            f"{self._topic} {record.offset} has no outcome, though a later one has",
            partition=self._of.partition,
        )

    def position(self) -> InputPosition:
        """As the state must have it, once this far; without digest where the record is not
        kept.
        """
        last = self._last
        if last is None:
            return InputPosition(self._last_offset + 1, self._last_offset)
        key, value = last.key or b"", last.value or b""
        head = f"{last.offset}:{last.time_ms}:{len(key)}:{len(value)}:".encode()
        digest = hashlib.sha256(head + key + value).digest()[:16]
        return InputPosition(last.offset + 1, last.offset, digest)

    def waiting(self) -> int:
        """How many records come after the last one that was answered."""
        ahead = 0 if self._ahead is None else 1
        return ahead + sum(1 for _ in self._records)
