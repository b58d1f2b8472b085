"""The rows of a batch that are new to the tables, each as the bytes that a binary COPY has of it.

Pure; the order of columns is that of the statement copy_*.sql of the same name.
"""

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct as Packed

import msgspec

from sinks.postgres import copy_format
from sinks.postgres.copy_format import (
    NULL,
    Ids,
    Words,
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
    Opened,
    Rows,
    Totals,
    TransactionRow,
)

_SHRINKS_BY_CREDIT = frozenset({"asset", "expense"})

# What has no null and one size stands first.
_transaction_head = Packed(">hiqiqiqiqiiih").pack
_command_head = Packed(">hiqiqiqih").pack


def of(batch: Sequence[Rows]) -> dict[str, list[bytes]]:
    """Those of each table that gets any, by its name."""
    words = Words()
    found: dict[str, list[bytes]] = {}
    for rows in batch:
        for table, lines in _of_partition(rows, words):
            found.setdefault(table, []).extend(lines)
    return found


def _of_partition(rows: Rows, words: Words) -> Iterator[tuple[str, Iterable[bytes]]]:
    partition = copy_format.smallint(rows.partition)
    if rows.opened:
        opened = rows.opened.values()
        yield "accounts", [_account(o, rows.totals, partition) for o in opened]
    if rows.entries:
        # In the order of the key: neighbours are in one page of its index, and of the table.
        lines_of = rows.entries
        yield "entries", [line for account in sorted(lines_of) for line in lines_of[account]]
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


def _account(opened: Opened, totals: dict[str, Totals], partition: bytes) -> bytes:
    account = opened.account
    now = totals[account.id]
    balance = -now.net if account.type in _SHRINKS_BY_CREDIT else now.net
    if (balance, now.entries) != (now.balance, now.version):
        raise BrokenRecord(f"{account.id} did not begin with nothing")
    metadata = msgspec.json.encode(account.metadata) if account.metadata else b""
    return b"".join(
        (
            b"\0\x0e",
            bigint(now.balance),
            bigint(now.held),
            bigint(now.incoming),
            bigint(now.version),
            bigint(now.sequence),
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


def _transaction(row: TransactionRow, ids: Ids, words: Words) -> bytes:
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
            # The field is a reversal's alone.
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


def _command(row: CommandRow, ids: Ids, words: Words) -> bytes:
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
            # What a command's bytes were like may be told in words that Postgres cannot hold.
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
