"""How fast people are answered from a long history: real Postgres, one account with 200,000
entries, or 10,000,000 with `--full`.

    python -m benchmarks.reads

Prints a JSON line for each measure. What is measured is what the API calls, the functions of
`sinks.reads`, each in a transaction of its own; one after the other, by one client, on tables that
nobody writes meanwhile.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg

from benchmarks import children, machine, past
from benchmarks.past import (
    BEGAN,
    BUSY,
    LARGE_AMOUNT,
    OWNER,
    OWNER_OF_TWO,
    SHARED_REFERENCE,
    SPAN,
)
from compose import provisioning
from compose.embedded import postgres, programs
from sinks.reads import accounts, history, pages, transactions
from sinks.reads.history import NO_FILTER, EntryFilter
from sinks.reads.queries import Connection
from sinks.reads.transactions import TransactionFilter
from tests.testkit import brokers

SMALL, FULL = 200_000, 10_000_000
ACCOUNTS = 100_000
LIMIT = 20
PAGE = 100_000
DEEPEST_PAGE = pages.MAX_DEPTH // LIMIT
PAGE_MS, BALANCE_MS = 20.0, 2.0
MONTH = timedelta(days=30)
# Each measure takes as many samples as it has time for.
WARMING, LEAST, MOST, SAMPLING_S = 10, 5, 210, 2.0
TOO_LONG_MS = 60_000


Read = Callable[[Connection], Awaitable[object]]


class Measure(NamedTuple):
    name: str
    read: Read
    target_ms: float | None = None


class Reads:
    """What is asked of the busy account and of all; places in the history are drawn by chance."""

    def __init__(self, entries: int, seed: int = 2) -> None:
        self.entries = entries
        self.page = min(PAGE, entries // LIMIT)
        self._dice = random.Random(seed)

    def all(self) -> Iterator[Measure]:
        yield Measure("balance", lambda connection: accounts.balance(connection, BUSY), BALANCE_MS)
        yield Measure(
            "balance at a version",
            lambda connection: accounts.balance_at_version(connection, BUSY, self._version()),
        )
        yield Measure(
            "balance at a time",
            lambda connection: accounts.balance_at(connection, BUSY, self._time(SPAN)),
        )
        yield from self._pages()
        for name, filter in FILTERS.items():
            yield from self._filtered(name, filter)
        yield from self._of_owner()
        yield from self._times()
        yield from self._lists()
        yield Measure("trial balance", accounts.trial_balance)

    def _pages(self) -> Iterator[Measure]:
        for number in (1, self.page):
            yield Measure(f"page {number:,}", _page(number), PAGE_MS)
        yield Measure(
            "a page by number", lambda connection: _page(self._page())(connection), PAGE_MS
        )
        yield Measure(
            "a page by cursor",
            lambda connection: _cursor(self._version(), False)(connection),
            PAGE_MS,
        )
        yield Measure(
            "a page back", lambda connection: _cursor(self._version(), True)(connection), PAGE_MS
        )

    def _filtered(self, name: str, filter: EntryFilter) -> Iterator[Measure]:
        yield Measure(f"{name}, page 1", _page(1, filter))
        yield Measure(f"{name}, page {DEEPEST_PAGE}", _page(DEEPEST_PAGE, filter))
        yield Measure(
            f"{name}, by cursor",
            lambda connection: _cursor(self._version(), False, filter)(connection),
        )

    def _of_owner(self) -> Iterator[Measure]:
        """As users see it who name no wallet."""
        for number in (1, self.page):
            yield Measure(f"of the owner, page {number:,}", _owned(number), PAGE_MS)
        for name, filter in FILTERS.items():
            yield Measure(f"of the owner, {name}, page 1", _owned(1, filter))
        for name, filter in BETWEEN.items():
            target_ms = PAGE_MS if filter == NO_FILTER else None
            yield Measure(f"of two accounts{name}, page 1", _of_two(filter, page=1), target_ms)
        for page in (2, DEEPEST_PAGE):
            yield Measure(f"of two accounts, page {page}", _of_two(page=page))
        for name, backwards in (("by cursor", False), ("back", True)):
            yield Measure(f"of two accounts, {name}", self._beyond(backwards), PAGE_MS)

    def _beyond(self, backwards: bool) -> Read:
        def cursor() -> str:
            place = (self._time(SPAN), "purse", 1)
            return pages.write("entries of an owner", place, backwards=backwards)

        return lambda connection: _of_two(cursor=cursor())(connection)

    def _times(self) -> Iterator[Measure]:
        async def statement(connection: Connection) -> None:
            since = self._time(SPAN - MONTH)
            assert await history.statement(connection, BUSY, since, since + MONTH) is not None

        async def page(connection: Connection) -> None:
            since = self._time(SPAN - MONTH)
            await history.entries(
                connection, BUSY, since=since, until=since + MONTH, limit=LIMIT, page=9
            )

        async def filtered(connection: Connection) -> None:
            since = self._time(SPAN - MONTH)
            filter = EntryFilter(direction="debit")
            await history.entries(
                connection, BUSY, filter, since=since, until=since + MONTH, limit=LIMIT
            )

        yield Measure("statement of a month", statement)
        yield Measure("page 9 of a month", page)
        yield Measure("debits of a month", filtered)

    def _lists(self) -> Iterator[Measure]:
        for name, filter in LISTS.items():
            name = f"all transactions{name}"
            yield Measure(f"{name}, page 1", _listed(filter, 1))
            yield Measure(f"{name}, page {DEEPEST_PAGE}", _listed(filter, DEEPEST_PAGE))
            yield Measure(f"{name}, by cursor", self._older(filter))

    def _older(self, filter: TransactionFilter) -> Read:
        return lambda connection: _listed(filter, None, self._place())(connection)

    def _version(self) -> int:
        return self._dice.randint(1, self.entries)

    def _page(self) -> int:
        return self._dice.randint(1, self.entries // LIMIT)

    def _time(self, within: timedelta) -> datetime:
        return BEGAN + self._dice.random() * within

    def _place(self) -> str:
        return pages.write("transactions", (self._time(SPAN), 1, 1), backwards=False)


FILTERS = {
    "debits": EntryFilter(direction="debit"),
    "transfers": EntryFilter(kinds=("transfer",)),
    "captures (1 of 200)": EntryFilter(kinds=("capture",)),
    "reversals (1 of 20,000)": EntryFilter(kinds=("reverse",)),
    "of no such kind": EntryFilter(kinds=("void",)),
    "posted": EntryFilter(statuses=("posted",)),
    "pending (none)": EntryFilter(statuses=("pending",)),
    "rejected (none)": EntryFilter(statuses=("rejected",)),
    "one reference": EntryFilter(reference="reference-1001"),
    "a reference of 1 of 1,000": EntryFilter(reference=SHARED_REFERENCE),
    "usual amounts": EntryFilter(min_amount=1_000, max_amount=50_000),
    "large amounts (1 of 10,000)": EntryFilter(min_amount=LARGE_AMOUNT),
}
# A transfer between them is listed as its sender's debit: the search skips all credits.
BETWEEN = {
    "": NO_FILTER,
    ", debits": FILTERS["debits"],
    ", credits": EntryFilter(direction="credit"),
    ", transfers": FILTERS["transfers"],
    ", of no such kind": FILTERS["of no such kind"],
}
LISTS = {
    "": TransactionFilter(),
    ", transfers": TransactionFilter(kinds=("transfer",)),
    ", reversals": TransactionFilter(kinds=("reverse",)),
    ", rejected": TransactionFilter(statuses=("rejected",)),
    ", pending (none)": TransactionFilter(statuses=("pending",)),
    ", large amounts": TransactionFilter(min_amount=LARGE_AMOUNT),
}


def _page(number: int, filter: EntryFilter = NO_FILTER) -> Read:
    return lambda connection: history.entries(connection, BUSY, filter, limit=LIMIT, page=number)


def _owned(number: int, filter: EntryFilter = NO_FILTER) -> Read:
    return lambda connection: history.entries_of_owner(
        connection, OWNER, filter, limit=LIMIT, page=number
    )


def _of_two(filter: EntryFilter = NO_FILTER, **place: Any) -> Read:
    return lambda connection: history.entries_of_owner(
        connection, OWNER_OF_TWO, filter, limit=LIMIT, **place
    )


def _cursor(version: int, backwards: bool, filter: EntryFilter = NO_FILTER) -> Read:
    cursor = pages.write("entries", (version,), backwards=backwards)
    return lambda connection: history.entries(connection, BUSY, filter, limit=LIMIT, cursor=cursor)


def _listed(filter: TransactionFilter, page: int | None, cursor: str | None = None) -> Read:
    return lambda connection: transactions.transactions(
        connection, filter, limit=LIMIT, page=page, cursor=cursor
    )


async def measured(connection: Connection, measure: Measure) -> dict[str, Any]:
    took: list[float] = []
    began = time.monotonic()
    try:
        while len(took) < MOST and (len(took) < LEAST or time.monotonic() - began < SAMPLING_S):
            start = time.perf_counter()
            async with connection.transaction():
                await measure.read(connection)
            took.append((time.perf_counter() - start) * 1_000)
    except psycopg.errors.QueryCanceled:
        return {"samples": len(took), "took_longer_than_ms": TOO_LONG_MS}
    if len(took) == MOST:
        took = took[WARMING:]
    cuts = statistics.quantiles(took, n=20, method="inclusive")
    report: dict[str, Any] = {
        "p50_ms": round(cuts[9], 2),
        "p95_ms": round(cuts[18], 2),
        "samples": len(took),
    }
    if measure.target_ms is not None:
        report |= {"target_ms": measure.target_ms, "met": cuts[18] < measure.target_ms}
    return report


async def check(connection: Connection, entries: int) -> None:
    """What is read is what was made."""
    now = await accounts.balance(connection, BUSY)
    assert now is not None and now.version == entries
    last = entries // LIMIT
    deep = await history.entries(connection, BUSY, limit=LIMIT, page=last)
    assert deep is not None and deep.items[0].version == entries - (last - 1) * LIMIT
    for currency in {line.currency for line in await accounts.trial_balance(connection)}:
        lines = await accounts.trial_balance(connection, currency)
        assert sum(line.debit - line.credit for line in lines) == 0, currency


async def measure_all(database: str, entries: int, only: list[str]) -> None:
    options = f"-c statement_timeout={TOO_LONG_MS}"
    connection = await psycopg.AsyncConnection.connect(database, autocommit=True, options=options)
    async with connection:
        await check(connection, entries)
        for each in Reads(entries).all():
            if not only or any(each.name.startswith(name) for name in only):
                tell(each.name, **await measured(connection, each))


@contextmanager
def running() -> Iterator[str]:
    """An empty ledger's database, as `streamledger up` starts it."""
    never = threading.Event()
    with brokers.data_folder() as where:
        server = programs.server(
            where, postgres.PostgresOptions(first_port=brokers.some_port()), never
        )
        try:
            database = server.start(never)
            assert server.process is not None
            children.end_with_us(server.process.child.pid)
            provisioning.migrate(database)
            yield database
        finally:
            server.stop()


def tell(measure: str, **facts: object) -> None:
    print(json.dumps({"measure": measure, **facts}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reads", description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} entries")
    parser.add_argument("--rows", type=int, help="entries of the busy account")
    parser.add_argument("--accounts", type=int, default=ACCOUNTS, help="beside it")
    parser.add_argument("--only", nargs="*", default=[], help="measures, by how they begin")
    given = parser.parse_args()
    entries = given.rows or (FULL if given.full else SMALL)
    tell(
        "machine",
        entries=entries,
        accounts=given.accounts,
        cores=os.cpu_count(),
        load_average=machine.load_average(),
    )
    with running() as database:
        filled = past.fill(database, entries, given.accounts)
        tell(
            "made by COPY",
            rows=filled.rows,
            seconds=round(filled.copy_s, 1),
            rows_per_second=round(filled.rows / filled.copy_s),
            indexes_and_analyze_s=round(filled.indexes_s, 1),
        )
        asyncio.run(measure_all(database, entries, given.only))


if __name__ == "__main__":
    main()
