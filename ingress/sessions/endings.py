"""What was ended before its time, as every ingress must know at once: sessions and, after a change
of role, all that a user held.

Postgres tells it with NOTIFY in the transaction that does it; who was not listening asks for what
it missed, and asks again until it can hear. Endings are kept as long as an access token lives.
"""

import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from msgspec import Struct

from ingress import queries
from ingress.background import Background
from ingress.sessions.access import Access

CHANNEL: Final = "ledger_endings"
SESSION: Final = "session"
USER: Final = "user"
KEY: Final = "key"
PAUSE_S: Final = 0.5
ALIVE_S: Final = 10.0
# Clocks of ingresses and Postgres differ a little.
SLACK_S: Final = 60.0


class Ending(Struct, frozen=True):
    kind: str
    id: str
    at: float


class Endings(Background):
    def __init__(self, database_url: str, application: str, access_ttl_s: int) -> None:
        super().__init__("endings are not heard of", PAUSE_S)
        self._url = database_url
        self._application = application
        self._kept_s = access_ttl_s + SLACK_S
        self._sessions: dict[str, float] = {}
        self._users: dict[str, float] = {}
        self._then: list[Callable[[], None]] = []
        self.count = 0

    def on_any(self, act: Callable[[], None]) -> None:
        self._then.append(act)

    def ended(self, access: Access) -> bool:
        if access.caller.session_id in self._sessions:
            return True
        since = self._users.get(access.caller.id)
        return since is not None and access.made_at < since

    def note(self, kind: str, id: str, at: float) -> None:
        if kind == SESSION:
            self._sessions[id] = at
        elif kind == USER:
            self._users[id] = max(at, self._users.get(id, 0.0))
        self.count += 1
        for act in self._then:
            act()

    async def turn(self) -> None:
        connection: psycopg.AsyncConnection[Any] = await psycopg.AsyncConnection.connect(
            self._url, autocommit=True, application_name=self._application, connect_timeout=5
        )
        async with connection:
            # First listen, then ask: nothing lies between.
            await connection.execute(f"LISTEN {CHANNEL}")
            for each in await queries.every(connection, "endings", Ending, kept_s=self._kept_s):
                self.note(each.kind, each.id, each.at)
            while True:
                async for told in connection.notifies(timeout=ALIVE_S):
                    kind, id, at = told.payload.split(" ")
                    self.note(kind, id, float(at))
                await connection.execute("SELECT 1")
                self._forget(time.time() - self._kept_s)

    def _forget(self, before: float) -> None:
        for known in (self._sessions, self._users):
            for id in [id for id, at in known.items() if at < before]:
                del known[id]
