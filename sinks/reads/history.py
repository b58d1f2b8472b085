"""The history of an account, or of all accounts of an owner: entries page by page, and statements.

The versions of an account have no gaps, and time never decreases from one to the next. So any page
of an unfiltered history is a range of versions. A range of time is one too, and so are the entries
after an entry of another account.
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
# With several accounts: the entries of each that are searched first, per wanted entry, and the
# factor of each next window.
FIRST_WINDOW = 4
WINDOW_GROWTH = 8


class EntryView(Struct, frozen=True, kw_only=True):
    """An entry with the account's totals after it. Columns of its transaction are None until the
    coordinator's row is there."""

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
    # The account of the command; the other account if there are exactly two.
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
    min_amount: int | None = None
    max_amount: int | None = None

    @property
    def finds_nothing(self) -> bool:
        """Rejected transactions have no entries: do not search a long history for them."""
        return self.statuses is not None and set(self.statuses) <= {"rejected"}


class _Range(NamedTuple):
    """The entries with versions after `after`, up to and including `last`."""

    account: str
    after: int
    last: int


class Statement(Struct, frozen=True):
    """The balances before a time and before a later time. The entries between them have versions
    after `opening`, up to and including `closing`."""

    opening: PastBalance
    closing: PastBalance


NO_FILTER = EntryFilter()


async def entries(
    connection: Connection,
    account: str,
    filter: EntryFilter = NO_FILTER,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 20,
    page: int | None = None,
    cursor: str | None = None,
) -> Page[EntryView] | None:
    """Latest first, since a time and before another; None if there is no such account.

    By cursor, or by number: unfiltered at any depth, filtered up to page x limit = 10,000, beyond
    that PageTooDeep.
    """
    pages.check(limit, page)
    at = pages.read("entries", cursor, int)
    bounds = await _versions(connection, account, since, until)
    if bounds is None:
        return None
    first, last = bounds
    if filter == NO_FILTER:
        if page is not None:
            at = None
            newest = max(first, last - (page - 1) * limit)
            rows = await _between(
                connection, account, filter, max(first, newest - limit), newest, limit
            )
        else:
            rows = await _beyond(connection, account, filter, bounds, at, limit)
        counted = _cut(rows, limit, at, bounds)
        return Page(
            items=counted.items,
            next=counted.next,
            previous=counted.previous,
            total=last - first,
        )
    if page is not None:
        offset = pages.offset_of(page, limit)
        rows = await _between(connection, account, filter, first, last, limit + 1, offset)
        return pages.cut("entries", rows, limit, None, _key, first=page == 1)
    rows = await _beyond(connection, account, filter, bounds, at, limit)
    return pages.cut("entries", rows, limit, at, _key, first=at is None)


def _cut(
    rows: list[EntryView], limit: int, at: pages.Cursor | None, bounds: tuple[int, int]
) -> Page[EntryView]:
    """The versions say whether there are entries before and after an unfiltered page."""
    items = rows[:limit]
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
    connection: Connection, account: str, since: datetime | None, until: datetime | None
) -> tuple[int, int] | None:
    """The entries of a time: after the first version, up to and including the second."""
    if until is None:
        now = await accounts.balance(connection, account)
        last = None if now is None else now.version
    else:
        last = await accounts.version_before(connection, account, until)
    if last is None:
        return None
    first = 0 if since is None else await accounts.version_before(connection, account, since)
    return min(first or 0, last), last


async def _beyond(
    connection: Connection,
    account: str,
    filter: EntryFilter,
    bounds: tuple[int, int],
    at: pages.Cursor | None,
    limit: int,
) -> list[EntryView]:
    first, last = bounds
    if at is None:
        return await _between(connection, account, filter, first, last, limit + 1)
    version = at.key[0]
    if at.backwards:
        first = max(first, version)
    else:
        last = min(last, version - 1)
    return await _between(
        connection, account, filter, first, last, limit + 1, oldest_first=at.backwards or None
    )


async def _between(
    connection: Connection,
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
        connection,
        "entries",
        EntryView,
        {
            "account": account,
            "after": first,
            "last": last,
            **_filter_parameters(filter, limit, offset, oldest_first),
        },
    )


def _filter_parameters(
    filter: EntryFilter, limit: int, offset: int | None, oldest_first: bool | None
) -> dict[str, Any]:
    return {
        "direction": filter.direction,
        "kinds": None if filter.kinds is None else list(filter.kinds),
        "statuses": None if filter.statuses is None else list(filter.statuses),
        "reference": filter.reference,
        "actor": filter.actor,
        "min_amount": filter.min_amount,
        "max_amount": filter.max_amount,
        "limit": limit,
        "offset": offset or None,
        "oldest_first": oldest_first,
    }


async def entries_of_owner(
    connection: Connection,
    owner: str,
    filter: EntryFilter = NO_FILTER,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 20,
    page: int | None = None,
    cursor: str | None = None,
) -> Page[EntryView]:
    """All accounts of an owner together, latest first. A transaction between several of them is
    listed once, from the side of the command's account.

    By cursor, or by number: an unfiltered single account at any depth, otherwise up to page x limit
    = 10,000, less with more than ten accounts, beyond that PageTooDeep.
    """
    pages.check(limit, page)
    at = pages.read("entries of an owner", cursor, datetime, str, int) if page is None else None
    if filter.finds_nothing:
        return Page(items=())
    ranges = await _ranges(connection, owner, since, until)
    is_single = len(ranges) == 1 and filter == NO_FILTER
    total = sum(each.last - each.after for each in ranges) if is_single or not ranges else None
    offset = None
    if at is not None:
        ranges = await _beyond_cursor(connection, ranges, at)
    elif is_single and page is not None:
        only = ranges[0]
        skipped = min((page - 1) * limit, only.last - only.after)
        ranges = [only._replace(last=only.last - skipped)]
    else:
        offset = pages.offset_of(page, limit, len(ranges))
    backwards = at is not None and at.backwards
    rows = await _between_all(connection, ranges, filter, limit + 1, offset, backwards or None)
    first = at is None and page in (None, 1)
    cut = pages.cut("entries of an owner", rows, limit, at, _place, first)
    return Page(items=cut.items, next=cut.next, previous=cut.previous, total=total)


async def _between_all(
    connection: Connection,
    ranges: Sequence[_Range],
    filter: EntryFilter,
    limit: int,
    offset: int | None,
    oldest_first: bool | None,
) -> list[EntryView]:
    """Reads ever longer windows of each history until they have enough entries. A transfer between
    the accounts counts in one of them only."""
    if not ranges:
        return []
    if len(ranges) == 1:
        # With a single account, Postgres plans for the size of its history.
        account, after, last = ranges[0]
        return await _between(connection, account, filter, after, last, limit, offset, oldest_first)
    reach = limit + (offset or 0)
    parameters = {"reach": reach, **_filter_parameters(filter, limit, offset, oldest_first)}
    window = FIRST_WINDOW * reach
    while True:
        windows, edges = _windows(ranges, window, oldest_first)
        parts = {
            "accounts": [each.account for each in ranges],
            "after": [part.after for part in windows],
            "last": [part.last for part in windows],
            "edge_accounts": [account for account, _ in edges],
            "edge_versions": [version for _, version in edges],
        }
        rows = await queries.every(
            connection, "entries_of_owner", EntryView, {**parameters, **parts}
        )
        if len(rows) == limit or not edges:
            return rows
        window *= WINDOW_GROWTH


def _windows(
    ranges: Sequence[_Range], window: int, oldest_first: bool | None
) -> tuple[list[_Range], list[tuple[str, int]]]:
    """The nearest `window` entries of each range, and the first entry beyond, if there is one."""
    windows, edges = [], []
    for each in ranges:
        if each.last - each.after <= window:
            windows.append(each)
        elif oldest_first:
            windows.append(each._replace(last=each.after + window))
            edges.append((each.account, each.after + window + 1))
        else:
            windows.append(each._replace(after=each.last - window))
            edges.append((each.account, each.last - window))
    return windows, edges


def _place(entry: EntryView) -> pages.Key:
    return (entry.time, entry.account, entry.version)


async def _ranges(
    connection: Connection, owner: str, since: datetime | None, until: datetime | None
) -> list[_Range]:
    last = await accounts.owner_versions(connection, owner)
    if until is not None:
        last = await accounts.versions_before(connection, list(last), until)
    first: dict[str, int] = {}
    if since is not None:
        first = await accounts.versions_before(connection, list(last), since)
    return [_Range(id, min(first.get(id, 0), to), to) for id, to in last.items()]


async def _beyond_cursor(
    connection: Connection, ranges: Sequence[_Range], at: pages.Cursor
) -> list[_Range]:
    """The order is time, then account. In each account the cursor corresponds to a version."""
    time, account, version = at.key
    lesser = [each.account for each in ranges if each.account < account]
    greater = [each.account for each in ranges if each.account > account]
    older = {
        **await accounts.versions_before(connection, lesser, time + accounts.INSTANT),
        **await accounts.versions_before(connection, greater, time),
        account: version if at.backwards else version - 1,
    }
    if at.backwards:
        return [each._replace(after=max(each.after, older[each.account])) for each in ranges]
    return [each._replace(last=min(each.last, older[each.account])) for each in ranges]


async def statement(
    connection: Connection, account: str, since: datetime, until: datetime
) -> Statement | None:
    """From a time, before another. None if there is no such account."""
    bounds = await _versions(connection, account, since, until)
    if bounds is None:
        return None
    opening = await accounts.balance_at_version(connection, account, bounds[0])
    closing = await accounts.balance_at_version(connection, account, bounds[1])
    assert opening is not None and closing is not None, "versions have no gaps"
    return Statement(opening, closing)


async def statement_entries(
    connection: Connection, statement: Statement
) -> AsyncIterator[EntryView]:
    """The entries of a statement, oldest first, in chunks."""
    account, at = statement.opening.account, statement.opening.version
    while at < statement.closing.version:
        last = min(at + STATEMENT_CHUNK, statement.closing.version)
        rows = await _between(
            connection, account, NO_FILTER, at, last, STATEMENT_CHUNK, oldest_first=True
        )
        for entry in rows:
            yield entry
        at = last
