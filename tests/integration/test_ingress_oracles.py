"""Answers must not reveal, by their text, time or work, whether another wallet used a key, who is
staff, or which internal accounts exist.
"""

import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from ingress.http.problems import HttpProblem
from ingress.http.roles import UserRole
from ingress.http.routes import Caller
from ingress.ledger.account_directory import AccountDirectory
from ingress.ledger.client.outcome_lookup import OutcomeLookup
from ingress.users.directory import UserDirectory
from ingress.wallets.directory import WalletDirectory
from plumbing.postgres import connection_pool
from schemas import ids
from sinks.reads import transactions
from tests.testkit.ledger_api import ADMIN_EMAIL, Answer, Api, Ingress, Person
from tests.testkit.sql_statements import counted

WAIT_S = 1
UNKNOWN = str(uuid.uuid5(uuid.NAMESPACE_DNS, "nobody sent it"))


@pytest.fixture(scope="module")
def ada(api: Api) -> Person:
    """She has used the key `rent` and holds money by the key `deposit`."""
    person = api.ingress.person()
    credit = {"entry": "credit", "amount": 1_000, "trans_id": "rent"}
    assert api.ingress.post("/transactions", credit, person.token).status == 201
    hold = {"amount": 10, "trans_id": "deposit"}
    assert api.ingress.post("/holds", hold, person.token).status == 201
    return person


@pytest.fixture(scope="module")
def eve(api: Api) -> Person:
    return api.ingress.person()


def of_key(person: Person, key: str) -> str:
    """Anybody who knows the wallet can compute this id."""
    wallet = ids.AccountId(person.wallet_id)
    return str(ids.transaction_id(wallet, key, wallets_only=True))


def without_request_id(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in answer.json.items() if name != "request_id"}


WAYS: dict[str, Callable[[Ingress, str, str], Answer]] = {
    "poll": lambda ingress, id, token: ingress.get(f"/commands/{id}?wait={WAIT_S}", token),
    "capture": lambda ingress, id, token: ingress.post(
        f"/holds/{id}/capture", None, token, headers={"Prefer": f"wait={WAIT_S}"}
    ),
    "void": lambda ingress, id, token: ingress.post(
        f"/holds/{id}/void", None, token, headers={"Prefer": f"wait={WAIT_S}"}
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_another_wallets_key_is_waited_for_like_an_unused_one(
    ingress: Ingress, ada: Person, eve: Person, way: str
) -> None:
    answers = []
    for id in (of_key(ada, "deposit"), UNKNOWN):
        started = time.monotonic()
        answers.append(WAYS[way](ingress, id, eve.token))
        assert time.monotonic() - started >= WAIT_S, id
    assert without_request_id(answers[0]) == without_request_id(answers[1])
    assert answers[0].status == 404


def test_another_wallets_transaction_looks_missing(
    ingress: Ingress, ada: Person, eve: Person
) -> None:
    for path in ("/transactions/{}", "/holds/{}", "/commands/{}"):
        foreign = ingress.get(path.format(of_key(ada, "deposit")), eve.token)
        missing = ingress.get(path.format(UNKNOWN), eve.token)
        assert foreign.status == 404
        assert without_request_id(foreign) == without_request_id(missing)
        assert ingress.get(path.format(of_key(ada, "deposit")), ada.token).status == 200


async def work(act: Callable[[], Awaitable[object]]) -> list[object]:
    with counted() as seen:
        try:
            found = await act()
        except HttpProblem:
            found = None
    assert found is None
    return seen


async def test_another_wallets_transaction_takes_the_same_work_as_a_missing_one(
    api: Api, ada: Person, eve: Person
) -> None:
    async with connection_pool.pool(api.database, 1, "test") as pool:
        await pool.wait()
        users, wallets = UserDirectory(pool), WalletDirectory(pool)
        outcomes = OutcomeLookup(pool, AccountDirectory(pool, users, wallets))
        foreign = of_key(ada, "rent")
        first = await work(lambda: outcomes.by_transaction(UNKNOWN, eve.uuid))
        assert await work(lambda: outcomes.by_transaction(foreign, eve.uuid)) == first
        assert await outcomes.by_transaction(foreign, ada.uuid) is not None
        async with pool.connection() as connection:
            first = await work(lambda: transactions.hold(connection, UNKNOWN, eve.uuid))
            foreign = of_key(ada, "deposit")
            assert await work(lambda: transactions.hold(connection, foreign, eve.uuid)) == first
            assert await transactions.hold(connection, foreign, ada.uuid) is not None


async def test_a_foreign_internal_account_takes_the_same_work_as_a_missing_one(
    api: Api, eve: Person
) -> None:
    ingress = api.ingress
    operator = ingress.becomes(ingress.person(), UserRole.OPERATOR, ingress.admin())
    opened = ingress.post("/accounts", {"account_type": "revenue"}, operator.token)
    assert opened.status == 201, opened
    internal = opened.json["id"]
    caller = Caller(eve.uuid, eve.number, UserRole.USER)
    async with connection_pool.pool(api.database, 1, "test") as pool:
        await pool.wait()
        directory = AccountDirectory(pool, UserDirectory(pool), WalletDirectory(pool))
        missing = await work(lambda: directory.find_receiver(caller, UNKNOWN))
        assert await work(lambda: directory.find_receiver(caller, internal)) == missing
        assert await directory.find(internal) is not None  # now it is cached
        assert await work(lambda: directory.find_receiver(caller, internal)) == missing


def test_staff_look_like_unknown_users(ingress: Ingress, ada: Person) -> None:
    admin = ingress.admin()
    pay: dict[str, Any] = {"amount": 1, "trans_id": "to staff"}
    for field, staff, nobody in (
        ("receiver_id", admin.number, 2**40),
        ("receiver_id", admin.uuid, UNKNOWN),
        ("receiver_email", ADMIN_EMAIL, "nobody@example.com"),
    ):
        foreign = ingress.post("/transactions", {**pay, field: staff}, ada.token)
        missing = ingress.post("/transactions", {**pay, field: nobody}, ada.token)
        assert foreign.status == 404, foreign
        assert without_request_id(foreign) == without_request_id(missing)
    for path in ("/transactions", "/wallets", "/holds"):
        foreign = ingress.get(f"{path}?user_id={admin.number}", ada.token)
        missing = ingress.get(f"{path}?user_id={2**40}", ada.token)
        assert foreign.status == 404
        assert without_request_id(foreign) == without_request_id(missing)


async def test_staff_take_the_same_work_as_unknown_users(api: Api, ada: Person) -> None:
    admin = api.ingress.admin()
    async with connection_pool.pool(api.database, 1, "test") as pool:
        await pool.wait()
        wallets = WalletDirectory(pool)
        users = UserDirectory(pool)
        assert await users.by_id(admin.uuid) is not None  # cached, like every signed-in user
        for staff, nobody in ((admin.number, 2**40), (admin.uuid, UNKNOWN)):
            first = await work(partial(wallets.receiving, "NGN", reference=nobody))
            again = await work(partial(wallets.receiving, "NGN", reference=staff))
            assert again == first
        first = await work(partial(wallets.receiving, "NGN", email="nobody@example.com"))
        assert await work(partial(wallets.receiving, "NGN", email=ADMIN_EMAIL)) == first
        for reference in (ada.number, str(ada.number), ada.uuid.upper()):
            found = await wallets.receiving("NGN", reference=reference)
            assert found is not None
            assert found.id == ada.wallet_id
        found = await wallets.receiving("NGN", email=ada.email.upper())
        assert found is not None
        assert found.id == ada.wallet_id
        assert await wallets.receiving("NGN", reference=ada.email) is None
