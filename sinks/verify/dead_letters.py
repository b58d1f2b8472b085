"""The dead letters, beside the refusals in the journals: each has its own, and there is no other.

One topic for all partitions, in no order of theirs: of each that is expected a digest is kept.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Final

import msgspec

from plumbing.kafka.committed_reader import CommittedRecord
from schemas.journal import JournalRecord
from schemas.published_records import DeadLetter
from sinks.verify import expected_messages, topic_reader
from sinks.verify.report import Differences

_decode_letter: Final = msgspec.json.Decoder(DeadLetter).decode
_encode: Final = msgspec.json.Encoder().encode


class DeadLetterComparison:
    """All of them, by what they answer; a digest of each is kept."""

    def __init__(self, of: topic_reader.TopicPartitionReader, differences: Differences) -> None:
        self.compared = 0
        self._of = of
        self._differences = differences
        # By partition and offset: the digest, if it can be known; the journal's offset, sequence.
        self._expected: dict[tuple[int, int], tuple[bytes | None, int, int]] = {}
        self._found: set[tuple[int, int]] = set()

    def fold(
        self,
        journal_offset: int,
        key: bytes | None,
        record: JournalRecord,
        answered: bytes | None,
    ) -> None:
        if expected_messages.has_dead_letter(record):
            letter = expected_messages.dead_letter(record, answered)
            digest = None if letter is None else _digest(key, letter)
            at = record.partition, record.source.offset
            self._expected[at] = digest, journal_offset, record.sequence

    def finish(self, gone_on: Callable[[int], bool]) -> None:
        """`gone_on` says whether the journal of a partition has more by now than was folded."""
        start, end = self._of.range()
        deadline = time.monotonic() + topic_reader.CATCH_UP_S
        while True:
            for record in self._of.records(start, end):
                self._compare(record, gone_on)
            missing = self._expected.keys() - self._found
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(topic_reader.PAUSE_S)
            start, end = end, self._of.range()[1]
        self._of.close()
        for at in sorted(missing):
            self._note(at, "is not there")

    def _compare(self, record: CommittedRecord, gone_on: Callable[[int], bool]) -> None:
        try:
            letter = _decode_letter(record.value or b"")
        except msgspec.MsgspecError as error:
            what = f"offset {record.offset} cannot be read: {error}"
            self._differences.note("commands.dead", what)
            return
        at = letter.partition, letter.offset
        if at not in self._expected:
            if not gone_on(letter.partition):
                self._note(at, "is there, though the journal refuses no such command")
            return
        digest = self._expected[at][0]
        self.compared += 1
        if at in self._found:
            self._note(at, "is there twice")
        elif digest is not None and _digest(record.key, letter) != digest:
            self._note(at, "says something else than the journal")
        self._found.add(at)

    def _note(self, at: tuple[int, int], what: str) -> None:
        _, offset, sequence = self._expected.get(at, (None, None, None))
        self._differences.note(
            "commands.dead",
            f"the letter of {at[0]}:{at[1]} {what}",
            partition=at[0],
            offset=offset,
            sequence=sequence,
        )


def _digest(key: bytes | None, letter: DeadLetter) -> bytes:
    return hashlib.blake2b(_encode([repr(key), letter]), digest_size=12).digest()
