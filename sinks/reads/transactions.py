"""Transactions, commands and holds: what was asked for, what came of it, what is kept aside.

What an account took part in without asking stands in its history; here are the commands' own
transactions. It decides nothing.
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
# Where no account is named: how far back is looked first, and how much farther each time.
_FIRST_WINDOW: Final = timedelta(seconds=2)
_WIDER: Final = 8
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
    least: int | None = None
    most: int | None = None
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
    of: Connection, id: str, party: str | None = None
) -> LedgerTransaction | None:
    """Of one of its parties, an owner, where that is given: what is another's is then looked for
    and not found by the same work as what is not there."""
    if party is None:
        return await queries.one(of, "transaction", LedgerTransaction, {"id": id})
    asked = {"id": id, "party": party}
    return await queries.one(of, "transaction_of_party", LedgerTransaction, asked)


async def entries_of(of: Connection, id: str) -> list[TransactionEntry]:
    """A transaction's entries, as far as they are posted: a participant's may come later."""
    found = await queries.every(of, "transaction_entries", _AnyEntry, {"id": id})
    return [TransactionEntry(**each.told()) for each in found]


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

    def told(self) -> dict[str, Any]:
        facts: dict[str, Any] = {name: getattr(self, name) for name in self.__struct_fields__}
        return {**facts, "balance": int(self.balance)}


async def transactions(
    of: Connection,
    filter: TransactionFilter,
    *,
    limit: int = 20,
    page: int | None = None,
    cursor: str | None = None,
) -> Page[LedgerTransaction]:
    """The latest first, by the log time of the command. By number up to page x limit = 10,000."""
    pages.check(limit, page)
    at = None if page is not None else pages.read("transactions", cursor, datetime, int, int)
    offset = pages.offset_of(page, limit)
    if filter.accounts is not None and not filter.accounts:
        return Page(items=())
    # One has an index in this order.
    one = filter.accounts[0] if filter.accounts is not None and len(filter.accounts) == 1 else None
    several = list(filter.accounts) if filter.accounts is not None and one is None else None
    asked: dict[str, Any] = {
        "account": one,
        "accounts": several,
        "since": filter.since,
        "until": filter.until,
        "kinds": None if filter.kinds is None else list(filter.kinds),
        "statuses": None if filter.statuses is None else list(filter.statuses),
        "reference": filter.reference,
        "actor": filter.actor,
        "least": filter.least,
        "most": filter.most,
        "offset": offset or None,
        "limit": limit + 1,
    }
    if at is not None:
        side = "newer" if at.backwards else "older"
        asked |= dict(
            zip((f"{side}_time", f"{side}_sequence", f"{side}_partition"), at.key, strict=True)
        )
    if one is None and filter.reference is None:
        reach = limit + 1 + (offset or 0)
        found = await _in_windows(of, "transactions", LedgerTransaction, asked, at, reach)
    else:
        found = await queries.every(of, "transactions", LedgerTransaction, asked)
    first = at is None and page in (None, 1)
    return pages.cut("transactions", found, limit, at, _key, first)


def _key(one: LedgerTransaction) -> pages.Key:
    return (one.time, one.sequence, one.partition)


async def _in_windows(
    of: Connection,
    query: str,
    type: type[T],
    asked: dict[str, Any],
    at: pages.Cursor | None,
    wanted: int,
) -> list[T]:
    """Ever wider ranges of time, until one has enough: rows lie in the order of time on the disk,
    so that a range is found without an index of its own."""
    # Within what log time can be, whatever is asked: the search ends at its edges.
    since = max(asked.get("since") or _EARLIEST, _EARLIEST)
    until = min(max(asked.get("until") or _LATEST, _EARLIEST), _LATEST)
    newest = await queries.one(of, "latest", _Latest, {})
    if newest is None or newest.time is None:
        return []
    until = min(until, newest.time + timedelta(microseconds=1))
    forwards = at is not None and at.backwards
    start = until if at is None else min(max(at.key[0], _EARLIEST), _LATEST)
    width = _FIRST_WINDOW
    while True:
        low = start if forwards else max(since, start - width)
        high = min(until, start + width) if forwards else until
        window = {**asked, "since": max(low, since), "until": high}
        found = await queries.every(of, query, type, window)
        whole = high >= until if forwards else low <= since
        if whole or len(found) + (asked.get("offset") or 0) >= wanted:
            return found
        # Nothing may be older than the earliest: no window needs to be wider than all of time.
        width = min(width * _WIDER, _LATEST - _EARLIEST)


class _Latest(Struct, frozen=True):
    time: datetime | None


async def command_at(of: Connection, partition: int, offset: int) -> CommandView | None:
    """By the position of its record in `commands`."""
    return await queries.one(
        of, "command_at", CommandView, {"partition": partition, "offset": offset}
    )


async def command_of(of: Connection, transaction_id: str) -> CommandView | None:
    """The command that owns a transaction id."""
    return await queries.one(of, "command_of_transaction", CommandView, {"id": transaction_id})


async def commands_by_label(
    of: Connection, label: str, *, account: str | None = None, limit: int = 20
) -> list[CommandView]:
    """The latest first."""
    pages.check(limit)
    asked = {"label": label, "account": account, "limit": limit}
    return await queries.every(of, "commands_by_label", CommandView, asked)


async def hold(of: Connection, id: str, owner: str | None = None) -> HoldView | None:
    """Of an owner's account, where that is given."""
    if owner is None:
        return await queries.one(of, "hold", HoldView, {"id": id})
    return await queries.one(of, "hold_of_owner", HoldView, {"id": id, "owner": owner})


async def holds(
    of: Connection,
    accounts: Sequence[str] | None,
    statuses: Sequence[HoldStatus] = _HOLD_STATUSES,
    *,
    limit: int = 20,
    cursor: str | None = None,
) -> Page[HoldView]:
    """Of these accounts, or of all, the latest first."""
    pages.check(limit)
    at = pages.read("holds", cursor, datetime, UUID)
    asked: dict[str, Any] = {"statuses": list(statuses), "limit": limit + 1}
    if at is not None:
        side = "newer" if at.backwards else "older"
        asked |= dict(zip((f"{side}_time", f"{side}_id"), at.key, strict=True))
    if accounts is None:
        found = await _in_windows(of, "holds_of_all", HoldView, asked, at, limit + 1)
    else:
        found = await queries.every(of, "holds", HoldView, {**asked, "accounts": list(accounts)})
    return pages.cut(
        "holds", found, limit, at, lambda one: (one.placed_at, one.id), first=at is None
    )
