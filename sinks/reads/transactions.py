"""Transactions, commands and holds.

A transaction is listed under the account of its command. `history` has every entry of an account.
It decides nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal, TypeVar, get_args
from uuid import UUID

from msgspec import Struct

from schemas.field_types import Direction, Metadata
from schemas.journal import HoldStatus
from sinks.reads import pages, queries
from sinks.reads.pages import Page
from sinks.reads.queries import Connection

T = TypeVar("T")
TransactionStatus = Literal["pending", "posted", "rejected"]
CommandOutcome = Literal["pending", "posted", "rejected", "refused", "replayed"]

_HOLD_STATUSES: Final = get_args(HoldStatus)
# Without an account: the first window of time, and the factor of each next one.
_FIRST_WINDOW: Final = timedelta(seconds=2)
_WINDOW_GROWTH: Final = 8
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


class LedgerTransaction(Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    status: TransactionStatus
    reason: str | None
    account: str
    counterparty: str | None
    amount: int | None
    fee: int
    commission_bps: int
    label: str | None
    reference: str | None
    description: str | None
    actor: str | None
    external_id: str | None
    metadata: Metadata
    hold_id: str | None
    reverses: str | None
    reversed_by: str | None
    time: datetime
    decided_at: datetime | None
    effective_at: datetime | None
    partition: int
    source_offset: int
    sequence: int
    decided_sequence: int | None


class TransactionEntry(Struct, frozen=True, kw_only=True):
    """An entry of any account, a system account's shard too."""

    account: str
    version: int
    direction: Direction
    amount: int
    balance: int
    held: int
    time: datetime
    partition: int
    sequence: int
    transaction_id: str


class TransactionFilter(Struct, frozen=True, kw_only=True):
    """`accounts` are those of the commands."""

    accounts: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    statuses: Sequence[TransactionStatus] | None = None
    reference: str | None = None
    actor: str | None = None
    min_amount: int | None = None
    max_amount: int | None = None
    since: datetime | None = None
    until: datetime | None = None


class CommandView(Struct, frozen=True, kw_only=True):
    """The outcome of one record of `commands`."""

    partition: int
    offset: int
    outcome: CommandOutcome
    reason: str | None
    detail: str | None
    transaction_id: str | None
    first_status: TransactionStatus | None
    kind: str | None
    account: str | None
    label: str | None
    actor: str | None
    trace: str | None
    time: datetime
    sequence: int


class HoldView(Struct, frozen=True, kw_only=True):
    id: str
    account: str
    currency: str
    status: HoldStatus
    amount: int
    captured: int
    placed_at: datetime
    changed_at: datetime
    expires_at: datetime
    partition: int
    sequence: int


async def transaction(
    connection: Connection, id: str, party: str | None = None
) -> LedgerTransaction | None:
    """`party`: an owner who must be one of its parties. The transaction of others then takes the
    same work as one that does not exist."""
    if party is None:
        return await queries.one(connection, "transaction", LedgerTransaction, {"id": id})
    parameters = {"id": id, "party": party}
    return await queries.one(connection, "transaction_of_party", LedgerTransaction, parameters)


async def transaction_entries(connection: Connection, id: str) -> list[TransactionEntry]:
    """The posted entries. Those of a participant may come later."""
    rows = await queries.every(connection, "transaction_entries", _AnyEntry, {"id": id})
    return [TransactionEntry(**row.fields()) for row in rows]


class _AnyEntry(Struct, frozen=True, kw_only=True):
    account: str
    version: int
    direction: Direction
    amount: int
    balance: Decimal
    held: int
    time: datetime
    partition: int
    sequence: int
    transaction_id: str

    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        return {**fields, "balance": int(self.balance)}


async def transactions(
    connection: Connection,
    filter: TransactionFilter,
    *,
    limit: int = 20,
    page: int | None = None,
    cursor: str | None = None,
) -> Page[LedgerTransaction]:
    """Latest first, by the log time of the command. By number up to page x limit = 10,000."""
    pages.check(limit, page)
    at = None if page is not None else pages.read("transactions", cursor, datetime, int, int)
    offset = pages.offset_of(page, limit)
    if filter.accounts is not None and not filter.accounts:
        return Page(items=())
    # A single account has an index in this order.
    single = (
        filter.accounts[0] if filter.accounts is not None and len(filter.accounts) == 1 else None
    )
    several = list(filter.accounts) if filter.accounts is not None and single is None else None
    parameters: dict[str, Any] = {
        "account": single,
        "accounts": several,
        "since": filter.since,
        "until": filter.until,
        "kinds": None if filter.kinds is None else list(filter.kinds),
        "statuses": None if filter.statuses is None else list(filter.statuses),
        "reference": filter.reference,
        "actor": filter.actor,
        "min_amount": filter.min_amount,
        "max_amount": filter.max_amount,
        "offset": offset or None,
        "limit": limit + 1,
    }
    if at is not None:
        side = "newer" if at.backwards else "older"
        parameters |= dict(
            zip((f"{side}_time", f"{side}_sequence", f"{side}_partition"), at.key, strict=True)
        )
    if single is None and filter.reference is None:
        reach = limit + 1 + (offset or 0)
        rows = await _in_windows(
            connection, "transactions", LedgerTransaction, parameters, at, reach
        )
    else:
        rows = await queries.every(connection, "transactions", LedgerTransaction, parameters)
    first = at is None and page in (None, 1)
    return pages.cut("transactions", rows, limit, at, _key, first)


def _key(transaction: LedgerTransaction) -> pages.Key:
    return (transaction.time, transaction.sequence, transaction.partition)


async def _in_windows(
    connection: Connection,
    query: str,
    type: type[T],
    parameters: dict[str, Any],
    at: pages.Cursor | None,
    wanted: int,
) -> list[T]:
    """Reads ever wider ranges of time until one has enough rows. Rows are in the order of time on
    disk, so that a range needs no index of its own."""
    # The search ends at the bounds of log time, whatever the parameters.
    since = max(parameters.get("since") or _EARLIEST, _EARLIEST)
    until = min(max(parameters.get("until") or _LATEST, _EARLIEST), _LATEST)
    newest = await queries.one(connection, "latest", _Latest, {})
    if newest is None or newest.time is None:
        return []
    until = min(until, newest.time + timedelta(microseconds=1))
    forwards = at is not None and at.backwards
    start = until if at is None else min(max(at.key[0], _EARLIEST), _LATEST)
    width = _FIRST_WINDOW
    while True:
        low = start if forwards else max(since, start - width)
        high = min(until, start + width) if forwards else until
        window = {**parameters, "since": max(low, since), "until": high}
        rows = await queries.every(connection, query, type, window)
        whole = high >= until if forwards else low <= since
        if whole or len(rows) + (parameters.get("offset") or 0) >= wanted:
            return rows
        # No window needs to be wider than all of log time.
        width = min(width * _WINDOW_GROWTH, _LATEST - _EARLIEST)


class _Latest(Struct, frozen=True):
    time: datetime | None


async def command_at(connection: Connection, partition: int, offset: int) -> CommandView | None:
    """By the position of its record in `commands`."""
    return await queries.one(
        connection, "command_at", CommandView, {"partition": partition, "offset": offset}
    )


async def owning_command(connection: Connection, transaction_id: str) -> CommandView | None:
    """The command that owns a transaction id."""
    return await queries.one(
        connection, "command_of_transaction", CommandView, {"id": transaction_id}
    )


async def commands_by_label(
    connection: Connection, label: str, *, account: str | None = None, limit: int = 20
) -> list[CommandView]:
    """Latest first."""
    pages.check(limit)
    parameters = {"label": label, "account": account, "limit": limit}
    return await queries.every(connection, "commands_by_label", CommandView, parameters)


async def hold(connection: Connection, id: str, owner: str | None = None) -> HoldView | None:
    """`owner`: whose account it must be."""
    if owner is None:
        return await queries.one(connection, "hold", HoldView, {"id": id})
    return await queries.one(connection, "hold_of_owner", HoldView, {"id": id, "owner": owner})


async def holds(
    connection: Connection,
    accounts: Sequence[str] | None,
    statuses: Sequence[HoldStatus] = _HOLD_STATUSES,
    *,
    limit: int = 20,
    cursor: str | None = None,
) -> Page[HoldView]:
    """Of these accounts, or of all; latest first."""
    pages.check(limit)
    at = pages.read("holds", cursor, datetime, UUID)
    parameters: dict[str, Any] = {"statuses": list(statuses), "limit": limit + 1}
    if at is not None:
        side = "newer" if at.backwards else "older"
        parameters |= dict(zip((f"{side}_time", f"{side}_id"), at.key, strict=True))
    if accounts is None:
        rows = await _in_windows(connection, "holds_of_all", HoldView, parameters, at, limit + 1)
    else:
        rows = await queries.every(
            connection, "holds", HoldView, {**parameters, "accounts": list(accounts)}
        )
    return pages.cut(
        "holds", rows, limit, at, lambda hold: (hold.placed_at, hold.id), first=at is None
    )
