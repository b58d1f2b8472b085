"""What verify found: the first differences of each copy by name, all of them counted.

For people as text, for programs as JSON. A difference is noted, never raised: one run tells all
that is wrong.
"""

from collections import Counter
from typing import Final, Literal

import msgspec
from msgspec import Struct

Copy = Literal[
    "journal",
    "commands",
    "coordination",
    "books",
    "postgres",
    "state",
    "transactions",
    "results",
    "commands.dead",
    "rules",
]

# Of each copy; what is behind them is often the same cause again.
MAX_REPORTED: Final = 20


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """In words, with the names of what it is about. `offset` is the journal record's."""

    copy: Copy
    what: str
    partition: int | None = None
    offset: int | None = None
    sequence: int | None = None
    account: str | None = None
    transaction_id: str | None = None

    def __str__(self) -> str:
        at: list[str] = [self.copy]
        if self.partition is not None:
            at.append(f"partition {self.partition}")
        if self.offset is not None:
            at.append(f"offset {self.offset}")
        if self.sequence is not None:
            at.append(f"sequence {self.sequence}")
        if self.account is not None:
            at.append(f"account {self.account}")
        if self.transaction_id is not None:
            at.append(f"transaction {self.transaction_id}")
        return f"{', '.join(at)}: {self.what}"


class Differences:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: list[Difference] = []

    def note(
        self,
        copy: Copy,
        what: str,
        *,
        partition: int | None = None,
        offset: int | None = None,
        sequence: int | None = None,
        account: str | None = None,
        transaction_id: str | None = None,
    ) -> None:
        self.counts[copy] += 1
        if self.counts[copy] <= MAX_REPORTED:
            self.first.append(
                Difference(
                    copy=copy,
                    what=what,
                    partition=partition,
                    offset=offset,
                    sequence=sequence,
                    account=account,
                    transaction_id=transaction_id,
                )
            )


class PartitionReport(Struct, frozen=True, kw_only=True):
    """How far each copy of a partition was, at the fixed point; None: it was not asked."""

    partition: int
    sequence: int
    postgres: int | None
    state: int | None
    # The last record whose outcome was told, as far as the sink says so.
    results: int = 0
    # Records of `commands` that are there and were not decided yet.
    waiting: int
    # Of the journal's last record: kept elsewhere, it proves later that nothing was changed.
    last_hash: str


class LaggingCopy(Struct, frozen=True, kw_only=True):
    """A copy that had still to arrive where the journal was when verify began, and that moved while
    it was waited for: that is work in flight. One that stands still is a difference."""

    copy: Copy
    partition: int
    # Of the journal.
    records: int

    def __str__(self) -> str:
        return (
            f"{self.copy}, partition {self.partition}: catching up, {self.records:,} journal"
            " records behind"
        )


class CurrencyReport(Struct, frozen=True, kw_only=True):
    """Over all partitions, in minor units: debits are credits, transit is what is under way."""

    currency: str
    debits: int
    credits: int
    transit: int
    under_way: int


class VerifyReport(Struct, frozen=True, kw_only=True):
    agree: bool
    ledger_id: str
    partitions: tuple[PartitionReport, ...]
    currencies: tuple[CurrencyReport, ...]
    behind: tuple[LaggingCopy, ...] = ()
    # How many of each thing were compared.
    compared: dict[str, int]
    seconds: float
    differences: tuple[Difference, ...]
    difference_counts: dict[str, int]

    def json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    def text(self) -> str:
        lines = [f"ledger {self.ledger_id!r}, {len(self.partitions)} partitions", ""]
        rows: list[tuple[str, ...]] = [
            ("partition", "journal", "Postgres", "state", "results", "waiting")
        ]
        rows += [
            (
                str(each.partition),
                f"{each.sequence:,}",
                "-" if each.postgres is None else f"{each.postgres:,}",
                "-" if each.state is None else f"{each.state:,}",
                f"{each.results:,}",
                f"{each.waiting:,}",
            )
            for each in self.partitions
        ]
        lines += _table(rows)
        books: list[tuple[str, ...]] = [("currency", "debits", "credits", "transit", "under way")]
        books += [
            (
                each.currency,
                f"{each.debits:,}",
                f"{each.credits:,}",
                f"{each.transit:,}",
                f"{each.under_way:,}",
            )
            for each in self.currencies
        ]
        lines += ["", *_table(books), ""]
        told = ", ".join(f"{count:,} {what}" for what, count in self.compared.items() if count)
        lines.append(f"compared {told or 'nothing'}, in {self.seconds:,.1f} s")
        lines += map(str, self.behind)
        if self.agree:
            so_far = ", as far as they are" if self.behind else ""
            return "\n".join([*lines, f"all copies agree{so_far}"])
        total = sum(self.difference_counts.values())
        lines += ["", f"{total:,} differences; the first of each copy:"]
        lines += [f"  {each}" for each in self.differences]
        more = total - len(self.differences)
        return "\n".join([*lines, *([f"  ... and {more:,} more"] if more else [])])


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
