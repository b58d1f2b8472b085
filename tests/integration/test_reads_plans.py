"""Each read has an index: on some 200,000 rows Postgres, left to its own estimate, reads no table
from end to end and sorts no account's history."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, AsyncCursor

from sinks.reads import accounts, history, transactions
from sinks.reads.history import NO_FILTER, EntryFilter, EntryView
from sinks.reads.pages import Page
from sinks.reads.queries import Connection
from sinks.reads.transactions import TransactionFilter
from tests.integration.test_reads import filled
from tests.testkit.naive_rows import Rows

MANY = 100_000
BEGAN = datetime(2025, 1, 1, tzinfo=UTC)
STEP = timedelta(milliseconds=10)
BUSY = "busy"

BETWEEN = 10_000

# One busy account with half of all entries, ten thousand others with the rest; and two of one owner
# with transfers between them alone.
FILL = f"""
INSERT INTO ledger.positions
SELECT 0, 'plans', {MANY}, {MANY}, repeat('0', 64), '{BEGAN}'::timestamptz + n * interval '10 ms',
       1
FROM (VALUES ({MANY})) AS last (n);
INSERT INTO ledger.accounts (balance, held, incoming, version, sequence, min_balance, opened_at,
                             type, status, partition, currency, id, owner)
SELECT CASE WHEN n = 0 THEN {MANY} ELSE 10 END, 0, 0, CASE WHEN n = 0 THEN {MANY} ELSE 10 END, n,
       0, '{BEGAN}', 'wallet', 'open', 0, 'NGN', CASE WHEN n = 0 THEN '{BUSY}' ELSE 'a' || n END,
       'owner' || n / 2
FROM generate_series(0, {MANY} / 10) AS n;
INSERT INTO ledger.accounts (balance, held, incoming, version, sequence, min_balance, opened_at,
                             type, status, partition, currency, id, owner)
SELECT 0, 0, 0, {BETWEEN}, {MANY}, NULL, '{BEGAN}', 'asset', 'open', 2, 'NGN', id, 'owner of two'
FROM unnest(ARRAY['purse', 'savings']) AS id;
INSERT INTO ledger.entries (version, amount, balance, held, sequence, time, transaction_id,
                            direction, partition, account)
SELECT n, 1, 0, 0, n, '{BEGAN}'::timestamptz + n * interval '10 ms', md5('own' || n)::uuid,
       side.direction::ledger.direction, 2, side.account
FROM generate_series(1, {BETWEEN}) AS n
CROSS JOIN (VALUES ('purse', 'debit'), ('savings', 'credit')) AS side (account, direction);
INSERT INTO ledger.entries (version, amount, balance, held, sequence, time, transaction_id,
                            direction, partition, account)
SELECT n, 1, n, 0, n, '{BEGAN}'::timestamptz + n * interval '10 ms',
       md5('busy' || n)::uuid, 'credit'::ledger.direction, 0, '{BUSY}'
FROM generate_series(1, {MANY}) AS n
UNION ALL
SELECT n / ({MANY} / 10) + 1, 1, n / ({MANY} / 10) + 1, 0, n,
       '{BEGAN}'::timestamptz + n * interval '10 ms', md5('other' || n)::uuid, 'credit', 1,
       'a' || n % ({MANY} / 10) + 1
FROM generate_series(0, {MANY} - 1) AS n;
INSERT INTO ledger.system_entries (version, amount, sequence, time, transaction_id, direction,
                                   partition, account, balance)
SELECT version, amount, sequence, time, transaction_id,
       'debit', 0, 'system:funding:NGN:0', version
FROM ledger.entries WHERE account = '{BUSY}';
INSERT INTO ledger.transactions (sequence, decided_sequence, source_offset, amount, fee, time,
                                 decided_at, id, status, commission_bps, partition, kind, account,
                                 label, reference)
SELECT sequence, sequence, row_number() OVER (PARTITION BY partition ORDER BY sequence),
       amount, 0, time, time, transaction_id, 'posted',
       0, partition, CASE WHEN sequence % 50 = 0 THEN 'hold' ELSE 'credit' END, account,
       'label-' || sequence / 2,
       CASE WHEN sequence % 3 = 0 THEN 'reference-' || sequence END
FROM (SELECT * FROM ledger.entries WHERE account <> 'savings' ORDER BY sequence) AS entry;
INSERT INTO ledger.commands (source_offset, sequence, time, transaction_id, outcome, partition,
                             kind, account, label)
SELECT source_offset, sequence, time, id, 'posted', partition, kind, account, label
FROM ledger.transactions;
INSERT INTO ledger.holds (amount, captured, sequence, placed_at, changed_at, expires_at, id,
                          status, partition, account, currency)
SELECT 1, 0, sequence, time, time, time, transaction_id,
       (CASE WHEN version % 7 = 0 THEN 'open' ELSE 'expired' END)::ledger.hold_status,
       partition, account, 'NGN'
FROM ledger.entries WHERE account <> 'savings';
ANALYZE;
"""


# How many entries were read, those of the pages before among them: they are found by two indexes.
FETCHED = """
SELECT pg_stat_get_xact_tuples_fetched('ledger.entries_pkey'::regclass)
     + pg_stat_get_xact_tuples_fetched('ledger.entries_by_transaction'::regclass)
"""


class Explained(AsyncCursor[Any]):
    """Notes how Postgres would run each query, then runs it."""

    plans: list[str] = []

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        async with AsyncCursor(self.connection) as plain:
            await plain.execute(b"EXPLAIN " + query, params)
            self.plans.append("\n".join(str(line) for (line,) in await plain.fetchall()))
        return await super().execute(query, params, **options)


@pytest.fixture(scope="module")
def url(postgres: str, template: str) -> Iterator[str]:
    with filled(postgres, template, Rows()) as database:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(FILL.encode())
        yield database


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Connection]:
    Explained.plans = []
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        connection.cursor_factory = Explained
        yield connection
    assert Explained.plans, "nothing was explained"
    for plan in Explained.plans:
        # The positions are one row for each partition.
        assert "Seq Scan on" not in plan.replace("Seq Scan on positions", ""), plan
        for line in plan.splitlines():
            if "  Sort  " in line and "rows=" in line:
                rows = int(line.split("rows=")[1].split()[0])
                assert rows <= 2_000, plan


async def found_id(ledger: Connection) -> str:
    page = await history.entries(ledger, BUSY, limit=1)
    assert page is not None
    return page.items[0].transaction_id


async def test_now_and_then(ledger: Connection) -> None:
    assert await accounts.account(ledger, BUSY)
    assert await accounts.balance(ledger, BUSY)
    assert await accounts.balance_at_version(ledger, BUSY, MANY // 2)
    past = await accounts.balance_at(ledger, BUSY, BEGAN + MANY // 2 * STEP)
    assert past is not None and past.version == MANY // 2


@pytest.mark.parametrize("page", [1, 2, MANY // 20, MANY // 20 - 1])
async def test_a_page_of_any_number(ledger: Connection, page: int) -> None:
    found = await history.entries(ledger, BUSY, page=page)
    assert found is not None and len(found.items) == 20
    assert found.items[0].version == MANY - 20 * (page - 1)


async def test_cursors(ledger: Connection) -> None:
    first = await history.entries(ledger, BUSY)
    assert first is not None and first.next
    second = await history.entries(ledger, BUSY, cursor=first.next)
    assert second is not None and second.previous
    assert await history.entries(ledger, BUSY, cursor=second.previous) == first


@pytest.mark.parametrize(
    "filter",
    [
        EntryFilter(direction="credit"),
        EntryFilter(kinds=("credit",)),
        EntryFilter(statuses=("posted",), min_amount=1, max_amount=5),
        EntryFilter(reference="reference-300"),
    ],
)
async def test_filters(ledger: Connection, filter: EntryFilter) -> None:
    found = await history.entries(ledger, BUSY, filter)
    assert found is not None and found.items
    until = BEGAN + MANY // 2 * STEP
    assert await history.entries(ledger, BUSY, filter, since=BEGAN, until=until, page=2)


@pytest.mark.parametrize(
    "filter", [EntryFilter(kinds=("void", "freeze")), EntryFilter(statuses=("rejected",))]
)
async def test_what_an_account_does_not_have(ledger: Connection, filter: EntryFilter) -> None:
    found = await history.entries(ledger, BUSY, filter)
    assert found is not None and not found.items


@pytest.mark.parametrize("filter", [NO_FILTER, EntryFilter(kinds=("credit",), min_amount=1)])
async def test_entries_of_an_owner(ledger: Connection, filter: EntryFilter) -> None:
    page = await history.entries_of_owner(ledger, "owner0", filter)
    assert len(page.items) == 20 and page.next
    second = await history.entries_of_owner(ledger, "owner0", filter, cursor=page.next)
    assert second.items[0].time < page.items[-1].time and second.previous
    back = await history.entries_of_owner(ledger, "owner0", filter, cursor=second.previous)
    assert back.items == page.items
    assert (await history.entries_of_owner(ledger, "owner0", filter, page=2)).items == second.items
    until = BEGAN + MANY // 2 * STEP
    some = await history.entries_of_owner(ledger, "owner0", filter, since=BEGAN, until=until)
    assert some.items[0].time < until


async def test_transfers_between_own_accounts_read_no_more_than_is_listed(
    ledger: Connection,
) -> None:
    async def read(cursor: str | None) -> tuple[Page[EntryView], int]:
        async with ledger.transaction():
            page = await history.entries_of_owner(ledger, "owner of two", cursor=cursor)
            parameters = await ledger.execute(FETCHED.encode())
            row = await parameters.fetchone()
        assert row is not None
        return page, int(row[0])

    cursor = None
    for number in (1, 2, 3):
        page, fetched = await read(cursor)
        versions = [entry.version for entry in page.items]
        assert versions == list(range(BETWEEN - 20 * (number - 1), BETWEEN - 20 * number, -1))
        assert {entry.account for entry in page.items} == {"purse"}
        assert fetched < BETWEEN // 5
        cursor = page.next


async def test_statement(ledger: Connection) -> None:
    since = BEGAN + MANY // 2 * STEP
    found = await history.statement(ledger, BUSY, since, since + 500 * STEP)
    assert found is not None
    entries = [one async for one in history.statement_entries(ledger, found)]
    assert len(entries) == 500


async def test_lists_of_accounts(ledger: Connection) -> None:
    page = await accounts.accounts(ledger)
    assert page.next and (await accounts.accounts(ledger, cursor=page.next)).items
    assert len((await accounts.accounts(ledger, owner="owner7")).items) == 2


@pytest.mark.parametrize(
    "filter",
    [
        TransactionFilter(accounts=(BUSY,)),
        TransactionFilter(accounts=("a7",), statuses=("posted",)),
        TransactionFilter(accounts=(BUSY, "a7"), statuses=("posted",)),
        TransactionFilter(),
        TransactionFilter(kinds=("credit",)),
        TransactionFilter(reference="reference-300"),
        TransactionFilter(since=BEGAN, until=BEGAN + 100 * STEP),
    ],
)
async def test_lists_of_transactions(ledger: Connection, filter: TransactionFilter) -> None:
    page = await transactions.transactions(ledger, filter, limit=5)
    assert page.items
    if page.next:
        second = await transactions.transactions(ledger, filter, limit=5, cursor=page.next)
        assert second.items[0].time <= page.items[-1].time and second.previous
        back = await transactions.transactions(ledger, filter, limit=5, cursor=second.previous)
        assert back.items == page.items


async def test_one_transaction_command_hold(ledger: Connection) -> None:
    id = await found_id(ledger)
    assert await transactions.transaction(ledger, id)
    assert len(await transactions.transaction_entries(ledger, id)) == 2
    assert await transactions.owning_command(ledger, id)
    assert await transactions.command_at(ledger, 0, 77)
    assert await transactions.commands_by_label(ledger, "label-50")
    assert await transactions.commands_by_label(ledger, "label-50", account=BUSY)
    assert await transactions.hold(ledger, id)


@pytest.mark.parametrize("of", [[BUSY], [BUSY, "a1", "a2"], None])
async def test_holds(ledger: Connection, of: list[str] | None) -> None:
    page = await transactions.holds(ledger, of)
    assert len(page.items) == 20 and page.next
    second = await transactions.holds(ledger, of, cursor=page.next)
    assert second.previous
    assert (await transactions.holds(ledger, of, cursor=second.previous)).items == page.items
    assert (await transactions.holds(ledger, of, ("open",))).items
