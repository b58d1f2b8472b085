"""The people of the walk-through: two with money and an operator, in a fresh embedded ledger.

They come in by the API's own ways. Who is there already is left alone, money and password alike;
production has none of them.
"""

import asyncio
import http.client
import json
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import psycopg

from compose.embedded.problems import Problem
from ingress import problems
from ingress.roles import Role
from ingress.sessions.passwords import Passwords
from ingress.sessions.registration import add_user
from ingress.settings import IngressSettings

PASSWORD = "password"
OPERATOR = "operator@example.com"
PEOPLE = (("Kelvin", "Ade", "kelvin@example.com"), ("Tolu", "Bello", "tolu@example.com"))
# 10,000.00 for each, in minor units.
MONEY = 1_000_000
TIMEOUT_S = 30.0


def seed(url: str, database: str, prefix: str) -> None:
    api = _Api(url, prefix)
    asyncio.run(_operator(database))
    token = ""
    for first_name, last_name, email in PEOPLE:
        asked = {"first_name": first_name, "last_name": last_name}
        status, told = api.post("/register", {**asked, "email": email, "password": PASSWORD})
        if status == HTTPStatus.CONFLICT:
            continue
        _expect(HTTPStatus.CREATED, status, told)
        if not token:
            status, signed_in = api.post("/login", {"email": OPERATOR, "password": PASSWORD})
            _expect(HTTPStatus.OK, status, signed_in)
            token = signed_in["access_token"]
        wallet = told["wallet"]["id"]
        credit = {"entry": "credit", "amount": MONEY, "wallet_id": wallet, "trans_id": "demo"}
        _expect(HTTPStatus.CREATED, *api.post("/transactions", credit, token))


async def _operator(database: str) -> None:
    settings = IngressSettings.model_fields["password_memory_kib"]
    passwords = Passwords(1, settings.default)
    hashed = await passwords.hash(PASSWORD)
    passwords.close()
    connection = await psycopg.AsyncConnection.connect(database)
    async with connection:
        try:
            await add_user(connection, OPERATOR, "Olu", "Operator", hashed, Role.OPERATOR)
        except problems.Problem:
            return  # there already


def _expect(wanted: HTTPStatus, status: int, told: Any) -> None:
    if status != wanted:
        raise Problem(f"The demo data could not be made: {status}: {json.dumps(told)[:300]}")


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
            raise Problem(f"The demo data could not be made: {error}.") from error
        finally:
            connection.close()
