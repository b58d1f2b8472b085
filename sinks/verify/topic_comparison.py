"""Compares one partition of a published topic with the journal, in order: each record once, and no
other.

Where retention deletes records, all younger ones are required, and older ones are compared if they
remain. It must not know what the records mean.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, Generic, Literal, TypeVar

from msgspec import Struct

from schemas.journal import JournalRecord
from schemas.published_records import Result, TransactionRecord
from sinks.verify import topic_reader
from sinks.verify.report import Differences

# How far the clocks of brokers, processors and this program may differ.
CLOCK_TOLERANCE_MS: Final = 3_600_000
# How many records to search for one that is out of place.
REORDER_WINDOW: Final = 1_000

T = TypeVar("T", TransactionRecord, Result)


class _Published(Struct, Generic[T], frozen=True, gc=False):
    key: bytes | None
    message: T


class TopicComparison(Generic[T]):
    """Compares the records of one ledger partition, in step with its journal."""

    def __init__(
        self,
        copy: Literal["transactions", "results"],
        decode: Callable[[bytes], T],
        reader: topic_reader.TopicPartitionReader,
        partition: int,
        topic_partitions: Sequence[int],
        retention_ms: int | None,
        differences: Differences,
    ) -> None:
        """`decode` raises a ValueError for a value that it cannot decode. `topic_partitions`: the
        ledger partitions that share this topic partition. `retention_ms`: None if records are never
        deleted."""
        self.compared = 0
        self._copy = copy
        self._topic_partitions = topic_partitions
        self._decode: Callable[[bytes], T] = decode
        self._reader = reader
        self._partition = partition
        self._differences = differences
        self._growing = topic_reader.GrowingRecords(reader)
        self._start = self._growing.start
        self._buffer: deque[_Published[T]] = deque()
        # True if nothing was deleted, and from the first record that remains.
        self._complete = self._start == 0
        # A record that follows from a journal record appended since then must still be there.
        now_ms = int(time.time() * 1_000)
        self._required_from_ms = (
            0 if retention_ms is None else now_ms - retention_ms + CLOCK_TOLERANCE_MS
        )

    def close(self) -> None:
        self._reader.close()

    def compare(
        self,
        journal_offset: int,
        appended_ms: int,
        record: JournalRecord,
        expected: Sequence[T],
        keys: Sequence[bytes],
        *,
        required: bool = True,
    ) -> None:
        """Compares the published records of one journal record. `required`: they must be there by
        now."""
        found = self._take_sequence(record.sequence, minimum=len(expected) if required else 0)
        if not self._complete:
            # Retention deletes whole batches, so the first entries of a record may be deleted.
            deleted = max(0, len(expected) - len(found))
            if required and appended_ms >= self._required_from_ms:
                for expected_record in expected[:deleted]:
                    self._note(
                        f"{_describe(expected_record)} is missing",
                        expected_record,
                        journal_offset,
                    )
            expected, keys = expected[deleted:], keys[deleted:]
            self._complete = bool(found)
        for number, (expected_record, key) in enumerate(zip(expected, keys, strict=True)):
            if number >= len(found):
                if required:
                    self._note(
                        f"{_describe(expected_record)} is missing",
                        expected_record,
                        journal_offset,
                    )
                continue
            published = found[number]
            self.compared += 1
            if published.message != expected_record:
                what = (
                    f"{_describe(expected_record)}: {differing(published.message, expected_record)}"
                )
                self._note(what, expected_record, journal_offset)
            elif published.key != key:
                what = f"{_describe(expected_record)}: key is {published.key!r}, expected {key!r}"
                self._note(what, expected_record, journal_offset)
        for published in found[len(expected) :]:
            self._extra(published.message, journal_offset)

    def finish(self, sequence: int, current_sequence: Callable[[], int]) -> None:
        """Notes the records that follow from no journal record. `current_sequence` returns the last
        sequence that the journal has now."""
        last_sequence = sequence
        deadline = time.monotonic() + self._growing.catch_up_s
        while (published := self._pop()) is not None:
            message = published.message
            while message.sequence > last_sequence and time.monotonic() <= deadline:
                last_sequence = max(last_sequence, current_sequence())
                if message.sequence > last_sequence:
                    time.sleep(topic_reader.PAUSE_S)
            if not sequence < message.sequence <= last_sequence:
                self._extra(message)

    def _take_sequence(self, sequence: int, minimum: int) -> list[_Published[T]]:
        found = self._take_buffered(sequence)
        if len(found) < minimum and self._complete:
            if self._fill(REORDER_WINDOW) and not found:
                found = self._take_buffered(self._skip_to(sequence))
            while (
                len(found) < minimum and not self._fill(1) and self._growing.grow(self._growing.end)
            ):
                found += self._take_buffered(sequence)
            if len(found) < minimum and self._was_trimmed():
                self._complete = False
        return found

    def _take_buffered(self, sequence: int) -> list[_Published[T]]:
        """The next records, if they have this sequence; records before them are unexpected."""
        found = []
        while self._fill(1) and self._buffer[0].message.sequence <= sequence:
            published = self._buffer.popleft()
            if published.message.sequence == sequence:
                found.append(published)
            else:
                self._extra(published.message)
        return found

    def _skip_to(self, sequence: int) -> int:
        """Drops records of later sequences that precede the records of this one: out of place."""
        near = (
            n for n, published in enumerate(self._buffer) if published.message.sequence == sequence
        )
        for _ in range(next(near, 0)):
            self._extra(self._buffer.popleft().message)
        return sequence

    def _fill(self, count: int) -> bool:
        """Reads ahead until the buffer has `count` records. Whether it has any."""
        missing = count - len(self._buffer)
        if missing > 0:
            self._buffer.extend(islice(self._decode_records(), missing))
        return bool(self._buffer)

    def _pop(self) -> _Published[T] | None:
        return self._buffer.popleft() if self._fill(1) else None

    def _decode_records(self) -> Iterator[_Published[T]]:
        for record in self._growing.records:
            try:
                message = self._decode(record.value or b"")
            except ValueError as error:
                self._note(f"offset {record.offset} cannot be decoded: {error}")
                continue
            if message.partition == self._partition:
                yield _Published(record.key, message)
            elif (
                message.partition not in self._topic_partitions
                and self._partition == self._topic_partitions[0]
            ):
                self._note(f"offset {record.offset} belongs to partition {message.partition}")

    def _was_trimmed(self) -> bool:
        """Whether retention deleted records since the last look."""
        start = self._reader.range()[0]
        deleted, self._start = start > self._start, start
        return deleted

    def _extra(self, message: T, journal_offset: int | None = None) -> None:
        what = f"{_describe(message)} is not in the journal, or is out of place or repeated"
        self._note(what, message, journal_offset)

    def _note(self, what: str, message: T | None = None, journal_offset: int | None = None) -> None:
        account = message.account_id if isinstance(message, TransactionRecord) else None
        self._differences.note(
            self._copy,
            what,
            partition=self._partition,
            offset=journal_offset,
            sequence=None if message is None else message.sequence,
            account=account,
            transaction_id=None if message is None else message.transaction_id,
        )


def _describe(message: TransactionRecord | Result) -> str:
    if isinstance(message, TransactionRecord):
        return f"version {message.version} of {message.account_id}"
    return f"the result of {message.partition}:{message.offset}"


def differing(found: Struct, expected: Struct) -> str:
    differing_fields = [
        f"{name} is {getattr(found, name)}, expected {getattr(expected, name)}"
        for name in expected.__struct_fields__
        if getattr(found, name) != getattr(expected, name)
    ]
    return "; ".join(differing_fields)
