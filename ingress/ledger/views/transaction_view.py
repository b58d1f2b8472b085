"""What became of a command, from its result or from the books: both give the same view.

So a replay, a poll and the first answer are the same. It reads no database and formats no response.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from msgspec import Struct

from schemas import commands, ids
from schemas.commands import Command
from schemas.field_types import Direction, Metadata
from schemas.published_records import Result
from sinks.reads.transactions import LedgerTransaction, TransactionEntry, TransactionStatus

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Kinds whose result contains the whole outcome.
COMPLETE_IN_RESULT: Final = (commands.Credit, commands.Debit, commands.Transfer, commands.Post)

# Kinds whose entries follow from their parties and amounts.
DERIVED_ENTRY_KINDS: Final = ("credit", "debit", "transfer", "capture")
TRANSIT_PREFIX: Final = ids.SYSTEM_PREFIX + ids.TRANSIT + ":"


class EntryLine(Struct, frozen=True):
    """An entry. A system account has no partition here: the API shows the sum of its shards."""

    account: str
    direction: Direction
    amount: int


class TransactionView(Struct, frozen=True, kw_only=True):
    """`at` is the time of the decision, or of the command while it is pending. `balances` are those
    after its entries, as far as this partition has them."""

    id: str
    kind: str
    status: TransactionStatus
    account: str
    currency: str
    at: datetime
    amount: int | None = None
    fee: int = 0
    counterparty: str | None = None
    trans_id: str | None = None
    actor: str | None = None
    reference: str | None = None
    description: str | None = None
    metadata: Metadata = {}
    reason: str | None = None
    hold_id: str | None = None
    reverses: str | None = None
    reversed_by: str | None = None
    entries: tuple[EntryLine, ...] = ()
    balances: Mapping[str, int] = {}
    version: int = 0


def from_result(
    command: Command, transaction_id: str, currency: str, result: Result
) -> TransactionView:
    """From the result of a posted command that is no replay, of a COMPLETE_IN_RESULT kind."""
    fee, counterparty, amount = 0, None, 0
    if isinstance(command, commands.Post):
        entries = post_entries(command)
        amount = sum(line.amount for line in entries if line.direction == "debit")
        ordinary = [line.account for line in entries if not ids.is_system(line.account)]
        if len(ordinary) == 2:
            counterparty = next(account for account in ordinary if account != command.account)
    else:
        assert isinstance(command, commands.Credit | commands.Debit | commands.Transfer)
        amount = command.amount
        if isinstance(command, commands.Transfer):
            counterparty = command.to
            paid = next(e.amount for e in result.entries if e.account == command.account)
            fee = paid - amount
        entries = derived_entries(
            commands.kind(command), command.account, counterparty, amount, fee, currency
        )
    return TransactionView(
        id=transaction_id,
        kind=commands.kind(command),
        status="posted",
        account=command.account,
        currency=currency,
        at=EPOCH + timedelta(milliseconds=result.time_ms),
        amount=amount,
        fee=fee,
        counterparty=counterparty,
        trans_id=command.external_id,
        actor=command.actor,
        reference=command.reference,
        description=command.description,
        metadata=command.metadata,
        entries=entries,
        balances={e.account: e.balance for e in result.entries if isinstance(e.balance, int)},
        version=result.sequence,
    )


def from_rows(
    row: LedgerTransaction, rows: Sequence[TransactionEntry], currency: str
) -> TransactionView:
    posted = row.status == "posted"
    entries: tuple[EntryLine, ...] = ()
    if posted and row.kind in DERIVED_ENTRY_KINDS and row.amount is not None:
        entries = derived_entries(
            row.kind, row.account, row.counterparty, row.amount, row.fee, currency
        )
    elif posted:
        public = (e for e in rows if not e.account.startswith(TRANSIT_PREFIX))
        entries = tuple(
            EntryLine(_public_account_id(e.account), e.direction, e.amount) for e in public
        )
    return TransactionView(
        id=row.id,
        kind=row.kind,
        status=row.status,
        account=row.account,
        currency=currency,
        at=row.decided_at or row.time,
        amount=row.amount,
        fee=row.fee,
        counterparty=row.counterparty,
        trans_id=row.external_id,
        actor=row.actor,
        reference=row.reference,
        description=row.description,
        metadata=row.metadata,
        reason=row.reason,
        hold_id=row.hold_id,
        reverses=row.reverses,
        reversed_by=row.reversed_by,
        entries=entries,
        balances={e.account: e.balance for e in rows if not ids.is_system(e.account)},
        version=row.decided_sequence or row.sequence,
    )


def as_first_answered(view: TransactionView, command: Command) -> TransactionView:
    """As in the first answer: without later changes, and with a post's entries in the order of the
    request."""
    if isinstance(command, commands.Post):
        view = msgspec.structs.replace(view, entries=post_entries(command))
    return msgspec.structs.replace(view, reversed_by=None)


def post_entries(command: commands.Post) -> tuple[EntryLine, ...]:
    return tuple(
        EntryLine(entry.account, entry.direction, entry.amount) for entry in command.entries
    )


def _public_account_id(account: str) -> str:
    return account.rpartition(":")[0] if ids.is_system(account) else account


def derived_entries(
    kind: str, account: str, other: str | None, amount: int, fee: int, currency: str
) -> tuple[EntryLine, ...]:
    funding = ids.system_name(ids.FUNDING, currency)
    if kind == "credit":
        return EntryLine(funding, "debit", amount), EntryLine(account, "credit", amount)
    moved = (
        EntryLine(account, "debit", amount + fee),
        EntryLine(other or funding, "credit", amount),
    )
    return (*moved, EntryLine(ids.system_name(ids.FEES, currency), "credit", fee)) if fee else moved
