"""Revocations, which every ingress must know at once: ended sessions and, after a change of role,
all access tokens of a user.

The transaction that revokes sends a Postgres notification. Each ingress listens on its own
connection and sends itself heartbeats, so silence means a broken connection. After SILENCE_S
without a notification, an ingress queries Postgres for each request instead. Revocations are kept
for the lifetime of an access token.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import psycopg
from msgspec import Struct

from ingress.auth.access_tokens import Access
from ingress.background import Background
from ingress.sql import queries
from plumbing.postgres import connection_pool
from plumbing.postgres.connection_pool import Connection

CHANNEL: Final = "ledger_revocations"
SESSION: Final = "session"
USER: Final = "user"
KEY: Final = "api_key"
HEARTBEAT: Final = "heartbeat"
PAUSE_S: Final = 0.5
# Shorter than the connection's answer timeout, which also limits a wait for notifications.
HEARTBEAT_S: Final = 4.0
SILENCE_S: Final = 20.0
LOAD_TIMEOUT_S: Final = 30.0
# The ingress that reads an access token decides by its own clock whether it has expired.
CLOCK_SKEW_S: Final = 300.0


class _RevocationRow(Struct, frozen=True):
    kind: str
    id: str
    counter: int


class _Revoked(NamedTuple):
    counter: int
    heard_at: float


class Revocations(Background):
    def __init__(
        self,
        database_url: str,
        application: str,
        access_ttl_s: int,
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        super().__init__("not receiving revocations", PAUSE_S)
        self._url = database_url
        self._application = application
        self._kept_s = access_ttl_s + CLOCK_SKEW_S
        self._silence_s = silence_s
        self._sessions: dict[str, float] = {}
        self._users: dict[str, _Revoked] = {}
        self._listeners: list[Callable[[], None]] = []
        self._heard_at = float("-inf")
        # Whether the revocations from before the start have been loaded.
        self.loaded = False
        self.count = 0

    def subscribe(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    @property
    def current(self) -> bool:
        """Whether the revocations in memory are complete. If not, query Postgres."""
        return time.monotonic() - self._heard_at < self._silence_s

    def is_revoked(self, access: Access) -> bool:
        if access.caller.session_id in self._sessions:
            return True
        revoked = self._users.get(access.caller.id)
        return revoked is not None and access.counter < revoked.counter

    def receive(self, payload: str) -> None:
        """Applies a notification, in the format that the SQL files write."""
        self._heard_at = time.monotonic()
        kind, _, rest = payload.partition(" ")
        if kind == HEARTBEAT:
            return
        if kind == SESSION:
            for id in rest.split(","):
                self._record(kind, id)
        elif kind == USER:
            id, _, counter = rest.partition(" ")
            self._record(kind, id, int(counter))
        self._notify_listeners()

    def _record(self, kind: str, id: str, counter: int = 0) -> None:
        now = time.monotonic()
        if kind == SESSION:
            self._sessions[id] = now
        else:
            previous = self._users.get(id)
            self._users[id] = _Revoked(max(counter, previous.counter if previous else 0), now)

    def _notify_listeners(self) -> None:
        """Caches of callers and users may be stale."""
        self.count += 1
        for listener in self._listeners:
            listener()

    async def run_once(self) -> None:
        # This connection closes if the server does not answer in time.
        connection = await Connection.connect(
            self._url,
            autocommit=True,
            application_name=self._application,
            connect_timeout=connection_pool.CONNECT_TIMEOUT_S,
        )
        async with connection:
            # Listen before loading, so that no revocation is missed in between.
            await connection.execute(f"LISTEN {CHANNEL}")
            connection.answer_timeout_s = LOAD_TIMEOUT_S
            for each in await queries.every(
                connection, "revocations", _RevocationRow, kept_s=self._kept_s
            ):
                self._record(each.kind, each.id, each.counter)
            connection.answer_timeout_s = connection_pool.ANSWER_TIMEOUT_S
            self._notify_listeners()
            self.loaded = True
            connected_at = time.monotonic()
            while True:
                # A heartbeat that comes back proves that notifications are received.
                await queries.run(
                    connection, "revocation_heartbeat", channel=CHANNEL, heartbeat=HEARTBEAT
                )
                async for notification in connection.notifies(timeout=HEARTBEAT_S):
                    self.receive(notification.payload)
                silent_since = max(self._heard_at, connected_at)
                if time.monotonic() - silent_since >= self._silence_s:
                    raise psycopg.OperationalError("no heartbeats received")
                self._forget(time.monotonic() - self._kept_s)

    def _forget(self, before: float) -> None:
        for id in [id for id, heard_at in self._sessions.items() if heard_at < before]:
            del self._sessions[id]
        for id in [id for id, revoked in self._users.items() if revoked.heard_at < before]:
            del self._users[id]
