"""The users of the walk-through: two with money and an operator, in a fresh embedded ledger.

They are written to Postgres, and credited through the API. Those who exist are left alone, money
and password alike. Where
everything is bound to the loopback address their password is in the README; elsewhere it is random,
and users who still have the one of the README get a new one. Production has none of them.
"""

import asyncio
import http.client
import json
import secrets
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import psycopg

from compose.embedded.problems import RuntimeProblem
from ingress.auth import demo_users, session_store
from ingress.auth.demo_users import OPERATOR, PEOPLE
from ingress.auth.passwords import Passwords
from ingress.auth.registration import add_user
from ingress.auth.revocations import KEY, SESSION
from ingress.http import problems
from ingress.http.roles import UserRole
from ingress.settings import IngressSettings
from ingress.sql import queries
from ingress.wallets.directory import add_wallet

# 10,000.00 for each, in minor units.
MONEY = 1_000_000
TIMEOUT_S = 30.0


def random_password() -> str:
    return secrets.token_urlsafe(12)


def seed(
    url: str, database: str, prefix: str, currency: str, password: str = demo_users.PASSWORD
) -> list[str]:
    """The e-mail addresses of the users it created, with that password."""
    created = [OPERATOR] if asyncio.run(_add_operator(database, password)) else []
    wallet_ids = asyncio.run(_add_people(database, currency, password))
    if wallet_ids:
        api = _Api(url, prefix)
        status, session = api.post("/login", {"email": OPERATOR, "password": password})
        _expect(HTTPStatus.OK, status, session)
        for wallet_id in wallet_ids.values():
            _credit(api, wallet_id, session["access_token"])
    return [*created, *wallet_ids]


def _credit(api: "_Api", wallet_id: str, token: str) -> None:
    """Repeats the request, which has a key, while the wallet is being opened."""
    credit = {"entry": "credit", "amount": MONEY, "wallet_id": wallet_id, "trans_id": "demo"}
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        status, answer = api.post("/transactions", credit, token)
        # A 202 may end in any outcome: the same request finds it.
        if status not in (HTTPStatus.CONFLICT, HTTPStatus.ACCEPTED) or time.monotonic() > deadline:
            _expect(HTTPStatus.CREATED, status, answer)
            return


def replace_known_password(database: str, password: str) -> list[str]:
    """Gives those who have the README's password that one, and ends what they hold. Their e-mail
    addresses."""
    return asyncio.run(_replace(database, password))


async def _replace(database: str, password: str) -> list[str]:
    passwords = _passwords()
    try:
        connection = await psycopg.AsyncConnection.connect(database)
        async with connection:
            found = await demo_users.with_demo_password(connection, passwords)
            for user in found:
                new = await passwords.hash_without_place(password)
                await queries.run(
                    connection, "password_change", id=user.id, old=user.password_hash, new=new
                )
                await session_store.revoke(connection, user.id, SESSION, KEY)
    finally:
        passwords.close()
    return [user.email for user in found]


async def _add_people(database: str, currency: str, password: str) -> dict[str, str]:
    """The wallets of those who were not there, by e-mail address. They are written to Postgres:
    an ingress that others reach lets nobody register these addresses."""
    passwords = _passwords()
    hashed = await passwords.hash_without_place(password)
    passwords.close()
    wallet_ids = {}
    connection = await psycopg.AsyncConnection.connect(database)
    async with connection:
        for first_name, last_name, email in PEOPLE:
            try:
                async with connection.transaction():
                    user = await add_user(
                        connection, email, first_name, last_name, hashed, UserRole.USER
                    )
                    wallet = await add_wallet(
                        connection, user.id, currency, is_default=True, trace=None
                    )
            except problems.HttpProblem:
                continue  # there already
            wallet_ids[email] = wallet.id
    return wallet_ids


async def _add_operator(database: str, password: str) -> bool:
    passwords = _passwords()
    hashed = await passwords.hash_without_place(password)
    passwords.close()
    connection = await psycopg.AsyncConnection.connect(database)
    async with connection:
        try:
            await add_user(connection, OPERATOR, "Olu", "Operator", hashed, UserRole.OPERATOR)
        except problems.HttpProblem:
            return False  # there already
    return True


def _passwords() -> Passwords:
    return Passwords(1, IngressSettings.model_fields["password_memory_kib"].default)


def _expect(wanted: HTTPStatus, status: int, response: Any) -> None:
    if status != wanted:
        raise RuntimeProblem(
            f"The demo data could not be made: {status}: {json.dumps(response)[:300]}"
        )


class _Api:
    def __init__(self, url: str, prefix: str) -> None:
        parts = urlsplit(url)
        self._at = (parts.hostname or "", parts.port or 80)
        self._prefix = prefix

    def post(self, path: str, body: object, token: str | None = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self._at, timeout=TIMEOUT_S)
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request("POST", self._prefix + path, json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except OSError as error:
            raise RuntimeProblem(f"The demo data could not be made: {error}.") from error
        finally:
            connection.close()
