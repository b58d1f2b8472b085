"""The ledger behind HTTP: a Pipeline with an ingress process, and a client of that ingress."""

import http.client
import itertools
import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ingress.http.request_headers import MAX_WAIT_S
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

# All tests share one client address.
UNLIMITED = {
    "LOGIN_FAILURES_PER_EMAIL": "1000",
    "LOGIN_FAILURES_PER_ADDRESS": "1000000",
    "REGISTRATIONS_PER_ADDRESS": "1000000",
}

# Texts that careless code would interpret.
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
        """The code of a problem; fails if the answer is none."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        return str(self.json["code"])


class Person(NamedTuple):
    """A registered user."""

    email: str
    number: int
    uuid: str
    wallet_id: str
    token: str
    refresh_token: str


class _Process(Program):
    MODULE = "ingress"


class Ingress:
    """One process `python -m ingress`, not started yet, with a client of it."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        environment = {
            "SIGNING_KEY": SIGNING_KEY,
            # Hashing is slow on purpose; tests use weaker parameters.
            "PASSWORD_MEMORY_KIB": "8192",
            # A user who signs in for a module stays signed in until its last test.
            "ACCESS_TOKEN_TTL_S": "86400",
            **UNLIMITED,
            **settings,
        }
        self._ledger = environment["LEDGER_ID"]
        self.process = _Process(1, folder, environment)
        self.port = self.process.port

    def start(self, **settings: str) -> "Ingress":
        self.process.start(HTTP_PORT=str(self.port), **settings)
        try:
            eventually(self._is_ready, START_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None
        return self

    def _is_ready(self) -> bool:
        if not self.process.running():
            raise RuntimeError(f"the ingress has ended:\n{self.log_tail()}")
        return self.process.ready()

    def log_tail(self) -> str:
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
        """`body` is sent as JSON, or as it is if it is bytes. By default the request waits for the
        outcome as long as it may."""
        request_headers = {"Prefer": f"wait={MAX_WAIT_S}", **(headers or {})}
        if token is not None:
            request_headers["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            request_headers.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, prefix + path, data, request_headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def raw(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends raw bytes and returns status, headers and body."""
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
        """Registers a new user."""
        request_body = {
            "first_name": "Ada",
            "last_name": "Obi",
            "email": f"ada{next(_numbers)}-{secrets.token_hex(4)}@example.com",
            "password": PASSWORD,
            **more,
        }
        answer = self.post("/register", request_body)
        assert answer.status == 201, f"{answer}\n{self.log_tail()}"
        response = answer.json
        return Person(
            email=response["user"]["email"],
            number=response["user"]["id"],
            uuid=response["user"]["uuid"],
            wallet_id=response["wallet"]["id"],
            token=response["access_token"],
            refresh_token=response["refresh_token"],
        )

    def login(self, email: str, password: str = PASSWORD) -> Answer:
        return self.post("/login", {"email": email, "password": password})

    def becomes(self, person: Person, role: str, admin: Person) -> Person:
        """The same person in another role, signed in again."""
        changed = self.call("PATCH", f"/users/{person.number}", {"role": role}, admin.token)
        assert changed.status == 200, changed
        return person._replace(token=self.login(person.email).json["access_token"])

    def cursor(self, inner: str) -> str:
        """A cursor of this ledger with any content."""
        return f"{self._ledger}:{EPOCH}:{inner}"

    def admin(self) -> Person:
        """The first admin, whom the settings name."""
        # Created in the background when the ingress starts.
        eventually(lambda: self.login(ADMIN_EMAIL).status == 200, START_S)
        response = self.login(ADMIN_EMAIL).json
        user = response["user"]
        return Person(
            ADMIN_EMAIL,
            user["id"],
            user["uuid"],
            "",
            response["access_token"],
            response["refresh_token"],
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
    """A ready ingress of a pipeline."""
    environment = {
        **pipeline.settings,
        "ADMIN_EMAIL": ADMIN_EMAIL,
        "ADMIN_PASSWORD": PASSWORD,
        **settings,
    }
    ingress = Ingress(folder, environment)
    try:
        yield ingress.start()
    finally:
        ingress.process.kill()
