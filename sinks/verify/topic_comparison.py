"""One partition of a topic that tells readers of the journal, read in step with it: each record
once, in its order, and none that the journal has not.

Of what is kept for a time only, all that is younger must be there, and what is there is compared.
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

# Clocks of brokers, processors and this program may differ by so much.
CLOCKS_MS: Final = 3_600_000
# How far a record may stand from its place, and be known for one that does.
NEAR: Final = 1_000

T = TypeVar("T", TransactionRecord, Result)


class _Kept(Struct, Generic[T], frozen=True, gc=False):
    key: bytes | None
    message: T


class TopicComparison(Generic[T]):
    """What is told of one partition of the ledger, as its journal is read."""

    def __init__(
        self,
        copy: Literal["transactions", "results"],
        decode: Callable[[bytes], T],
        of: topic_reader.TopicPartitionReader,
        partition: int,
        sharing: Sequence[int],
        kept_ms: int | None,
        differences: Differences,
    ) -> None:
        """`decode` raises a ValueError of what it cannot read. `sharing`: the ledger's partitions
        that are told of here, this one among them. `kept_ms`: the age that a record reaches; None
        if it is never deleted."""
        self.compared = 0
        self._copy = copy
        self._sharing = sharing
        self._decode: Callable[[bytes], T] = decode
        self._of = of
        self._partition = partition
        self._differences = differences
        self._start, self._end = of.range()
        self._records = of.records(self._start, self._end)
        self._ahead: deque[_Kept[T]] = deque()
        # Where nothing was deleted yet, or the first record that is kept has been met.
        self._whole = self._start == 0
        # Records of the journal that were appended from here on must be told still.
        now_ms = int(time.time() * 1_000)
        self._kept_from_ms = 0 if kept_ms is None else now_ms - kept_ms + CLOCKS_MS
        self._patience_s = topic_reader.CATCH_UP_S

    def close(self) -> None:
        self._of.close()

    def compare(
        self,
        journal_offset: int,
        appended_ms: int,
        record: JournalRecord,
        expected: Sequence[T],
        keys: Sequence[bytes],
        *,
        must_be: bool = True,
    ) -> None:
        """What is told of a record that was appended to the journal at a time. `must_be`: it is no
        longer on its way."""
        found = self._take(record.sequence, wanted=len(expected) if must_be else 0)
        if not self._whole:
            # A batch is deleted whole, and may have ended between two entries.
            gone = max(0, len(expected) - len(found))
            if must_be and appended_ms >= self._kept_from_ms:
                for wanted in expected[:gone]:
                    self._note(f"{_name(wanted)} is not there", wanted, journal_offset)
            expected, keys = expected[gone:], keys[gone:]
            self._whole = bool(found)
        for number, (wanted, key) in enumerate(zip(expected, keys, strict=True)):
            if number >= len(found):
                if must_be:
                    self._note(f"{_name(wanted)} is not there", wanted, journal_offset)
                continue
            one = found[number]
            self.compared += 1
            if one.message != wanted:
                what = f"{_name(wanted)}: {differing(one.message, wanted)}"
                self._note(what, wanted, journal_offset)
            elif one.key != key:
                what = f"{_name(wanted)}: its key is {one.key!r}, by the journal {key!r}"
                self._note(what, wanted, journal_offset)
        for one in found[len(expected) :]:
            self._extra(one.message, journal_offset)

    def finish(self, sequence: int, gone_on: Callable[[], int]) -> None:
        """What was not asked for. `gone_on` gives how far the journal is by now."""
        last = sequence
        deadline = time.monotonic() + self._patience_s
        while (one := self._next()) is not None:
            message = one.message
            while message.sequence > last and time.monotonic() <= deadline:
                last = max(last, gone_on())
                if message.sequence > last:
                    time.sleep(topic_reader.PAUSE_S)
            if not sequence < message.sequence <= last:
                self._extra(message)

    def _take(self, sequence: int, wanted: int) -> list[_Kept[T]]:
        found = self._at(sequence)
        if len(found) < wanted and self._whole:
            if self._has(NEAR) and not found:
                found = self._at(self._skip_to(sequence))
            while len(found) < wanted and not self._has(1) and self._more():
                found += self._at(sequence)
            if len(found) < wanted and self._deleted():
                self._whole = False
        return found

    def _at(self, sequence: int) -> list[_Kept[T]]:
        """The records of a sequence, where they come next; those before it are too many."""
        found = []
        while self._has(1) and self._ahead[0].message.sequence <= sequence:
            one = self._ahead.popleft()
            if one.message.sequence == sequence:
                found.append(one)
            else:
                self._extra(one.message)
        return found

    def _skip_to(self, sequence: int) -> int:
        """What stands before the records of a sequence, and is of a later one, is out of place."""
        near = (n for n, one in enumerate(self._ahead) if one.message.sequence == sequence)
        for _ in range(next(near, 0)):
            self._extra(self._ahead.popleft().message)
        return sequence

    def _has(self, count: int) -> bool:
        """Whether so many are left; a few that have no other reason to be looked at are read."""
        missing = count - len(self._ahead)
        if missing > 0:
            self._ahead.extend(islice(self._kept(), missing))
        return bool(self._ahead)

    def _next(self) -> _Kept[T] | None:
        return self._ahead.popleft() if self._has(1) else None

    def _kept(self) -> Iterator[_Kept[T]]:
        for record in self._records:
            try:
                message = self._decode(record.value or b"")
            except ValueError as error:
                self._note(f"offset {record.offset} cannot be read: {error}")
                continue
            if message.partition == self._partition:
                yield _Kept(record.key, message)
            elif message.partition not in self._sharing and self._partition == self._sharing[0]:
                self._note(f"offset {record.offset} is of partition {message.partition}")

    def _more(self) -> bool:
        """Whether anything came, before patience is at an end; that is had once."""
        deadline = time.monotonic() + self._patience_s
        while True:
            end = self._of.range()[1]
            if end > self._end:
                self._records = self._of.records(self._end, end)
                self._end = end
                return True
            if time.monotonic() >= deadline:
                self._patience_s = 0.0
                return False
            time.sleep(topic_reader.PAUSE_S)

    def _deleted(self) -> bool:
        """Whether the first records went meanwhile."""
        start = self._of.range()[0]
        gone, self._start = start > self._start, start
        return gone

    def _extra(self, message: T, journal_offset: int | None = None) -> None:
        what = f"{_name(message)} is there, of which the journal has nothing, or has it once"
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


def _name(message: TransactionRecord | Result) -> str:
    if isinstance(message, TransactionRecord):
        return f"version {message.version} of {message.account_id}"
    return f"the result of {message.partition}:{message.offset}"


def differing(found: Struct, expected: Struct) -> str:
    told = [
        f"{name} is {getattr(found, name)}, by the journal {getattr(expected, name)}"
        for name in expected.__struct_fields__
        if getattr(found, name) != getattr(expected, name)
    ]
    return "; ".join(told)
