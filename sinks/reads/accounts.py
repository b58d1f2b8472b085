"""Accounts and their balances: now, at a version, at a time; and the trial balance.

Reads return what Postgres has; `positions` says how far that is. It decides nothing.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from msgspec import Struct

from schemas.field_types import AccountStatus, AccountType
from sinks.reads import pages, queries
from sinks.reads.pages import Page
from sinks.reads.queries import Connection

# Times are kept to the microsecond.
INSTANT = timedelta(microseconds=1)


class Balance(Struct, frozen=True):
    account: str
    currency: str
    balance: int
    held: int
    incoming: int
    available: int
    version: int


class AccountView(Struct, frozen=True, kw_only=True):
    id: str
    type: AccountType
    currency: str
    status: AccountStatus
    owner: str | None
    min_balance: int | None
    balance: int
    held: int
    incoming: int
    available: int
    version: int
    partition: int
    sequence: int
    opened_at: datetime
    metadata: dict[str, str]


class AccountIdentity(Struct, frozen=True):
    """What never changes about an account."""

    id: str
    type: AccountType
    currency: str
    owner: str | None


class PastBalance(Struct, frozen=True):
    """The balance after an entry; `time` is that entry's, None before the first."""

    account: str
    currency: str
    version: int
    balance: int
    time: datetime | None


class TrialLine(Struct, frozen=True):
    """A type of account, or a system account, in one currency. Over all lines of a currency, debits
    equal credits."""

    currency: str
    name: str
    debit: int
    credit: int


class ProjectionPosition(Struct, frozen=True):
    partition: int
    next_offset: int
    sequence: int
    last_hash: str
    time: datetime


async def balance(connection: Connection, account: str) -> Balance | None:
    return await queries.one(connection, "balance", Balance, {"account": account})


async def balance_at_version(
    connection: Connection, account: str, version: int
) -> PastBalance | None:
    """None if there is no such account or version."""
    parameters = {"account": account, "version": version}
    return await queries.one(connection, "balance_at_version", PastBalance, parameters)


async def balance_at(connection: Connection, account: str, time: datetime) -> PastBalance | None:
    """The balance after all entries up to and including this log time."""
    return await balance_before(connection, account, time + INSTANT)


async def balance_before(
    connection: Connection, account: str, time: datetime
) -> PastBalance | None:
    version = await version_before(connection, account, time)
    return None if version is None else await balance_at_version(connection, account, version)


class _Version(Struct, frozen=True):
    account: str
    version: int


async def version_before(connection: Connection, account: str, time: datetime) -> int | None:
    """The number of the account's entries before a time; None if there is no such account."""
    return (await versions_before(connection, [account], time)).get(account)


async def versions_before(
    connection: Connection, ids: Sequence[str], time: datetime
) -> dict[str, int]:
    """The same for several accounts; unknown ones are left out."""
    parameters = {"accounts": list(ids), "time": time}
    rows = await queries.every(connection, "versions_before", _Version, parameters)
    return {row.account: row.version for row in rows}


async def owner_versions(connection: Connection, owner: str) -> dict[str, int]:
    """All accounts of an owner, with the number of their entries."""
    rows = await queries.every(connection, "accounts_of_owner", _Version, {"owner": owner})
    return {row.account: row.version for row in rows}


async def account(connection: Connection, id: str) -> AccountView | None:
    return await queries.one(connection, "account", AccountView, {"account": id})


async def identities(connection: Connection, ids: Sequence[str]) -> list[AccountIdentity]:
    """Those that exist, in no order."""
    return await queries.every(connection, "account_facts", AccountIdentity, {"ids": list(ids)})


async def accounts(
    connection: Connection,
    *,
    owner: str | None = None,
    currency: str | None = None,
    types: Sequence[AccountType] | None = None,
    statuses: Sequence[AccountStatus] | None = None,
    limit: int = 20,
    cursor: str | None = None,
) -> Page[AccountView]:
    """By id."""
    pages.check(limit)
    at = pages.read("accounts", cursor, str)
    rows = await queries.every(
        connection,
        "accounts",
        AccountView,
        {
            "owner": owner,
            "currency": currency,
            "types": None if types is None else list(types),
            "statuses": None if statuses is None else list(statuses),
            "before": at.key[0] if at is not None and at.backwards else None,
            "after": at.key[0] if at is not None and not at.backwards else None,
            "limit": limit + 1,
        },
    )
    return pages.cut("accounts", rows, limit, at, lambda account: (account.id,), first=at is None)


async def trial_balance(connection: Connection, currency: str | None = None) -> list[TrialLine]:
    """By currency and name; the shards of a system account are summed up."""
    lines = await queries.every(connection, "trial_balance", _Sums, {"currency": currency})
    return [
        TrialLine(line.currency, line.name, int(line.debit), int(line.credit)) for line in lines
    ]


class _Sums(Struct, frozen=True):
    currency: str
    name: str
    debit: Decimal
    credit: Decimal


async def positions(connection: Connection) -> list[ProjectionPosition]:
    """Up to where the tables have each partition's journal."""
    return await queries.every(connection, "positions", ProjectionPosition, {})
