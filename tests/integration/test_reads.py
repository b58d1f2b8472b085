"""For random histories every answer of the reads is the one that the journal gives, added up
naively in Python."""

import itertools
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, cast, get_args

import psycopg
import pytest
from psycopg import AsyncConnection

from schemas.field_types import AccountStatus, AccountType
from schemas.journal import HoldStatus
from sinks.reads import accounts, history, pages, transactions
from sinks.reads.history import NO_FILTER, EntryFilter, EntryView
from sinks.reads.pages import BadCursor, Page, PageTooDeep
from sinks.reads.queries import Connection
from sinks.reads.transactions import TransactionFilter, TransactionStatus
from tests import conftest
from tests.testkit import histories, naive_rows
from tests.testkit.naive_rows import Row, Rows

SEEDS = (11, 12, 13)
# Beside each a moment that lies between two entries.
MOMENTS = (timedelta(0), timedelta(microseconds=1), -timedelta(microseconds=1), timedelta(days=9))


@contextmanager
def filled(postgres: str, template: str, rows: Rows) -> Iterator[str]:
    name = f"reads_{random.SystemRandom().randrange(2**48):x}"
    conftest.create(postgres, name, template)
    url = conftest.beside(postgres, name)
    naive_rows.copy(url, rows)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    yield url
    conftest.drop(postgres, name)


def rows_of(seed: int) -> Rows:
    rows = Rows()
    for partition in histories.of_seed(seed, rest=seed % 2 == 0).partitions:
        values = enumerate(value for _, value in partition.journal)
        rows.fold(histories.LEDGER_ID, partition.number, values)
    return rows


@pytest.fixture(scope="module", params=SEEDS)
def rows(request: pytest.FixtureRequest) -> Rows:
    return rows_of(request.param)


@pytest.fixture(scope="module")
def url(postgres: str, template: str, rows: Rows) -> Iterator[str]:
    with filled(postgres, template, rows) as database:
        yield database


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Connection]:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def dice(rows: Rows) -> random.Random:
    return random.Random(str(len(rows.tables["entries"])))


def same(found: Any, row: Row, *names: str) -> None:
    assert {name: getattr(found, name) for name in names} == {name: row[name] for name in names}


async def walk(
    read: Callable[[str | None], Any], expected: list[Any], key: Callable[[Any], Any]
) -> None:
    """All pages by their cursors, there and back, are the expected list."""
    there: list[Page[Any]] = []
    cursor = None
    while True:
        page = await read(cursor)
        there.append(page)
        if page.next is None:
            break
        cursor = page.next
    assert [key(one) for page in there for one in page.items] == expected
    assert there[0].previous is None or not expected
    for later, earlier in itertools.pairwise(reversed(there)):
        back = await read(later.previous)
        assert [key(one) for one in back.items] == [key(one) for one in earlier.items]


async def test_accounts_and_balances(ledger: Connection, rows: Rows) -> None:
    for id, row in rows.tables["accounts"].items():
        account = await accounts.account(ledger, id)
        balance = await accounts.balance(ledger, id)
        assert account is not None and balance is not None
        same(account, {**row, "metadata": row["metadata"] or {}}, *set(row))
        same(balance, row, "balance", "held", "incoming", "version", "currency")
        assert account.available == balance.available == row["balance"] - row["held"]
    assert await accounts.account(ledger, "nobody") is None
    assert await accounts.balance(ledger, "nobody") is None


async def test_lists_of_accounts(ledger: Connection, rows: Rows) -> None:
    types, statuses = get_args(AccountType), get_args(AccountStatus)
    for owner in (None, "ada", "nobody"):
        for currency, some_types, some_statuses in (
            (None, None, None),
            ("NGN", types[:3], statuses[:1]),
            (None, types[:1], statuses),
        ):
            expected = sorted(
                row["id"]
                for row in rows.tables["accounts"].values()
                if (owner is None or row["owner"] == owner)
                and (currency is None or row["currency"] == currency)
                and (some_types is None or row["type"] in some_types)
                and (some_statuses is None or row["status"] in some_statuses)
            )

            async def read(cursor: str | None, **parameters: Any) -> Page[accounts.AccountView]:
                return await accounts.accounts(ledger, limit=7, cursor=cursor, **parameters)

            parameters = {
                "owner": owner,
                "currency": currency,
                "types": some_types,
                "statuses": some_statuses,
            }
            await walk(lambda c, a=parameters: read(c, **a), expected, lambda one: one.id)  # type: ignore[misc]  # bound at once


async def test_balances_at_each_version_and_between(ledger: Connection, rows: Rows) -> None:
    history_of = rows.by_account()
    for account in itertools.islice(rows.tables["accounts"], 25):
        entries = history_of.get(account, [])
        for version in (0, 1, len(entries) // 2, len(entries), len(entries) + 1, -1):
            found = await accounts.balance_at_version(ledger, account, version)
            if not 0 <= version <= len(entries):
                assert found is None
                continue
            assert found is not None and found.version == version
            assert found.balance == (entries[version - 1]["balance"] if version else 0)
        for time in {entry["time"] + beside for entry in entries[::5] for beside in MOMENTS}:
            found = await accounts.balance_at(ledger, account, time)
            until = [entry for entry in entries if entry["time"] <= time]
            last = until[-1] if until else {"balance": 0, "version": 0, "time": None}
            assert found is not None
            same(found, last, "balance", "version", "time")
    assert await accounts.balance_at(ledger, "nobody", naive_rows.EPOCH) is None


async def test_an_accounts_entries_page_by_page(ledger: Connection, rows: Rows) -> None:
    for account, all_of_it in itertools.islice(rows.by_account().items(), 20):
        versions = [row["version"] for row in reversed(all_of_it)]

        async def read(cursor: str | None, of: str = account) -> Page[EntryView]:
            page = await history.entries(ledger, of, limit=7, cursor=cursor)
            assert page is not None
            return page

        await walk(read, versions, lambda one: one.version)
        for number in range(1, len(versions) // 7 + 3):
            page = await history.entries(ledger, account, limit=7, page=number)
            assert page is not None
            assert [one.version for one in page.items] == versions[7 * number - 7 : 7 * number]
            assert page.total == len(versions)
            if page.next:
                following = await history.entries(ledger, account, limit=7, cursor=page.next)
                assert following is not None
                expected = versions[7 * number : 7 * number + 7]
                assert [one.version for one in following.items] == expected
        for found in (await read(None)).items:
            row = rows.tables["entries"][account, found.version]
            same(found, row, *row)
            made = rows.tables["transactions"][found.transaction_id]
            same(found, made, "kind", "status", "counterparty", "fee", "label", "reference")
            same(found, made, "description", "metadata", "reverses", "reversed_by")
    assert await history.entries(ledger, "nobody") is None


def wanted(row: Row, made: Row, filter: EntryFilter) -> bool:
    return (
        (filter.direction is None or row["direction"] == filter.direction)
        and (filter.kinds is None or made["kind"] in filter.kinds)
        and (filter.statuses is None or made["status"] in filter.statuses)
        and (filter.reference is None or made["reference"] == filter.reference)
        and (filter.min_amount is None or row["amount"] >= filter.min_amount)
        and (filter.max_amount is None or row["amount"] <= filter.max_amount)
    )


def some_filter(dice: random.Random, rows: Rows) -> EntryFilter:
    references = [one["reference"] for one in rows.of("transactions") if one["reference"]]
    least = dice.choice((None, None, 1, 500))
    return EntryFilter(
        direction=dice.choice((None, "debit", "credit")),
        kinds=dice.choice((None, ("transfer", "post"), ("capture",))),
        statuses=cast(Any, dice.choice((None, ("posted",), ("pending", "rejected")))),
        reference=dice.choice((None, None, None, dice.choice(references))),
        min_amount=least,
        max_amount=dice.choice((None, (least or 0) + 2_000)),
    )


async def test_an_accounts_entries_with_filters(
    ledger: Connection, rows: Rows, dice: random.Random
) -> None:
    by_account = rows.by_account()
    times = sorted(row["time"] for row in rows.tables["entries"].values())
    for _ in range(120):
        account = dice.choice(list(by_account))
        filter = some_filter(dice, rows)
        since, until = (dice.choice((None, dice.choice(times))) for _ in range(2))
        expected = [
            row["version"]
            for row in reversed(by_account[account])
            if wanted(row, rows.tables["transactions"][row["transaction_id"]], filter)
            and (since is None or row["time"] >= since)
            and (until is None or row["time"] < until)
        ]

        async def read(cursor: str | None, *, page: int | None = None, at: Any) -> Page[EntryView]:
            of, by, first, last = at
            found = await history.entries(
                ledger, of, by, since=first, until=last, limit=3, page=page, cursor=cursor
            )
            assert found is not None
            return found

        at = account, filter, since, until
        await walk(lambda c, a=at: read(c, at=a), expected, lambda one: one.version)  # type: ignore[misc]  # bound at once
        page = await read(None, page=2, at=at)
        assert [one.version for one in page.items] == expected[3:6]


async def test_entries_of_all_accounts_of_an_owner(
    ledger: Connection, rows: Rows, dice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = list(rows.tables["entries"].values())
    owner_of = {id: row["owner"] for id, row in rows.tables["accounts"].items()}
    owners = sorted({owner for owner in owner_of.values() if owner is not None})
    times = sorted(row["time"] for row in entries)
    several = 0
    for owner in (*owners, *dice.choices(owners, k=15)):
        # Often in many steps, as with long histories.
        monkeypatch.setattr(history, "FIRST_WINDOW", dice.choice((1, 1, 4)))
        monkeypatch.setattr(history, "WINDOW_GROWTH", dice.choice((2, 8)))
        filter = dice.choice((NO_FILTER, some_filter(dice, rows)))
        since, until = (dice.choice((None, None, dice.choice(times))) for _ in range(2))
        listed: dict[str, Row] = {}
        for row in entries:
            if owner_of[row["account"]] == owner:
                sender = rows.tables["transactions"][row["transaction_id"]]["account"]
                other = listed.setdefault(row["transaction_id"], row)
                several += other is not row
                first = min(other, row, key=lambda r, a=sender: (r["account"] != a, r["account"]))  # type: ignore[misc]  # bound at once
                listed[row["transaction_id"]] = first
        expected = [
            (row["account"], row["version"])
            for row in sorted(
                listed.values(), key=lambda r: (r["time"], r["account"], r["version"]), reverse=True
            )
            if wanted(row, rows.tables["transactions"][row["transaction_id"]], filter)
            and (since is None or row["time"] >= since)
            and (until is None or row["time"] < until)
        ]

        async def read(cursor: str | None, *, page: int | None = None, at: Any) -> Page[EntryView]:
            of, by, first, last = at
            return await history.entries_of_owner(
                ledger, of, by, since=first, until=last, limit=7, page=page, cursor=cursor
            )

        at = owner, filter, since, until
        await walk(lambda c, a=at: read(c, at=a), expected, lambda one: (one.account, one.version))  # type: ignore[misc]  # bound at once
        for number in (1, 3, len(expected) // 7 + 2):
            page = await read(None, page=number, at=at)
            found = [(one.account, one.version) for one in page.items]
            assert found == expected[7 * number - 7 : 7 * number]
            assert page.total in (None, len(expected))
            if page.next is not None:
                following = await read(page.next, at=at)
                found = [(one.account, one.version) for one in following.items]
                assert found == expected[7 * number : 7 * number + 7]
    assert several, "no transaction between accounts of one owner"
    assert await history.entries_of_owner(ledger, "nobody") == Page(items=(), total=0)


async def test_statements(ledger: Connection, rows: Rows, dice: random.Random) -> None:
    by_account = rows.by_account()
    for account in dice.sample(list(by_account), 20):
        entries = by_account[account]
        for _ in range(4):
            since, until = sorted(
                entry["time"] + dice.choice(MOMENTS) for entry in dice.choices(entries, k=2)
            )
            statement = await history.statement(ledger, account, since, until)
            assert statement is not None
            before = [row for row in entries if row["time"] < since]
            within = [row for row in entries if since <= row["time"] < until]
            assert statement.opening.balance == (before[-1]["balance"] if before else 0)
            assert statement.closing.balance == [0, *(r["balance"] for r in before + within)][-1]
            found = [one async for one in history.statement_entries(ledger, statement)]
            assert [one.version for one in found] == [row["version"] for row in within]
    assert await history.statement(ledger, "nobody", since, until) is None


async def test_trial_balance(ledger: Connection, rows: Rows) -> None:
    expected: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    shards: defaultdict[tuple[str, str], int] = defaultdict(int)
    for row in rows.tables["accounts"].values():
        signed = row["balance"] if row["type"] in ("asset", "expense") else -row["balance"]
        expected[row["currency"], row["type"]][signed < 0] += abs(signed)
    for row in rows.tables["system_accounts"].values():
        signed = row["balance"] if row["role"] == "funding" else -row["balance"]
        shards[row["currency"], f"system:{row['role']}"] += signed
    for key, signed in shards.items():
        expected[key][signed < 0] += abs(signed)
    found = await accounts.trial_balance(ledger)
    assert {(each.currency, each.name): [each.debit, each.credit] for each in found} == expected
    totals: defaultdict[str, int] = defaultdict(int)
    for each in found:
        totals[each.currency] += each.debit - each.credit
    assert set(totals.values()) == {0}
    assert await accounts.trial_balance(ledger, "JPY") == [x for x in found if x.currency == "JPY"]


async def test_transactions_and_their_entries(ledger: Connection, rows: Rows) -> None:
    of: defaultdict[str, list[Row]] = defaultdict(list)
    for table in ("entries", "system_entries"):
        for row in rows.tables[table].values():
            of[row["transaction_id"]].append(row)
    for id, row in itertools.islice(rows.tables["transactions"].items(), 0, None, 4):
        found = await transactions.transaction(ledger, id)
        assert found is not None
        same(found, {**row, "metadata": row["metadata"] or {}}, *row)
        entries = await transactions.transaction_entries(ledger, id)
        columns = {(e.account, e.version, e.direction, e.amount, e.balance) for e in entries}
        assert len(entries) == len(columns)
        assert columns == {
            (e["account"], e["version"], e["direction"], e["amount"], e["balance"]) for e in of[id]
        }
        command = await transactions.owning_command(ledger, id)
        assert command is not None
        same(command, row, "partition", "kind", "account", "label")
        assert command.offset == row["source_offset"]
    nobody = "00000000-0000-5000-8000-000000000000"
    assert await transactions.transaction(ledger, nobody) is None
    assert await transactions.owning_command(ledger, nobody) is None
    assert await transactions.transaction_entries(ledger, nobody) == []


async def test_lists_of_transactions(ledger: Connection, rows: Rows, dice: random.Random) -> None:
    everything = sorted(
        rows.tables["transactions"].values(),
        key=lambda row: (row["time"], row["sequence"], row["partition"]),
        reverse=True,
    )
    named = sorted({row["account"] for row in everything})
    for _ in range(60):
        entry = some_filter(dice, rows)
        filter = TransactionFilter(
            accounts=dice.choice((None, dice.sample(named, 1), dice.sample(named, 9), [])),
            kinds=entry.kinds,
            statuses=entry.statuses,
            reference=entry.reference,
            min_amount=entry.min_amount,
            max_amount=entry.max_amount,
            since=dice.choice((None, dice.choice(everything)["time"])),
            until=dice.choice((None, dice.choice(everything)["time"])),
        )
        expected = [
            row["id"]
            for row in everything
            if (filter.accounts is None or row["account"] in filter.accounts)
            and (filter.since is None or row["time"] >= filter.since)
            and (filter.until is None or row["time"] < filter.until)
            and wanted(
                {**row, "amount": row["amount"] or -1, "direction": None}, row, entry_of(entry)
            )
            and (
                row["amount"] is not None or (entry.min_amount is None and entry.max_amount is None)
            )
        ]

        async def read(
            cursor: str | None, by: TransactionFilter = filter
        ) -> Page[transactions.LedgerTransaction]:
            return await transactions.transactions(ledger, by, limit=60, cursor=cursor)

        await walk(read, expected, lambda one: one.id)
        third = await transactions.transactions(ledger, filter, limit=5, page=3)
        assert [one.id for one in third.items] == expected[10:15]


def entry_of(filter: EntryFilter) -> EntryFilter:
    """The same, of a transaction: it has no direction."""
    return EntryFilter(
        kinds=filter.kinds,
        statuses=filter.statuses,
        reference=filter.reference,
        min_amount=filter.min_amount,
        max_amount=filter.max_amount,
    )


async def test_commands_by_position_and_by_label(ledger: Connection, rows: Rows) -> None:
    labels: defaultdict[str, list[Row]] = defaultdict(list)
    for (partition, offset), row in rows.tables["commands"].items():
        if row["label"] is not None:
            labels[row["label"]].append(row)
        if offset % 3:
            continue
        found = await transactions.command_at(ledger, partition, offset)
        assert found is not None and found.offset == offset
        same(found, row, *(set(row) - {"source_offset"}))
    assert await transactions.command_at(ledger, 0, 10**9) is None
    for label, of in itertools.islice(labels.items(), 30):
        positions = sorted(
            ((row["time"], row["sequence"], row["partition"]) for row in of), reverse=True
        )
        listed = await transactions.commands_by_label(ledger, label, limit=50)
        assert [(one.time, one.sequence, one.partition) for one in listed] == positions[:50]
        own = await transactions.commands_by_label(ledger, label, account=of[0]["account"])
        assert {one.account for one in own} <= {of[0]["account"]}
    assert await transactions.commands_by_label(ledger, "no such label") == []


async def test_holds(ledger: Connection, rows: Rows, dice: random.Random) -> None:
    all_statuses = get_args(HoldStatus)
    for id, row in itertools.islice(rows.tables["holds"].items(), 50):
        found = await transactions.hold(ledger, id)
        assert found is not None
        same(found, row, *row)
    of = sorted({row["account"] for row in rows.tables["holds"].values()})
    for account in dice.sample(of, min(len(of), 20)):
        for statuses in (all_statuses, ("open",), ("captured", "voided", "expired")):
            expected = sorted(
                (row for row in rows.of("holds", account=account) if row["status"] in statuses),
                key=lambda row: (row["placed_at"], row["id"]),
                reverse=True,
            )

            async def read(
                cursor: str | None, at: Any = (account, statuses)
            ) -> Page[transactions.HoldView]:
                return await transactions.holds(ledger, [at[0]], at[1], limit=3, cursor=cursor)

            await walk(read, [row["id"] for row in expected], lambda one: one.id)
    for some, statuses in ((None, all_statuses), (None, ("voided",)), (of[::2], ("open",))):
        expected = sorted(
            (
                row
                for row in rows.of("holds")
                if row["status"] in statuses and (some is None or row["account"] in some)
            ),
            key=lambda row: (row["placed_at"], row["id"]),
            reverse=True,
        )

        async def read_some(
            cursor: str | None, at: Any = (some, statuses)
        ) -> Page[transactions.HoldView]:
            return await transactions.holds(ledger, at[0], at[1], limit=9, cursor=cursor)

        await walk(read_some, [row["id"] for row in expected], lambda one: one.id)


async def test_positions(ledger: Connection, rows: Rows) -> None:
    for found in await accounts.positions(ledger):
        same(found, rows.tables["positions"][found.partition], "next_offset", "sequence", "time")


async def test_deep_pages_with_filters_and_foreign_cursors_are_refused(
    ledger: Connection, rows: Rows
) -> None:
    account = next(iter(rows.by_account()))
    by_direction = EntryFilter(direction="credit")
    assert await history.entries(ledger, account, by_direction, limit=100, page=100) is not None
    with pytest.raises(PageTooDeep):
        await history.entries(ledger, account, by_direction, limit=100, page=101)
    with pytest.raises(PageTooDeep):
        await transactions.transactions(ledger, TransactionFilter(), limit=1_000, page=11)
    deep = await history.entries(ledger, account, limit=100, page=100_000)
    assert deep is not None and deep.items == ()
    of_accounts = (await accounts.accounts(ledger, limit=1)).next
    assert of_accounts is not None
    for wrong in (of_accounts, "", "AAAA", "ö", of_accounts[:-4], "-" * 400):
        with pytest.raises(BadCursor):
            await history.entries(ledger, account, cursor=wrong)
    for limit, number in ((0, 1), (pages.MAX_LIMIT + 1, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be"):
            await history.entries(ledger, account, limit=limit, page=number)


def test_statuses_are_those_of_the_tables() -> None:
    assert get_args(TransactionStatus) == ("pending", "posted", "rejected")
