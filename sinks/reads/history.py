"""The history of an account, or of all accounts of an owner: its entries, page by page, and an
account's statement of a time.

The versions of an account have no gaps and time never falls from one to the next. So a page of an
unfiltered history is a range of versions, whatever its number; a range of time is one too, and what
comes after an entry of another account is one in each.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Struct

from schemas.field_types import Direction, Metadata
from sinks.reads import accounts, pages, queries
from sinks.reads.accounts import PastBalance
from sinks.reads.pages import Page
from sinks.reads.queries import Connection
from sinks.reads.transactions import TransactionStatus

STATEMENT_CHUNK = 1_000
# Of several accounts: how many entries of each are looked through first, for each that is wanted,
# and how much farther each time.
FIRST_LOOK = 4
WIDER = 8


class EntryView(Struct, frozen=True, kw_only=True):
    """An entry with the account's totals after it, and its transaction's facts: None where the
    coordinator's row has not come yet."""

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
    kind: str | None
    status: TransactionStatus | None
    # The account of the command, and the other one where there are just two.
    from_account: str | None
    counterparty: str | None
    fee: int | None
    label: str | None
    external_id: str | None
    actor: str | None
    reference: str | None
    description: str | None
    metadata: Metadata | None
    reverses: str | None
    reversed_by: str | None


class EntryFilter(Struct, frozen=True, kw_only=True):
    direction: Direction | None = None
    kinds: Sequence[str] | None = None
    statuses: Sequence[TransactionStatus] | None = None
    reference: str | None = None
    actor: str | None = None
    least: int | None = None
    most: int | None = None

    @property
    def finds_nothing(self) -> bool:
        """What was rejected has no entries: a long history need not be searched for them."""
        return self.statuses is not None and set(self.statuses) <= {"rejected"}


class _Range(NamedTuple):
    """The entries of the versions after one, up to another."""

    account: str
    after: int
    last: int


class Statement(Struct, frozen=True):
    """From the balance before a time to the one before a later time: what lies between are the
    entries of the versions after `opening` up to `closing`."""

    opening: PastBalance
    closing: PastBalance


NO_FILTER = EntryFilter()


async def entries(
    of: Connection,
    account: str,
    filter: EntryFilter = NO_FILTER,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 20,
    page: int | None = None,
    cursor: str | None = None,
) -> Page[EntryView] | None:
    """The latest first, since a time and before another; None where there is no such account.

    By cursor, or by number: unfiltered at any depth, filtered up to page x limit = 10,000, else
    PageTooDeep.
    """
    pages.check(limit, page)
    at = pages.read("entries", cursor, int)
    bounds = await _versions(of, account, since, until)
    if bounds is None:
        return None
    first, last = bounds
    if filter == NO_FILTER:
        if page is not None:
            at = None
            newest = max(first, last - (page - 1) * limit)
            found = await _between(of, account, filter, max(first, newest - limit), newest, limit)
        else:
            found = await _beyond(of, account, filter, bounds, at, limit)
        counted = _cut(found, limit, at, bounds)
        return Page(
            items=counted.items,
            next=counted.next,
            previous=counted.previous,
            total=last - first,
        )
    if page is not None:
        offset = pages.offset_of(page, limit)
        found = await _between(of, account, filter, first, last, limit + 1, offset)
        return pages.cut("entries", found, limit, None, _key, first=page == 1)
    found = await _beyond(of, account, filter, bounds, at, limit)
    return pages.cut("entries", found, limit, at, _key, first=at is None)


def _cut(
    found: list[EntryView], limit: int, at: pages.Cursor | None, bounds: tuple[int, int]
) -> Page[EntryView]:
    """What lies before and after an unfiltered page is told by the versions."""
    items = found[:limit]
    if at is not None and at.backwards:
        items.reverse()
    if not items:
        return Page(items=())
    first, last = bounds
    newest, oldest = items[0].version, items[-1].version
    return Page(
        items=tuple(items),
        next=pages.write("entries", (oldest,), backwards=False) if oldest > first + 1 else None,
        previous=pages.write("entries", (newest,), backwards=True) if newest < last else None,
    )


def _key(entry: EntryView) -> pages.Key:
    return (entry.version,)


async def _versions(
    of: Connection, account: str, since: datetime | None, until: datetime | None
) -> tuple[int, int] | None:
    """The entries of a time are those after the first version, up to the second."""
    if until is None:
        now = await accounts.balance(of, account)
        last = None if now is None else now.version
    else:
        last = await accounts.version_before(of, account, until)
    if last is None:
        return None
    first = 0 if since is None else await accounts.version_before(of, account, since)
    return min(first or 0, last), last


async def _beyond(
    of: Connection,
    account: str,
    filter: EntryFilter,
    bounds: tuple[int, int],
    at: pages.Cursor | None,
    limit: int,
) -> list[EntryView]:
    first, last = bounds
    if at is None:
        return await _between(of, account, filter, first, last, limit + 1)
    version = at.key[0]
    if at.backwards:
        first = max(first, version)
    else:
        last = min(last, version - 1)
    return await _between(
        of, account, filter, first, last, limit + 1, oldest_first=at.backwards or None
    )


async def _between(
    of: Connection,
    account: str,
    filter: EntryFilter,
    first: int,
    last: int,
    limit: int,
    offset: int | None = None,
    oldest_first: bool | None = None,
) -> list[EntryView]:
    if filter.finds_nothing:
        return []
    return await queries.every(
        of,
        "entries",
        EntryView,
        {
            "account": account,
            "after": first,
            "last": last,
            **_asked(filter, limit, offset, oldest_first),
        },
    )


def _asked(
    filter: EntryFilter, limit: int, offset: int | None, oldest_first: bool | None
) -> dict[str, Any]:
    return {
        "direction": filter.direction,
        "kinds": None if filter.kinds is None else list(filter.kinds),
        "statuses": None if filter.statuses is None else list(filter.statuses),
        "reference": filter.reference,
        "actor": filter.actor,
        "least": filter.least,
        "most": filter.most,
        "limit": limit,
        "offset": offset or None,
        "oldest_first": oldest_first,
    }


async def entries_of_owner(
    of: Connection,
    owner: str,
    filter: EntryFilter = NO_FILTER,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 20,
    page: int | None = None,
    cursor: str | None = None,
) -> Page[EntryView]:
    """Of all accounts of an owner together, the latest first; a transaction between several of them
    is told once, from the side of the one whose command it was.

    By cursor, or by number: where the owner has one account and nothing is filtered at any depth,
    else up to page x limit = 10,000, less with more than ten accounts, else PageTooDeep.
    """
    pages.check(limit, page)
    at = pages.read("entries of an owner", cursor, datetime, str, int) if page is None else None
    if filter.finds_nothing:
        return Page(items=())
    ranges = await _ranges(of, owner, since, until)
    one = len(ranges) == 1 and filter == NO_FILTER
    total = sum(each.last - each.after for each in ranges) if one or not ranges else None
    offset = None
    if at is not None:
        ranges = await _beyond_cursor(of, ranges, at)
    elif one and page is not None:
        only = ranges[0]
        passed = min((page - 1) * limit, only.last - only.after)
        ranges = [only._replace(last=only.last - passed)]
    else:
        offset = pages.offset_of(page, limit, len(ranges))
    backwards = at is not None and at.backwards
    found = await _between_all(of, ranges, filter, limit + 1, offset, backwards or None)
    first = at is None and page in (None, 1)
    made = pages.cut("entries of an owner", found, limit, at, _place, first)
    return Page(items=made.items, next=made.next, previous=made.previous, total=total)


async def _between_all(
    of: Connection,
    ranges: Sequence[_Range],
    filter: EntryFilter,
    limit: int,
    offset: int | None,
    oldest_first: bool | None,
) -> list[EntryView]:
    """Ever longer parts of each history, until they have enough: each of many transfers between
    the accounts is told in one of them and passed over in the other, down to its last."""
    if not ranges:
        return []
    if len(ranges) == 1:
        # Postgres plans by how much there is of an account that is named.
        account, after, last = ranges[0]
        return await _between(of, account, filter, after, last, limit, offset, oldest_first)
    reach = limit + (offset or 0)
    asked = {"reach": reach, **_asked(filter, limit, offset, oldest_first)}
    look = FIRST_LOOK * reach
    while True:
        looked, edges = _looked(ranges, look, oldest_first)
        parts = {
            "accounts": [each.account for each in ranges],
            "after": [each.after for each in looked],
            "last": [each.last for each in looked],
            "edge_accounts": [account for account, _ in edges],
            "edge_versions": [version for _, version in edges],
        }
        found = await queries.every(of, "entries_of_owner", EntryView, {**asked, **parts})
        if len(found) == limit or not edges:
            return found
        look *= WIDER


def _looked(
    ranges: Sequence[_Range], look: int, oldest_first: bool | None
) -> tuple[list[_Range], list[tuple[str, int]]]:
    """The nearest entries of each range, as many; and the first beyond them where it has more."""
    looked, edges = [], []
    for each in ranges:
        if each.last - each.after <= look:
            looked.append(each)
        elif oldest_first:
            looked.append(each._replace(last=each.after + look))
            edges.append((each.account, each.after + look + 1))
        else:
            looked.append(each._replace(after=each.last - look))
            edges.append((each.account, each.last - look))
    return looked, edges


def _place(entry: EntryView) -> pages.Key:
    return (entry.time, entry.account, entry.version)


async def _ranges(
    of: Connection, owner: str, since: datetime | None, until: datetime | None
) -> list[_Range]:
    last = await accounts.versions_of(of, owner)
    if until is not None:
        last = await accounts.versions_before(of, list(last), until)
    first: dict[str, int] = {}
    if since is not None:
        first = await accounts.versions_before(of, list(last), since)
    return [_Range(id, min(first.get(id, 0), to), to) for id, to in last.items()]


async def _beyond_cursor(
    of: Connection, ranges: Sequence[_Range], at: pages.Cursor
) -> list[_Range]:
    """By time, at one time by account: in each account it is a version beyond which they lie."""
    time, account, version = at.key
    lesser = [each.account for each in ranges if each.account < account]
    greater = [each.account for each in ranges if each.account > account]
    older = {
        **await accounts.versions_before(of, lesser, time + accounts.INSTANT),
        **await accounts.versions_before(of, greater, time),
        account: version if at.backwards else version - 1,
    }
    if at.backwards:
        return [each._replace(after=max(each.after, older[each.account])) for each in ranges]
    return [each._replace(last=min(each.last, older[each.account])) for each in ranges]


async def statement(
    of: Connection, account: str, since: datetime, until: datetime
) -> Statement | None:
    """From a time, before another. None: there is no such account."""
    bounds = await _versions(of, account, since, until)
    if bounds is None:
        return None
    opening = await accounts.balance_at_version(of, account, bounds[0])
    closing = await accounts.balance_at_version(of, account, bounds[1])
    assert opening is not None and closing is not None, "versions have no gaps"
    return Statement(opening, closing)


async def statement_entries(of: Connection, statement: Statement) -> AsyncIterator[EntryView]:
    """All of a statement's entries, the oldest first, some at a time."""
    account, at = statement.opening.account, statement.opening.version
    while at < statement.closing.version:
        last = min(at + STATEMENT_CHUNK, statement.closing.version)
        found = await _between(of, account, NO_FILTER, at, last, STATEMENT_CHUNK, oldest_first=True)
        for entry in found:
            yield entry
        at = last
