"""What is asked for without end has one, and is told so: queries, wallets, times and cursors; and
what is forgotten or hung up on meanwhile is nobody's failure.
"""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NoReturn
from urllib.parse import quote

import psycopg
import pytest

from ingress.http.problems import Code, HttpProblem
from ingress.ledger.account_directory import AccountDirectory
from ingress.ledger.routes import paged_lists
from ingress.users.directory import UserDirectory
from ingress.wallets.directory import MAX_WALLETS, WalletDirectory
from plumbing.postgres import connection_pool
from plumbing.postgres.connection_pool import Connection
from sinks.reads import pages
from tests.testkit.ledger_api import NEW_KEY, Api, Person
from tests.testkit.waiting import eventually

PATIENT = {"Prefer": "wait=30"}
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'"
)
FAR_AWAY = (
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59.999999Z",
    "1969-12-31T23:59:59Z",
    "2201-01-01T00:00:00Z",
)


@pytest.fixture(scope="module")
def ada(api: Api) -> Person:
    return api.ingress.person()


@pytest.fixture(scope="module")
def other_wallet(api: Api, ada: Person) -> str:
    opened = api.ingress.post("/wallets", {}, ada.token, headers=PATIENT)
    assert (opened.status, opened.json["status"]) == (201, "open"), opened
    return str(opened.json["id"])


async def test_accounts_are_found_while_the_cache_is_cleared(
    api: Api, ada: Person, other_wallet: str
) -> None:
    ids = [ada.wallet_id, other_wallet, api.ingress.person().wallet_id]
    async with connection_pool.pool(api.database, 2, "test") as pool:
        wallets = WalletDirectory(pool)
        for id in ids:
            assert await wallets.is_open(id, 30)
        accounts = AccountDirectory(pool, UserDirectory(pool), wallets, max_cached=2)
        for some in (ids[:2], ids, ids[1:], ids):
            assert set(await accounts.by_ids(some)) == set(some)


async def test_a_query_that_times_out_answers_page_too_deep(api: Api) -> None:
    async with connection_pool.pool(api.database, 1, "test") as pool:
        async with pool.connection() as connection:
            cursor = await connection.execute("SHOW statement_timeout")
            assert await cursor.fetchone() == (f"{connection_pool.STATEMENT_TIMEOUT_MS}ms",)
            await connection.execute("SET LOCAL statement_timeout = 50")
            with pytest.raises(HttpProblem) as raised:
                await paged_lists.page_or_problem(connection.execute("SELECT pg_sleep(60)"))
            await connection.rollback()
        assert raised.value.code == Code.PAGE_TOO_DEEP
        assert raised.value.detail == paged_lists.QUERY_TIMED_OUT


async def test_a_cancelled_query_raises_only_the_cancellation(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_connected(_: socket.socket, how: int) -> NoReturn:
        raise OSError(f"not connected ({how})")

    async with await Connection.connect(api.database, autocommit=True) as connection:
        monkeypatch.setattr(socket.socket, "shutdown", not_connected)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.execute("SELECT pg_sleep(1)")
        await connection.close()


@pytest.fixture
def almost_full(api: Api) -> Iterator[Person]:
    """A user with one wallet less than allowed; only the first is in the books."""
    person = api.ingress.person()
    with psycopg.connect(api.database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO ledger.wallets (id, user_id, currency, is_default)"
            " SELECT 'one-of-many-' || n, %s, 'NGN', false FROM generate_series(1, %s) AS n",
            (person.uuid, MAX_WALLETS - 2),
        )
        yield person
        connection.execute("DELETE FROM ledger.wallets WHERE id LIKE 'one-of-many-%'")


def test_the_number_of_wallets_is_capped_under_concurrency(api: Api, almost_full: Person) -> None:
    ingress, token = api.ingress, almost_full.token

    def waiting() -> bool:
        row = other.execute(WAITING).fetchone()
        return row is not None and row[0] >= 2

    with (
        ThreadPoolExecutor(2) as threads,
        psycopg.connect(api.database) as locking,
        psycopg.connect(api.database, autocommit=True) as other,
    ):
        locking.execute("SELECT FROM ledger.users WHERE id = %s FOR UPDATE", (almost_full.uuid,))
        request_body = [
            threads.submit(ingress.post, "/wallets", {}, token, headers=PATIENT) for _ in range(2)
        ]
        eventually(waiting, 30)
        locking.rollback()
        opened, refused = sorted(
            (item.result() for item in request_body), key=lambda raised: raised.status
        )
    assert opened.status == 201, opened
    assert (refused.status, refused.code) == (409, "too_many_wallets")
    assert len(ingress.get("/wallets", token).json["data"]) == MAX_WALLETS


def test_the_first_wallet_is_the_default_one(api: Api, ada: Person) -> None:
    with psycopg.connect(api.database) as connection:
        connection.execute(
            "INSERT INTO ledger.users (id, email, password_hash)"
            " SELECT gen_random_uuid(), 'no-wallet@example.com', password_hash"
            " FROM ledger.users WHERE id = %s",
            (ada.uuid,),
        )
    token = api.ingress.login("no-wallet@example.com").json["access_token"]
    assert api.ingress.get("/wallet", token).code == "account_not_found"
    first, second = (api.ingress.post("/wallets", {}, token).json["id"] for _ in range(2))
    assert api.ingress.get("/wallet", token).json["wallet"]["id"] == first
    assert [item["id"] for item in api.ingress.get("/wallets", token).json["data"]] == [
        first,
        second,
    ]


@pytest.mark.parametrize("time", FAR_AWAY)
def test_extreme_times_are_answered_without_an_error(api: Api, ada: Person, time: str) -> None:
    for path in (
        f"/transactions?since={quote(time)}",
        f"/wallets/{ada.wallet_id}/balance?at={quote(time)}",
        f"/wallets/{ada.wallet_id}/statement?until={quote(time)}",
    ):
        assert api.ingress.get(path, ada.token).code == "query_invalid", path
    key = {**NEW_KEY, "expires_at": time}
    assert api.ingress.post("/api-keys", key, ada.token).code == "fields_invalid"
    hold = {"amount": 1, "expires_at": time}
    assert api.ingress.post("/holds", hold, ada.token).code == "fields_invalid"


@pytest.mark.usefixtures("other_wallet")
@pytest.mark.parametrize("backwards", [False, True])
def test_extreme_cursors_are_answered_without_an_error(
    api: Api, ada: Person, backwards: bool
) -> None:
    """Cursors are not signed, so a client can forge one."""
    now = datetime.now(UTC)
    keys: tuple[tuple[Any, ...], ...] = (
        (FIRST, ada.wallet_id, 1),
        (LAST, ada.wallet_id, 1),
        (now, ada.wallet_id, 2**64 - 1),
        (now, ada.wallet_id, 2**63),
        (now, ada.wallet_id, -1),
        (now, ada.wallet_id, -(2**63)),
    )
    for key in keys:
        cursor = pages.write("entries of an owner", key, backwards=backwards)
        answer = api.ingress.get(f"/transactions?cursor={api.ingress.cursor(cursor)}", ada.token)
        assert answer.code == "query_invalid", (key, answer)
    for version in (0, 1, 2**63 - 1):
        cursor = pages.write(
            "entries of an owner", (now, ada.wallet_id, version), backwards=backwards
        )
        answer = api.ingress.get(f"/transactions?cursor={api.ingress.cursor(cursor)}", ada.token)
        assert answer.status == 200, (version, answer)


def test_the_page_depth_is_shared_by_all_accounts() -> None:
    assert pages.offset_of(100, 100, lists=10) == 9_900
    assert pages.offset_of(10, 100, lists=100) == 900
    assert pages.offset_of(1, 1_000, lists=5_000) == 0
    for page, limit, lists in ((101, 100, 1), (101, 100, 10), (11, 100, 100)):
        with pytest.raises(pages.PageTooDeep):
            pages.offset_of(page, limit, lists)
