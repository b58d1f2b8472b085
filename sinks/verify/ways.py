"""The legs between partitions: what one says that it has sent, another says that it has read.

Legs between two partitions are numbered without gaps, so what one side has and the other has not
yet is a tail. What transit holds over all partitions is what the commits of these tails carry.
"""

from array import array
from collections import Counter
from typing import Final, get_args

from schemas import ids, legs
from schemas.journal import JournalRecord
from schemas.legs import LegEntry
from schemas.partitioning import partition_of
from sinks.verify.books import Books
from sinks.verify.report import Differences

_KINDS: Final[dict[type, str]] = {
    legs.Prepare: "prepare",
    legs.Prepared: "prepared",
    legs.Refused: "refused",
    legs.Commit: "commit",
    legs.Abort: "abort",
}
# What a step sends; a duplicate or an ignored one sends nothing.
_SENT: Final = {
    "pending": "prepare",
    "prepared": "prepared",
    "declined": "refused",
    "posted": "commit",
    "rejected": "abort",
}
_NUMBERED: Final = get_args(legs.NumberedLeg)
_NAMES: Final = tuple(_KINDS.values())
_CODES: Final = {name: code for code, name in enumerate(_NAMES)}


class _Side:
    """One side's account of the legs from one partition to another, by number from 1."""

    def __init__(self) -> None:
        self.kinds = bytearray()
        # Debits less credits that a commit makes the other partition post.
        self.nets = array("q")
        self.currencies = array("H")

    def __len__(self) -> int:
        return len(self.kinds)

    def add(self, kind: str, net: int, currency: int) -> None:
        self.kinds.append(_CODES[kind])
        # What does not fit is wrong by itself, and told by the books.
        self.nets.append(net if abs(net) < 2**63 else 0)
        self.currencies.append(currency)


class Ways:
    def __init__(self, differences: Differences) -> None:
        self._differences = differences
        self._sent: dict[tuple[int, int], _Side] = {}
        self._read: dict[tuple[int, int], _Side] = {}
        self._currencies: list[str] = []

    def before_fold(self, books: Books, offset: int, record: JournalRecord) -> None:
        """Called before the books have the record: what is pending and prepared is there still."""
        if record.sent:
            self._send(books, offset, record)
        leg = record.leg
        if isinstance(leg, _NUMBERED) and record.step != "duplicate":
            self._receive(books, offset, record, leg)

    def sent_by(self, partition: int, partitions: int) -> tuple[int, ...]:
        return self._lengths(self._sent, [(partition, other) for other in range(partitions)])

    def read_by(self, partition: int, partitions: int) -> tuple[int, ...]:
        return self._lengths(self._read, [(other, partition) for other in range(partitions)])

    def _lengths(
        self, sides: dict[tuple[int, int], _Side], ways: list[tuple[int, int]]
    ) -> tuple[int, ...]:
        return tuple(len(sides[way]) if way in sides else 0 for way in ways)

    def _send(self, books: Books, offset: int, record: JournalRecord) -> None:
        kind = _SENT.get(record.step)
        if kind is None:
            self._note(books, offset, record, f"sends legs, though it is {record.step}")
            return
        currency = ""
        entries: tuple[LegEntry, ...] = ()
        waited = books.open.get(record.transaction_id or "")
        if kind == "commit" and waited is not None:
            currency, entries = waited.pending.currency, waited.pending.entries
        for sent in record.sent:
            side = self._sent.setdefault((books.partition, sent.partition), _Side())
            if sent.number != len(side) + 1:
                self._note(
                    books,
                    offset,
                    record,
                    f"sends leg {sent.number} to partition {sent.partition} after {len(side)}",
                )
            # Without a genesis nobody knows where an account belongs; that is told elsewhere.
            net = _net_of(entries, sent.partition, books.partitions) if books.partitions else 0
            side.add(kind, net, self._code(currency))

    def _receive(
        self, books: Books, offset: int, record: JournalRecord, leg: legs.NumberedLeg
    ) -> None:
        side = self._read.setdefault((leg.source, books.partition), _Side())
        if leg.number != len(side) + 1:
            self._note(
                books,
                offset,
                record,
                f"reads leg {leg.number} of partition {leg.source} after {len(side)}",
            )
        net, currency = 0, ""
        if record.step == "committed":
            net = sum(
                entry.amount if entry.direction == "debit" else -entry.amount
                for entry in record.entries
                if not ids.is_system(entry.account)
            )
            prepared = books.prepared.get(record.transaction_id or "")
            if prepared is not None and isinstance(prepared[0].leg, legs.Prepare):
                currency = prepared[0].leg.currency
        side.add(_KINDS[type(leg)], net, self._code(currency))

    def under_way(self) -> Counter[str]:
        """By currency what transit must hold over all partitions; each leg compared on both
        sides.
        """
        total: Counter[str] = Counter()
        for way in sorted({*self._sent, *self._read}):
            sent, read = self._sent.get(way, _Side()), self._read.get(way, _Side())
            both = min(len(sent), len(read))
            if (
                sent.kinds[:both] != read.kinds[:both]
                or sent.nets[:both] != read.nets[:both]
                or sent.currencies[:both] != read.currencies[:both]
            ):
                self._first_difference(way, sent, read, both)
            for side, sign in ((sent, 1), (read, -1)):
                for number in range(both, len(side)):
                    total[self._currencies[side.currencies[number]]] += sign * side.nets[number]
        return Counter({currency: net for currency, net in total.items() if net})

    def _first_difference(self, way: tuple[int, int], sent: _Side, read: _Side, both: int) -> None:
        for at in range(both):
            one, other = self._told(sent, at), self._told(read, at)
            if one != other:
                self._differences.note(
                    "legs",
                    f"leg {at + 1} from partition {way[0]} to {way[1]} was sent as {one} and read"
                    f" as {other}",
                    partition=way[1],
                )
                return

    def _told(self, side: _Side, at: int) -> tuple[str, int, str]:
        return (
            _NAMES[side.kinds[at]],
            side.nets[at],
            self._currencies[side.currencies[at]],
        )

    def _code(self, currency: str) -> int:
        if currency not in self._currencies:
            self._currencies.append(currency)
        return self._currencies.index(currency)

    def _note(self, books: Books, offset: int, record: JournalRecord, what: str) -> None:
        self._differences.note(
            "legs",
            what,
            partition=books.partition,
            offset=offset,
            sequence=record.sequence,
            transaction_id=record.transaction_id,
        )


def _net_of(entries: tuple[LegEntry, ...], partition: int, partitions: int) -> int:
    return sum(
        entry.amount if entry.direction == "debit" else -entry.amount
        for entry in entries
        if not ids.is_system(entry.account) and partition_of(entry.account, partitions) == partition
    )
