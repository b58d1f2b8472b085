"""The rows that Postgres must hold for a journal, column by column.

It follows the columns as the migrations describe them. It is pure, and must not know the sink.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from schemas import commands, ids
from schemas.commands import Command
from schemas.journal import JournalRecord
from sinks.verify.replayed_books import ReplayedBooks

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Values = list[Any]

# The columns of sql/verify after `partition` and, in a history, `sequence`.
ENTRY: Final = (
    "account", "version", "direction", "amount", "balance", "held", "time", "transaction_id",
)  # fmt: skip
TRANSACTION: Final = (
    "id", "status", "reason", "decided_sequence", "decided_at", "fee", "commission_bps",
    "reversed_by", "source_offset", "amount", "time", "effective_at", "hold_id", "reverses", "kind",
    "account", "counterparty", "label", "reference", "description", "actor", "external_id",
    "metadata",
)  # fmt: skip
REVERSED_BY: Final = TRANSACTION.index("reversed_by")
COMMAND: Final = (
    "source_offset", "outcome", "reason", "detail", "transaction_id", "first_status", "time",
    "kind", "account", "label", "actor", "trace",
)  # fmt: skip
ACCOUNT: Final = (
    "id", "type", "currency", "status", "owner", "min_balance", "balance", "held", "incoming",
    "available", "version", "sequence", "opened_at", "metadata",
)  # fmt: skip
SHARD: Final = ("id", "role", "currency", "balance", "version", "sequence")
HOLD: Final = (
    "id", "account", "currency", "amount", "captured", "status", "sequence", "placed_at",
    "changed_at", "expires_at",
)  # fmt: skip
POSITION: Final = ("ledger_id", "next_offset", "sequence", "last_hash", "time", "format_level")


def timestamp(time_ms: int | None) -> datetime | None:
    return None if time_ms is None else _EPOCH + timedelta(milliseconds=time_ms)


def account_version(row: Values) -> tuple[str, int]:
    return row[0], row[1]


def is_number(balance: int | str) -> bool:
    return isinstance(balance, int) or balance.removeprefix("-").isdigit()


def command_row(record: JournalRecord) -> Values:
    command, refused = record.command, record.refused
    return [
        record.source.offset,
        record.step,
        record.reason,
        record.detail,
        None if record.step == "refused" else record.transaction_id,
        record.first_status,
        timestamp(record.time_ms),
        None if command is None else commands.kind(command),
        None if command is None else command.account,
        command.id if command is not None else refused.id if refused is not None else None,
        None if command is None else command.actor,
        None if command is None else command.trace,
    ]


def transaction_row(record: JournalRecord, command: Command) -> Values:
    pending = record.pending
    decided = record.step != "pending"
    requested = _requested_entries(record, command)
    return [
        record.transaction_id,
        record.step,
        record.reason,
        record.sequence if decided else None,
        timestamp(record.time_ms) if decided else None,
        record.fee if pending is None else pending.fee,
        record.commission_bps if pending is None else pending.commission_bps,
        None,
        record.source.offset,
        _amount(command, requested),
        timestamp(record.time_ms),
        timestamp(command.effective_at_ms),
        getattr(command, "hold_id", None),
        command.transaction_id if isinstance(command, commands.Reverse) else None,
        commands.kind(command),
        command.account,
        _counterparty(command, requested),
        command.id,
        command.reference,
        command.description,
        command.actor,
        command.external_id,
        command.metadata,
    ]


def _requested_entries(record: JournalRecord, command: Command) -> list[tuple[str, str, int]]:
    """The entries that the command requests, if the record has them: account, direction, amount."""
    if isinstance(command, commands.Post):
        return [(each.account, each.direction, each.amount) for each in command.entries]
    if record.pending is not None:
        return [(each.account, each.direction, each.amount) for each in record.pending.entries]
    return [(each.account, each.direction, each.amount) for each in record.entries]


def _amount(command: Command, requested: list[tuple[str, str, int]]) -> int | None:
    if isinstance(command, (commands.Post, commands.Reverse)):
        return sum(amount for _, side, amount in requested if side == "debit") or None
    amount: int | None = getattr(command, "amount", None)
    if amount is None and isinstance(command, commands.Capture) and requested:
        return requested[0][2]
    return amount


def _counterparty(command: Command, requested: list[tuple[str, str, int]]) -> str | None:
    to: str | None = getattr(command, "to", None)
    if to is not None:
        return to
    accounts_named = [account for account, _, _ in requested if account != command.account]
    others = [account for account in accounts_named if not ids.is_system(account)]
    return others[0] if len(others) == 1 else None


def accounts(books: ReplayedBooks) -> dict[str, Values]:
    return {
        id: [
            id,
            account.change.type,
            account.change.currency,
            account.change.status,
            account.change.owner,
            account.change.min_balance,
            account.balance,
            account.held,
            account.incoming,
            account.balance - account.held,
            account.version,
            account.sequence,
            timestamp(account.opened_ms),
            account.change.metadata,
        ]
        for id, account in books.accounts.items()
    }


def shards(books: ReplayedBooks) -> dict[str, Values]:
    return {
        name: [name, *name.split(":")[1:3], shard.balance, shard.version, shard.sequence]
        for name, shard in books.shards.items()
    }


def holds(books: ReplayedBooks) -> dict[str, Values]:
    return {
        id: [
            id,
            hold.change.account,
            hold.change.currency,
            hold.change.amount,
            hold.change.captured,
            hold.change.status,
            hold.sequence,
            timestamp(hold.placed_ms),
            timestamp(hold.changed_ms),
            timestamp(hold.change.expires_at_ms),
        ]
        for id, hold in books.holds.items()
    }
