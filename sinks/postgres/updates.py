"""The updates of a batch: statements of sql/ledger, their parameters, and the rows that each must
change.

Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from sinks.postgres.projection import Rows


class RowUpdate(NamedTuple):
    """A statement's name, the ids of the rows that it must change, and its other parameters."""

    statement: str
    ids: list[str]
    parameters: Mapping[str, object]


def row_updates(rows: Rows) -> Iterator[RowUpdate]:
    for update in (
        *_accounts(rows),
        *_system_accounts(rows),
        *_holds(rows),
        *_decisions(rows),
    ):
        if update.ids:
            yield update


def _accounts(rows: Rows) -> Iterator[RowUpdate]:
    changed = rows.changed
    moved = [id for id in rows.totals if id not in changed and id not in rows.opened]
    yield RowUpdate("update_accounts", moved, _totals(rows, moved))
    accounts = changed.values()
    yield RowUpdate(
        "update_changed_accounts",
        list(changed),
        {
            **_totals(rows, changed),
            "status": array(account.status for account in accounts),
            "min_balance": array(account.min_balance for account in accounts),
            "metadata": [
                msgspec.json.encode(account.metadata).decode() if account.metadata else None
                for account in accounts
            ],
        },
    )


def _system_accounts(rows: Rows) -> Iterator[RowUpdate]:
    for name, is_new in (("insert_system_accounts", True), ("update_system_accounts", False)):
        shards = [
            id for id, totals in rows.system.items() if (totals.entries == totals.version) is is_new
        ]
        yield RowUpdate(name, shards, _system_totals(rows, shards))


def _holds(rows: Rows) -> Iterator[RowUpdate]:
    changed = {id: row for id, row in rows.holds.items() if row.placed_ms is None}
    hold_rows = changed.values()
    yield RowUpdate(
        "update_holds",
        list(changed),
        {
            "captured": array(row.hold.captured for row in hold_rows),
            "sequence": array(row.sequence for row in hold_rows),
            "changed_ms": array(row.changed_ms for row in hold_rows),
            "status": array(row.hold.status for row in hold_rows),
        },
    )


def _decisions(rows: Rows) -> Iterator[RowUpdate]:
    decided = rows.decided
    ids = [decision.id for decision in decided]
    yield RowUpdate(
        "decide_transactions",
        ids,
        {
            "status": array(decision.status for decision in decided),
            "reason": array(decision.reason for decision in decided),
            "sequence": array(decision.sequence for decision in decided),
            "time_ms": array(decision.time_ms for decision in decided),
            "fee": array(decision.fee for decision in decided),
            "commission_bps": array(decision.commission_bps for decision in decided),
        },
    )
    yield RowUpdate(
        "decide_commands",
        ids,
        {
            "source_offset": array(decision.source_offset for decision in decided),
            "status": array(decision.status for decision in decided),
            "reason": array(decision.reason for decision in decided),
            "detail": [decision.detail for decision in decided],
        },
    )
    yield RowUpdate(
        "mark_reversed",
        [original for original, _ in rows.reversed],
        {"reversal": array(reversal for _, reversal in rows.reversed)},
    )


def _totals(rows: Rows, ids: Iterable[str]) -> dict[str, object]:
    account_totals = [rows.totals[id] for id in ids]
    return {
        "balance": array(totals.balance for totals in account_totals),
        "held": array(totals.held for totals in account_totals),
        "incoming": array(totals.incoming for totals in account_totals),
        "version": array(totals.version for totals in account_totals),
        "entries": array(totals.entries for totals in account_totals),
        "net": array(totals.net for totals in account_totals),
        "sequence": array(totals.sequence for totals in account_totals),
    }


def _system_totals(rows: Rows, ids: Iterable[str]) -> dict[str, object]:
    shard_totals = [rows.system[id] for id in ids]
    return {
        "balance": array(totals.balance for totals in shard_totals),
        "version": array(totals.version for totals in shard_totals),
        "entries": array(totals.entries for totals in shard_totals),
        "net": array(totals.net for totals in shard_totals),
        "sequence": array(totals.sequence for totals in shard_totals),
    }


def array(values: Iterable[str | int | None]) -> str:
    """A Postgres array literal of numbers, or of texts without quotes and backslashes. It costs a
    tenth of what psycopg's adaptation of a list costs."""
    return "{" + ",".join(["NULL" if value is None else f'"{value}"' for value in values]) + "}"
