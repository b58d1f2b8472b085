"""The users of the walk-through: two with money and an operator, in a fresh embedded ledger.

They are created through the API. Those who exist are left alone, money and password alike. Where
everything is bound to the loopback address their password is in the README; elsewhere it is random,
and whoever still has the one of the README gets a new one. Production has none of them.
"""

import asyncio
import http.client
import json
import secrets
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import psycopg

from compose.embedded.problems import RuntimeProblem
from ingress import queries
from ingress.auth import session_store
from ingress.auth.passwords import Passwords
from ingress.auth.registration import add_user
from ingress.auth.revocations import KEY, SESSION
from ingress.http import problems
from ingress.http.roles import UserRole
from ingress.settings import IngressSettings
from ingress.users import demo_users
from ingress.users.demo_users import OPERATOR, PEOPLE

# 10,000.00 for each, in minor units.
MONEY = 1_000_000
TIMEOUT_S = 30.0


def random_password() -> str:
    return secrets.token_urlsafe(12)


def seed(url: str, database: str, prefix: str, password: str = demo_users.PASSWORD) -> list[str]:
    """The e-mail addresses of those who were created, with that password."""
    api = _Api(url, prefix)
    created = [OPERATOR] if asyncio.run(_operator(database, password)) else []
    token = ""
    for first_name, last_name, email in PEOPLE:
        asked = {"first_name": first_name, "last_name": last_name}
        status, told = api.post("/register", {**asked, "email": email, "password": password})
        if status == HTTPStatus.CONFLICT:
            continue
        _expect(HTTPStatus.CREATED, status, told)
        created.append(email)
        if not token:
            status, signed_in = api.post("/login", {"email": OPERATOR, "password": password})
            _expect(HTTPStatus.OK, status, signed_in)
            token = signed_in["access_token"]
        wallet = told["wallet"]["id"]
        credit = {"entry": "credit", "amount": MONEY, "wallet_id": wallet, "trans_id": "demo"}
        _expect(HTTPStatus.CREATED, *api.post("/transactions", credit, token))
    return created


def replace_known_password(database: str, password: str) -> list[str]:
    """Gives those who have the README's password that one, and ends what they hold. Their e-mail
    addresses."""
    return asyncio.run(_replace(database, password))


async def _replace(database: str, password: str) -> list[str]:
    passwords = _passwords()
    try:
        connection = await psycopg.AsyncConnection.connect(database)
        async with connection:
            found = await demo_users.with_the_password(connection, passwords)
            for user in found:
                new = await passwords.hash(password)
                await queries.run(
                    connection, "password_change", id=user.id, old=user.password_hash, new=new
                )
                await session_store.revoke(connection, user.id, SESSION, KEY)
    finally:
        passwords.close()
    return [user.email for user in found]


async def _operator(database: str, password: str) -> bool:
    passwords = _passwords()
    hashed = await passwords.hash(password)
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


def _expect(wanted: HTTPStatus, status: int, told: Any) -> None:
    if status != wanted:
        raise RuntimeProblem(f"The demo data could not be made: {status}: {json.dumps(told)[:300]}")


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
