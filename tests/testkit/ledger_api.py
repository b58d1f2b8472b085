"""The whole ledger behind its HTTP side: an ingress as a process of its own beside a Pipeline, and
a client that tells what was answered.
"""

import http.client
import itertools
import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ingress.ledger.request_fields import MAX_WAIT_S
from schemas.ids import EPOCH
from tests.testkit.pipeline import Pipeline
from tests.testkit.programs import Program
from tests.testkit.waiting import eventually

PREFIX = "/api/v1"
PASSWORD = "correct horse"
NEW_KEY = {"name": "x", "scopes": ["read"], "current_password": PASSWORD}
START_S = 60.0
TIMEOUT_S = 60.0
SIGNING_KEY = secrets.token_hex(32)

# All tests come from one address.
UNLIMITED = {
    "LOGIN_FAILURES_PER_EMAIL": "1000",
    "LOGIN_FAILURES_PER_ADDRESS": "1000000",
    "REGISTRATIONS_PER_ADDRESS": "1000000",
}

# Texts that are something else where one is careless.
HOSTILE = [
    "'; DROP TABLE ledger.users; --",
    '"; SELECT pg_sleep(9); --',
    "%s %(id)s $1 {0} ${HOME} %n",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    '-2+3,"quoted"\r\n\ttab',
    "<script>alert(1)</script>",
    "\u202eright to left\u200b\ufeff",
    "e\u0301 \U0001f4b8 \ufdfa",
    "\\x00 \\u0000 NULL None undefined",
]

_numbers = itertools.count(1)


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        """Of a problem, which this must be."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        return str(self.json["code"])


class Person(NamedTuple):
    """Somebody who has registered."""

    email: str
    number: int
    uuid: str
    wallet_id: str
    token: str
    refresh_token: str


class _Process(Program):
    MODULE = "ingress"


class Ingress:
    """One `python -m ingress`, and who asks it. Not started yet."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        own = {
            "SIGNING_KEY": SIGNING_KEY,
            # Hashing is slow on purpose; here it need not be.
            "PASSWORD_MEMORY_KIB": "8192",
            # Who signed in for all tests of a module is signed in at the last of them.
            "ACCESS_TOKEN_TTL_S": "86400",
            **UNLIMITED,
            **settings,
        }
        self._ledger = own["LEDGER_ID"]
        self.process = _Process(1, folder, own)
        self.port = self.process.port

    def start(self, **settings: str) -> "Ingress":
        self.process.start(HTTP_PORT=str(self.port), **settings)
        try:
            eventually(self._is_ready, START_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.told()}") from None
        return self

    def _is_ready(self) -> bool:
        if not self.process.running():
            raise RuntimeError(f"the ingress has ended:\n{self.told()}")
        return self.process.ready()

    def told(self) -> str:
        return self.process.tail()

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        prefix: str = PREFIX,
    ) -> Answer:
        """`body` is sent as JSON, bytes as they are. Who does not say otherwise waits for the
        outcome as long as a slow machine takes."""
        sent = {"Prefer": f"wait={MAX_WAIT_S}", **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, prefix + path, data, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def raw(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """What is answered to bytes as they are."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(data)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            return answer.status, dict(answer.getheaders()), answer.read()

    def get(self, path: str, token: str | None = None, **rest: Any) -> Answer:
        return self.call("GET", path, None, token, **rest)

    def post(self, path: str, body: Any = None, token: str | None = None, **rest: Any) -> Answer:
        return self.call("POST", path, body, token, **rest)

    def person(self, **more: Any) -> Person:
        """Somebody new."""
        asked = {
            "first_name": "Ada",
            "last_name": "Obi",
            "email": f"ada{next(_numbers)}-{secrets.token_hex(4)}@example.com",
            "password": PASSWORD,
            **more,
        }
        answer = self.post("/register", asked)
        assert answer.status == 201, f"{answer}\n{self.told()}"
        told = answer.json
        return Person(
            email=told["user"]["email"],
            number=told["user"]["id"],
            uuid=told["user"]["uuid"],
            wallet_id=told["wallet"]["id"],
            token=told["access_token"],
            refresh_token=told["refresh_token"],
        )

    def login(self, email: str, password: str = PASSWORD) -> Answer:
        return self.post("/login", {"email": email, "password": password})

    def becomes(self, person: Person, role: str, admin: Person) -> Person:
        """The same person, signed in anew, in another role."""
        changed = self.call("PATCH", f"/users/{person.number}", {"role": role}, admin.token)
        assert changed.status == 200, changed
        return person._replace(token=self.login(person.email).json["access_token"])

    def cursor(self, inner: str) -> str:
        """As this ledger gives it out, whatever is in it."""
        return f"{self._ledger}:{EPOCH}:{inner}"

    def admin(self) -> Person:
        """The first one, that the settings name."""
        # Made when the ingress starts, beside serving.
        eventually(lambda: self.login(ADMIN_EMAIL).status == 200, START_S)
        told = self.login(ADMIN_EMAIL).json
        user = told["user"]
        return Person(
            ADMIN_EMAIL, user["id"], user["uuid"], "", told["access_token"], told["refresh_token"]
        )


ADMIN_EMAIL = "admin@example.com"


class Api(NamedTuple):
    ingress: Ingress
    pipeline: Pipeline

    @property
    def database(self) -> str:
        return self.pipeline.settings["DATABASE_URL"]


@contextmanager
def beside(pipeline: Pipeline, folder: Path, **settings: str) -> Iterator[Ingress]:
    """An ingress of a pipeline, ready."""
    own = {**pipeline.settings, "ADMIN_EMAIL": ADMIN_EMAIL, "ADMIN_PASSWORD": PASSWORD, **settings}
    ingress = Ingress(folder, own)
    try:
        yield ingress.start()
    finally:
        ingress.process.kill()
