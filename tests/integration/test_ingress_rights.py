"""What somebody holds ends when it must: by the most that one may have, by an admin, by a changed
role that no cache hides, and where notifications are not heard.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import psycopg
import pytest
from aiohttp.test_utils import make_mocked_request

from ingress.auth.access_tokens import AccessTokens
from ingress.auth.authenticator import Authenticator
from ingress.auth.revocations import Revocations
from ingress.auth.signing_keys import SigningKeys
from ingress.http.problems import HttpProblem
from ingress.http.roles import UserRole
from ingress.http.routes import Caller
from plumbing.postgres import connection_pool
from tests.testkit.ledger_api import NEW_KEY, PASSWORD, Answer, Api, Ingress, Person, beside
from tests.testkit.waiting import eventually

MOST = 3
AT_ONCE = 12
# The first byte of that message from the server.
NOTIFICATION = b"A"


@pytest.fixture(scope="module")
def few(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    """An ingress where nobody has many sessions or keys."""
    folder = tmp_path_factory.mktemp("few")
    most = {"SESSIONS_PER_USER": str(MOST), "API_KEYS_PER_USER": str(MOST)}
    with beside(api.pipeline, folder, **most) as ingress:
        yield ingress


def me(ingress: Ingress, token: str) -> int:
    return ingress.get("/me", token).status


def ids(answer: Answer) -> list[str]:
    return [each["id"] for each in answer.json["data"]]


def key_of(ingress: Ingress, person: Person, **more: Any) -> Answer:
    made = ingress.post("/api-keys", {**NEW_KEY, **more}, person.token)
    assert made.status == 201, made
    return made


def test_the_oldest_session_ends_when_there_are_too_many(few: Ingress) -> None:
    ada = few.person()
    later = [few.login(ada.email).json["access_token"] for _ in range(MOST)]
    eventually(lambda: me(few, ada.token) == 401)
    assert [me(few, token) for token in later] == [200] * MOST
    # Refreshing begins none.
    with ThreadPoolExecutor(AT_ONCE) as threads:
        done = list(threads.map(lambda _: few.login(ada.email), range(AT_ONCE)))
    assert {answer.status for answer in done} == {200}
    tokens = [answer.json["access_token"] for answer in done]
    eventually(lambda: sorted(me(few, token) for token in tokens) == [200] * MOST + [401] * 9)
    assert len(ids(few.get("/sessions", next(t for t in tokens if me(few, t) == 200)))) == MOST


def test_the_oldest_key_ends_when_there_are_too_many(few: Ingress) -> None:
    ada = few.person()
    first, *others = [key_of(few, ada, name=f"{number}").json for number in range(MOST)]
    assert first["ended"] == []
    assert me(few, first["key"]) == 200
    new = key_of(few, ada).json
    assert new["ended"] == [first["id"]]
    eventually(lambda: me(few, first["key"]) == 401)
    assert {me(few, each["key"]) for each in (new, *others)} == {200}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        made = list(threads.map(lambda _: key_of(few, ada).json["id"], range(AT_ONCE)))
    left = ids(few.get("/api-keys", ada.token))
    assert len(left) == MOST
    assert set(left) <= set(made)


def test_a_key_needs_the_password_and_expires(api: Api) -> None:
    ingress, ada = api.ingress, api.ingress.person()
    without = {name: given for name, given in NEW_KEY.items() if name != "current_password"}
    assert ingress.post("/api-keys", without, ada.token).code == "fields_invalid"
    wrong = ingress.post("/api-keys", {**NEW_KEY, "current_password": "a guess"}, ada.token)
    assert (wrong.status, wrong.code) == (401, "credentials_wrong")
    assert ids(ingress.get("/api-keys", ada.token)) == []

    def expires(**more: str) -> timedelta:
        told = key_of(ingress, ada, **more).json
        return datetime.fromisoformat(told["expires_at"]) - datetime.fromisoformat(
            told["created_at"]
        )

    assert abs(expires() - timedelta(days=90)) < timedelta(minutes=5)
    near = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    assert abs(expires(expires_at=near) - timedelta(days=2)) < timedelta(minutes=5)
    far = (datetime.now(UTC) + timedelta(days=367)).isoformat()
    refused = ingress.post("/api-keys", {**NEW_KEY, "expires_at": far}, ada.token)
    assert (refused.code, refused.json["errors"][0]["field"]) == ("fields_invalid", "expires_at")


def test_an_expired_key_is_refused_and_counts_no_more(few: Ingress) -> None:
    ada = few.person()
    soon = (datetime.now(UTC) + timedelta(seconds=3)).isoformat()
    expiring = key_of(few, ada, expires_at=soon).json
    others = [key_of(few, ada, name=f"{number}").json for number in range(MOST - 1)]
    assert me(few, expiring["key"]) == 200
    # No notification says so: also where it is remembered.
    eventually(lambda: me(few, expiring["key"]) == 401)
    assert ids(few.get("/api-keys", ada.token)) == [each["id"] for each in reversed(others)]
    new = key_of(few, ada).json
    assert new["ended"] == []
    assert {me(few, each["key"]) for each in (new, *others)} == {200}


def test_keys_end_at_a_password_change_on_request(ingress: Ingress) -> None:
    ada = ingress.person()
    key = key_of(ingress, ada).json["key"]
    asked: dict[str, Any] = {"current_password": PASSWORD, "password": "battery staple"}
    assert ingress.post("/auth/password", asked, ada.token).status == 204
    assert me(ingress, key) == 200
    asked = {
        "current_password": "battery staple",
        "password": "battery horse",
        "end_api_keys": True,
    }
    assert ingress.post("/auth/password", asked, ada.token).status == 204
    eventually(lambda: me(ingress, key) == 401)
    assert ids(ingress.get("/api-keys", ada.token)) == []
    assert me(ingress, ada.token) == 200


def test_keys_of_who_is_disabled_do_not_come_back(ingress: Ingress) -> None:
    admin, ada = ingress.admin(), ingress.person()
    key = key_of(ingress, ada).json["key"]
    path = f"/users/{ada.number}"
    for disabled in (True, False):
        changed = ingress.call("PATCH", path, {"disabled": disabled}, admin.token)
        assert changed.json["disabled"] is disabled
    eventually(lambda: me(ingress, key) == 401)
    eventually(lambda: me(ingress, ada.token) == 401)
    refreshed = ingress.post("/auth/refresh", {"refresh_token": ada.refresh_token})
    assert refreshed.code == "refresh_invalid"
    assert ids(ingress.get(f"{path}/api-keys", admin.token)) == []
    assert ids(ingress.get(f"{path}/sessions", admin.token)) == []
    assert ingress.login(ada.email).status == 200


def test_an_admin_lists_and_ends_what_others_hold(api: Api) -> None:
    ingress, admin, ada = api.ingress, api.ingress.admin(), api.ingress.person()
    other = ingress.login(ada.email).json
    keys = [key_of(ingress, ada).json for _ in range(3)]
    path = f"/users/{ada.number}"
    listed = ingress.get(f"{path}/sessions", admin.token)
    assert [each["current"] for each in listed.json["data"]] == [False, False]
    newest, first = ids(listed)
    assert ids(ingress.get(f"/users/{ada.uuid}/api-keys", admin.token)) == [
        each["id"] for each in reversed(keys)
    ]
    assert "slk_" not in ingress.get(f"{path}/api-keys", admin.token).text

    # Each under its own user only.
    elsewhere = f"/users/{admin.number}/sessions/{newest}"
    assert ingress.call("DELETE", elsewhere, token=admin.token).code == "not_found"
    for one in (f"{path}/sessions/{newest}", f"{path}/api-keys/{keys[0]['id']}"):
        assert ingress.call("DELETE", one, token=ada.token).code == "forbidden"
        assert ingress.call("DELETE", one, token=admin.token).status == 204
        assert ingress.call("DELETE", one, token=admin.token).code == "not_found"
    eventually(lambda: me(ingress, other["access_token"]) == 401)
    eventually(lambda: me(ingress, keys[0]["key"]) == 401)
    assert me(ingress, ada.token) == 200
    assert ids(ingress.get("/sessions", ada.token)) == [first]

    assert ingress.call("DELETE", f"{path}/sessions", token=admin.token).status == 204
    eventually(lambda: me(ingress, ada.token) == 401)
    refreshed = ingress.post("/auth/refresh", {"refresh_token": ada.refresh_token})
    assert refreshed.code == "refresh_invalid"
    assert me(ingress, keys[1]["key"]) == 200
    assert ingress.call("DELETE", f"{path}/api-keys", token=admin.token).status == 204
    eventually(lambda: {me(ingress, each["key"]) for each in keys} == {401})
    told = ingress.get(f"/audit?user={admin.number}&limit=4", admin.token).json["data"]
    assert [(each["action"], each["subject"]) for each in told] == [
        ("revoked all API keys of a user", ada.uuid),
        ("ended all sessions of a user", ada.uuid),
        ("revoked an API key of a user", ada.uuid),
        ("ended a session of a user", ada.uuid),
    ]


def test_ending_all_sessions_is_one_notification(ingress: Ingress, api: Api) -> None:
    admin, ada = ingress.admin(), ingress.person()
    for _ in range(5):
        ingress.login(ada.email)
    mine = ingress.login(ada.email).json["access_token"]
    asked = {"current_password": PASSWORD, "password": "battery staple"}
    with psycopg.connect(api.database, autocommit=True) as connection:
        connection.execute("LISTEN ledger_revocations")
        assert ingress.post("/auth/password", asked, mine).status == 204
        ended = ingress.call("DELETE", f"/users/{ada.number}/sessions", token=admin.token)
        assert ended.status == 204
        connection.execute("SELECT pg_notify('ledger_revocations', 'heartbeat last')")
        heard: list[str] = []
        for notification in connection.notifies(timeout=30):
            if notification.payload == "heartbeat last":
                break
            heard.append(notification.payload)
    told = [payload.split(" ") for payload in heard if payload != "heartbeat"]
    assert [each[0] for each in told] == ["session", "user"]
    assert len(told[0][1].split(",")) == 6
    assert told[1][1] == ada.uuid


def role(token: str) -> str:
    return str(jwt.decode(token, options={"verify_signature": False})["role"])


def test_a_demoted_operator_gets_no_fresh_operator_token(api: Api, tmp_path: Path) -> None:
    """From an ingress that remembers the user as an operator, and is not notified."""
    admin, ada = api.ingress.admin(), api.ingress.person()
    api.ingress.becomes(ada, UserRole.OPERATOR, admin)
    token = api.ingress.login(ada.email).json
    assert role(token["access_token"]) == "operator"
    # Remembers: it was asked for the user.
    assert api.ingress.get("/me", token["access_token"]).json["role"] == "operator"
    with psycopg.connect(api.database, autocommit=True) as connection:
        connection.execute("UPDATE ledger.users SET role = 'user' WHERE id = %s", (ada.uuid,))
    refreshed = api.ingress.post("/auth/refresh", {"refresh_token": token["refresh_token"]})
    assert role(refreshed.json["access_token"]) == "user"
    assert role(api.ingress.login(ada.email).json["access_token"]) == "user"


class Proxy:
    """Before Postgres: it can keep back notifications, or everything."""

    def __init__(self, database: str) -> None:
        self._parts = urlsplit(database)
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._muted = self._frozen = False
        self._freeze_at: bytes | None = None
        self.connections = 0

    async def start(self) -> str:
        """Its own URL. Without TLS, so that it can read what passes."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        where = f"{self._parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        return self._parts._replace(netloc=where, query="sslmode=disable").geturl()

    def mute(self) -> None:
        self._muted = True

    def freeze(self) -> None:
        self._frozen = True

    def freeze_at(self, words: bytes) -> None:
        """As soon as a client sends them."""
        self._freeze_at = words

    def thaw(self) -> None:
        """For new connections: what was sent before is lost."""
        self._frozen, self._freeze_at = False, None

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        host, port = self._parts.hostname, self._parts.port
        server_reader, server_writer = await asyncio.open_connection(host, port)
        self._writers += [writer, server_writer]
        for copying in (self._up(reader, server_writer), self._down(server_reader, writer)):
            task = asyncio.ensure_future(copying)
            self._running.add(task)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._freeze_at is not None and self._freeze_at in data:
                self._frozen = True
            if not self._frozen:
                writer.write(data)
        writer.close()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(5)
                body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
                if not self._frozen and not (self._muted and head[:1] == NOTIFICATION):
                    writer.write(head + body)
        writer.close()


class Listening:
    """A guard, and the listener that it relies on."""

    def __init__(self, heard_at: str, database: str, silence_s: float) -> None:
        keys = SigningKeys([b"k" * 40])
        self.access = AccessTokens(keys, "books", 900)
        self.revocations = Revocations(heard_at, "listening", 900, silence_s=silence_s)
        self.pool = connection_pool.pool(database, 2, "test")
        self.authenticator = Authenticator(self.pool, keys, self.access, self.revocations)

    async def taken(self, token: str) -> bool:
        request = make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {token}"})
        try:
            return await self.authenticator.caller(request) is not None
        except HttpProblem:
            return False


@pytest.fixture
def user(database: str) -> Iterator[tuple[Caller, psycopg.Connection[Any]]]:
    with psycopg.connect(database, autocommit=True) as connection:
        row = connection.execute(
            "INSERT INTO ledger.users (id, email) VALUES ('ada', 'ada@example.com')"
            " RETURNING number"
        ).fetchone()
        session = connection.execute(
            "INSERT INTO ledger.tokens (hash, kind, user_id, expires_at)"
            " VALUES ('x', 'session', 'ada', now() + interval '1 day') RETURNING id::text"
        ).fetchone()
        assert row is not None and session is not None
        yield Caller("ada", row[0], UserRole.USER, session[0]), connection


@pytest.fixture
async def listening(database: str) -> AsyncIterator[Listening]:
    made = Listening(database, database, silence_s=6.0)
    await made.pool.open()
    try:
        yield made
    finally:
        await made.revocations.close()
        await made.pool.close()


async def until(made: Listening, wanted: bool) -> None:
    await asyncio.to_thread(eventually, lambda: made.revocations.current == wanted, 60)


async def test_a_lower_counter_than_the_users_is_refused(
    listening: Listening, user: tuple[Caller, psycopg.Connection[Any]]
) -> None:
    caller, connection = user
    listening.revocations.start()
    await until(listening, True)
    before = listening.access.make(caller, 0)
    assert await listening.taken(before)
    connection.execute(
        "UPDATE ledger.users SET token_counter = 1, tokens_revoked_at = now() WHERE id = 'ada'"
    )
    count = listening.revocations.count
    connection.execute("SELECT pg_notify('ledger_revocations', 'user ada 1')")
    await asyncio.to_thread(eventually, lambda: listening.revocations.count > count, 30)
    assert not await listening.taken(before)
    # By no clock: one made in the same moment is accepted or refused by its counter alone.
    assert await listening.taken(listening.access.make(caller, 1))
    assert not await listening.taken(listening.access.make(caller, 0))


async def test_before_the_first_load_postgres_decides(
    listening: Listening, user: tuple[Caller, psycopg.Connection[Any]]
) -> None:
    caller, connection = user
    token = listening.access.make(caller, 0)
    assert not listening.revocations.loaded
    assert await listening.taken(token)
    connection.execute("UPDATE ledger.users SET token_counter = 1 WHERE id = 'ada'")
    assert not await listening.taken(token)
    assert await listening.taken(listening.access.make(caller, 1))
    connection.execute("UPDATE ledger.tokens SET revoked_at = now()")
    assert not await listening.taken(listening.access.make(caller, 1))


@pytest.mark.parametrize("cut", [Proxy.mute, Proxy.freeze])
async def test_who_hears_nothing_asks_postgres(
    database: str, user: tuple[Caller, psycopg.Connection[Any]], cut: Callable[[Proxy], None]
) -> None:
    """Queries are answered and no notification comes, as through a pooling proxy; or nothing is
    answered at all, as when the network is cut."""
    caller, connection = user
    proxy = Proxy(database)
    url = await proxy.start()
    made = Listening(url, database, silence_s=6.0)
    await made.pool.open()
    try:
        made.revocations.start()
        await until(made, True)
        token = made.access.make(caller, 0)
        assert await made.taken(token)
        cut(proxy)
        connection.execute("UPDATE ledger.tokens SET revoked_at = now()")
        connection.execute(
            "SELECT pg_notify('ledger_revocations', 'session ' || %s)", (caller.session_id,)
        )
        await until(made, False)
        assert not await made.taken(token)
    finally:
        await made.revocations.close()
        await made.pool.close()
        await proxy.close()


@pytest.mark.parametrize("moment", [b"", b"LISTEN ledger_revocations", b"tokens_revoked_at"])
async def test_a_server_that_gives_no_answer_is_left_for_a_new_connection(
    database: str,
    user: tuple[Caller, psycopg.Connection[Any]],
    monkeypatch: pytest.MonkeyPatch,
    moment: bytes,
) -> None:
    """While it connects, listens or loads."""
    monkeypatch.setattr("ingress.auth.revocations.LOAD_TIMEOUT_S", 5.0)
    caller, connection = user
    connection.execute("UPDATE ledger.tokens SET revoked_at = now()")
    proxy = Proxy(database)
    url = await proxy.start()
    proxy.freeze_at(moment)
    made = Listening(url, database, silence_s=6.0)
    await made.pool.open()
    try:
        made.revocations.start()
        await asyncio.to_thread(eventually, lambda: proxy.connections > 1, 60)
        assert not made.revocations.loaded
        assert not made.revocations.current
        proxy.thaw()
        await until(made, True)
        token = made.access.make(caller, 0)
        access = made.access.read(token)
        assert access is not None
        assert made.revocations.is_revoked(access)
    finally:
        await made.revocations.close()
        await made.pool.close()
        await proxy.close()


def test_after_20_seconds_of_silence_it_relies_on_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    revocations = Revocations("", "listening", 900)
    assert not revocations.current
    now = time.monotonic()

    def current_after(seconds: float) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr("ingress.auth.revocations.time.monotonic", lambda: now)
            revocations.receive("heartbeat")
            patch.setattr("ingress.auth.revocations.time.monotonic", lambda: now + seconds)
            return revocations.current

    assert current_after(19.9)
    assert not current_after(20.1)
