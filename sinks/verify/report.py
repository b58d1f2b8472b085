"""The report of verify, as text for people and as JSON for programs.

It names the first differences of each copy and counts all. A difference is noted and never raised,
so that one run reports everything. It must not know how differences are found.
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

# For each copy. Later differences often have the same cause.
MAX_REPORTED: Final = 20


class Difference(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One difference in words, and what it is about. `offset` is the journal record's."""

    copy: Copy
    what: str
    partition: int | None = None
    offset: int | None = None
    sequence: int | None = None
    account: str | None = None
    transaction_id: str | None = None

    def __str__(self) -> str:
        location: list[str] = [self.copy]
        if self.partition is not None:
            location.append(f"partition {self.partition}")
        if self.offset is not None:
            location.append(f"offset {self.offset}")
        if self.sequence is not None:
            location.append(f"sequence {self.sequence}")
        if self.account is not None:
            location.append(f"account {self.account}")
        if self.transaction_id is not None:
            location.append(f"transaction {self.transaction_id}")
        return f"{', '.join(location)}: {self.what}"


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
    """How far each copy of a partition was when verify began. None: the copy was not read."""

    partition: int
    sequence: int
    postgres: int | None
    state: int | None
    # The sequence up to which the sink has published results.
    results: int = 0
    # Records of `commands` that are not decided yet.
    waiting: int
    # The hash of the last journal record. Stored elsewhere, it proves later that the journal is the
    # same.
    last_hash: str


class LaggingCopy(Struct, frozen=True, kw_only=True):
    """A copy that lags behind the journal but moved while verify waited: work in flight. A stalled
    copy is a difference instead."""

    copy: Copy
    partition: int
    # How many journal records it is behind.
    records: int

    def __str__(self) -> str:
        return (
            f"{self.copy}, partition {self.partition}: catching up, {self.records:,} journal"
            " records behind"
        )


class CurrencyReport(Struct, frozen=True, kw_only=True):
    """Totals over all partitions, in minor units. Debits equal credits, and transit equals the net
    amount of messages in flight."""

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
    # How many of each were compared.
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
        books: list[tuple[str, ...]] = [("currency", "debits", "credits", "transit", "in flight")]
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
        counts = ", ".join(f"{count:,} {what}" for what, count in self.compared.items() if count)
        lines.append(f"compared {counts or 'nothing'} in {self.seconds:,.1f} s")
        lines += map(str, self.behind)
        if self.agree:
            so_far = " up to the records that they have" if self.behind else ""
            return "\n".join([*lines, f"all copies agree{so_far}"])
        total = sum(self.difference_counts.values())
        lines += ["", f"{total:,} differences; the first of each copy:"]
        lines += [f"  {each}" for each in self.differences]
        unshown = total - len(self.differences)
        return "\n".join([*lines, *([f"  ... and {unshown:,} more"] if unshown else [])])


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
