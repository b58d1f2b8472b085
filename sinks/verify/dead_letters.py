"""Compares the dead letters with the refusals in the journals, one for one.

The topic has one partition for the whole ledger, in no order of its own, so this keeps a digest of
each expected dead letter. It must not know the code that writes them.
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

_decode_dead_letter: Final = msgspec.json.Decoder(DeadLetter).decode
_encode: Final = msgspec.json.Encoder().encode


class DeadLetterComparison:
    """Folds all journals, then reads the topic once."""

    def __init__(self, reader: topic_reader.TopicPartitionReader, differences: Differences) -> None:
        self.compared = 0
        self._reader = reader
        self._differences = differences
        # By the command's partition and offset: the digest, if it can be derived, and the journal
        # record's offset and sequence.
        self._expected: dict[tuple[int, int], tuple[bytes | None, int, int]] = {}
        self._found: set[tuple[int, int]] = set()

    def fold(
        self,
        journal_offset: int,
        key: bytes | None,
        record: JournalRecord,
        input_value: bytes | None,
    ) -> None:
        if expected_messages.has_dead_letter(record):
            dead_letter = expected_messages.dead_letter(record, input_value)
            digest = None if dead_letter is None else _digest(key, dead_letter)
            position = record.partition, record.source.offset
            self._expected[position] = digest, journal_offset, record.sequence

    def finish(self, has_grown: Callable[[int], bool]) -> None:
        """`has_grown` says whether a partition's journal has records that were not folded."""
        start, end = self._reader.range()
        deadline = time.monotonic() + topic_reader.CATCH_UP_S
        while True:
            for record in self._reader.records(start, end):
                self._compare(record, has_grown)
            missing = self._expected.keys() - self._found
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(topic_reader.PAUSE_S)
            start, end = end, self._reader.range()[1]
        self._reader.close()
        for position in sorted(missing):
            self._note(position, "is missing")

    def _compare(self, record: CommittedRecord, has_grown: Callable[[int], bool]) -> None:
        try:
            dead_letter = _decode_dead_letter(record.value or b"")
        except msgspec.MsgspecError as error:
            what = f"offset {record.offset} cannot be decoded: {error}"
            self._differences.note("commands.dead", what)
            return
        position = dead_letter.partition, dead_letter.offset
        if position not in self._expected:
            if not has_grown(dead_letter.partition):
                self._note(position, "is unexpected: the journal refuses no such command")
            return
        digest = self._expected[position][0]
        self.compared += 1
        if position in self._found:
            self._note(position, "is repeated")
        elif digest is not None and _digest(record.key, dead_letter) != digest:
            self._note(position, "differs from the journal")
        self._found.add(position)

    def _note(self, position: tuple[int, int], what: str) -> None:
        _, offset, sequence = self._expected.get(position, (None, None, None))
        self._differences.note(
            "commands.dead",
            f"the dead letter of {position[0]}:{position[1]} {what}",
            partition=position[0],
            offset=offset,
            sequence=sequence,
        )


def _digest(key: bytes | None, dead_letter: DeadLetter) -> bytes:
    return hashlib.blake2b(_encode([repr(key), dead_letter]), digest_size=12).digest()
