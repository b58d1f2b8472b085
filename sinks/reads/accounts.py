"""Accounts and what they have: now, at a version, at a time; and what all of them come to.

What is told is what Postgres has; how far that is, `positions` says. It decides nothing.
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
    """After the entry that gave it; `time` is that entry's, None before the first."""

    account: str
    currency: str
    version: int
    balance: int
    time: datetime | None


class TrialLine(Struct, frozen=True):
    """A type of account, or a system account, in one currency; over all lines of a currency debits
    are credits."""

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


async def balance(of: Connection, account: str) -> Balance | None:
    return await queries.one(of, "balance", Balance, {"account": account})


async def balance_at_version(of: Connection, account: str, version: int) -> PastBalance | None:
    """None: there is no such account, or it has no such version yet."""
    asked = {"account": account, "version": version}
    return await queries.one(of, "balance_at_version", PastBalance, asked)


async def balance_at(of: Connection, account: str, time: datetime) -> PastBalance | None:
    """After all entries up to and with this log time."""
    return await balance_before(of, account, time + INSTANT)


async def balance_before(of: Connection, account: str, time: datetime) -> PastBalance | None:
    version = await version_before(of, account, time)
    return None if version is None else await balance_at_version(of, account, version)


class _Version(Struct, frozen=True):
    account: str
    version: int


async def version_before(of: Connection, account: str, time: datetime) -> int | None:
    """How many entries the account had before a time; None where there is no such account."""
    return (await versions_before(of, [account], time)).get(account)


async def versions_before(of: Connection, ids: Sequence[str], time: datetime) -> dict[str, int]:
    """The same of several at once; those that are not there are left out."""
    asked = {"accounts": list(ids), "time": time}
    found = await queries.every(of, "versions_before", _Version, asked)
    return {each.account: each.version for each in found}


async def versions_of(of: Connection, owner: str) -> dict[str, int]:
    """All accounts of an owner, and how many entries each has now."""
    found = await queries.every(of, "accounts_of_owner", _Version, {"owner": owner})
    return {each.account: each.version for each in found}


async def account(of: Connection, id: str) -> AccountView | None:
    return await queries.one(of, "account", AccountView, {"account": id})


async def facts(of: Connection, ids: Sequence[str]) -> list[AccountIdentity]:
    """Of those that there are, in no order."""
    return await queries.every(of, "account_facts", AccountIdentity, {"ids": list(ids)})


async def accounts(
    of: Connection,
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
    found = await queries.every(
        of,
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
    return pages.cut("accounts", found, limit, at, lambda one: (one.id,), first=at is None)


async def trial_balance(of: Connection, currency: str | None = None) -> list[TrialLine]:
    """By currency and name; shards of a system account are told as one."""
    lines = await queries.every(of, "trial_balance", _Sums, {"currency": currency})
    return [
        TrialLine(each.currency, each.name, int(each.debit), int(each.credit)) for each in lines
    ]


class _Sums(Struct, frozen=True):
    currency: str
    name: str
    debit: Decimal
    credit: Decimal


async def positions(of: Connection) -> list[ProjectionPosition]:
    """How far the journal of each partition stands in these tables."""
    return await queries.every(of, "positions", ProjectionPosition, {})
