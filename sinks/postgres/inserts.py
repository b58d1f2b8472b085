"""Encodes the new rows of a batch for binary COPY.

Pure. The columns of a table are in the order of its statement copy_*.sql.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct as Packed

import msgspec

from sinks.postgres import copy_format
from sinks.postgres.copy_format import (
    NULL,
    TextColumns,
    UuidColumns,
    bigint,
    jsonb,
    microseconds,
    text,
    timestamp,
    uuid,
)
from sinks.postgres.projection import (
    BrokenRecord,
    CommandRow,
    HoldRow,
    OpenedAccount,
    Rows,
    Totals,
    TransactionRow,
)

_DEBIT_NORMAL = frozenset({"asset", "expense"})

# Columns of fixed size that are never null come first.
_transaction_head = Packed(">hiqiqiqiqiiih").pack
_command_head = Packed(">hiqiqiqih").pack


def rows_by_table(batch: Sequence[Rows]) -> dict[str, list[bytes]]:
    """Tables without new rows are missing."""
    words = TextColumns()
    encoded_rows: dict[str, list[bytes]] = {}
    for rows in batch:
        for table, encoded in _encode_partition(rows, words):
            encoded_rows.setdefault(table, []).extend(encoded)
    return encoded_rows


def _encode_partition(rows: Rows, words: TextColumns) -> Iterator[tuple[str, Iterable[bytes]]]:
    partition = copy_format.smallint(rows.partition)
    if rows.opened:
        opened = rows.opened.values()
        yield "accounts", [_account(account, rows.totals, partition) for account in opened]
    if rows.entries:
        # In key order: neighbours share a page of the index and of the table.
        by_account = rows.entries
        yield "entries", [row for account in sorted(by_account) for row in by_account[account]]
    if rows.system_entries:
        yield "system_entries", rows.system_entries
    if rows.transactions:
        transactions = rows.transactions.values()
        yield (
            "transactions",
            [_transaction(t, rows.ids, words) for t in transactions],
        )
    if rows.commands:
        commands = rows.commands.values()
        yield "commands", [_command(c, rows.ids, words) for c in commands]
    placed = [hold for hold in rows.holds.values() if hold.placed_ms is not None]
    if placed:
        yield "holds", [_hold(hold, partition) for hold in placed]


def _account(opened: OpenedAccount, totals: dict[str, Totals], partition: bytes) -> bytes:
    account = opened.account
    account_totals = totals[account.id]
    balance = account_totals.net
    if account.type in _DEBIT_NORMAL:
        balance = -balance
    if (balance, account_totals.entries) != (account_totals.balance, account_totals.version):
        raise BrokenRecord(f"{account.id} did not start from zero")
    metadata = msgspec.json.encode(account.metadata) if account.metadata else b""
    return b"".join(
        (
            b"\0\x0e",
            bigint(account_totals.balance),
            bigint(account_totals.held),
            bigint(account_totals.incoming),
            bigint(account_totals.version),
            bigint(account_totals.sequence),
            bigint(account.min_balance),
            timestamp(opened.opened_ms),
            text(account.type),
            text(account.status),
            partition,
            text(account.currency),
            text(account.id),
            text(account.owner),
            jsonb(metadata),
        )
    )


def _transaction(row: TransactionRow, ids: UuidColumns, words: TextColumns) -> bytes:
    record, command = row.record, row.command
    metadata = bytes(command.metadata)
    return b"".join(
        (
            _transaction_head(
                25,
                8,
                record.sequence,
                8,
                record.source.offset,
                8,
                row.fee,
                8,
                microseconds(record.time_ms),
                4,
                row.commission_bps,
                2,
                record.partition,
            ),
            bigint(row.decided_sequence),
            bigint(row.amount),
            timestamp(row.decided_ms),
            timestamp(command.effective_at_ms),
            ids[record.transaction_id],
            ids[command.hold_id],
            # Only reversals have this field.
            ids[command.transaction_id],
            ids[row.reversed_by],
            words[row.status],
            words[command.kind],
            words[command.account],
            words[row.counterparty],
            words[row.reason],
            NULL if command.id is None else text(command.id),
            NULL if command.reference is None else text(command.reference),
            NULL if command.description is None else text(command.description),
            NULL if command.actor is None else text(command.actor),
            NULL if command.external_id is None else text(command.external_id),
            jsonb(metadata) if metadata else NULL,
        )
    )


def _command(row: CommandRow, ids: UuidColumns, words: TextColumns) -> bytes:
    record = row.record
    command, detail = record.command, row.detail
    kind = account = label = actor = trace = NULL
    if command is not None:
        kind, account = words[command.kind], words[command.account]
        label = NULL if command.id is None else text(command.id)
        actor = NULL if command.actor is None else text(command.actor)
        trace = NULL if command.trace is None else text(command.trace)
    elif record.refused is not None:
        label = text(record.refused.id)
    return b"".join(
        (
            _command_head(
                14,
                8,
                record.source.offset,
                8,
                record.sequence,
                8,
                microseconds(record.time_ms),
                2,
                record.partition,
            ),
            ids[record.transaction_id],
            words[row.outcome],
            words[record.first_status],
            kind,
            account,
            words[row.reason],
            # A detail may quote a NUL from the command, which Postgres cannot store.
            NULL if detail is None else text(detail.replace("\0", "\ufffd")),
            label,
            actor,
            trace,
        )
    )


def _hold(row: HoldRow, partition: bytes) -> bytes:
    hold = row.hold
    return b"".join(
        (
            b"\0\x0b",
            bigint(hold.amount),
            bigint(hold.captured),
            bigint(row.sequence),
            timestamp(row.placed_ms),
            timestamp(row.changed_ms),
            timestamp(hold.expires_at_ms),
            uuid(hold.id),
            text(hold.status),
            partition,
            text(hold.account),
            text(hold.currency),
        )
    )
