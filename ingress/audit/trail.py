"""Rows of the audit log that are written outside of a request's own transaction.

What an operator sends to the ledger is written before it is handed to Kafka: a command that is
there has a row. All that wait at the same moment share one transaction. Refusals, which anybody can
cause as often as they like, are counted in memory and written every second, those of one kind as
one row; rows for them are drawn from a budget, and beyond it they are counted together.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog
from msgspec import Struct

from ingress import queries
from ingress.audit import entries
from ingress.audit.entries import Event
from ingress.background import Background
from plumbing.postgres.connection_pool import Pool

RETRY_S: Final = 0.5
MOST_AT_ONCE: Final = 500
# How long a refusal may be in memory only.
REFUSALS_EVERY_S: Final = 1.0
# Of one ingress: rows for refusals at once, and how many are added to that within a day.
REFUSALS_AT_ONCE: Final = 1_000
REFUSALS_PER_DAY: Final = 14_400
# Beyond the budget there is one row for each action, this often.
OTHERS_EVERY_S: Final = 60.0
OTHERS: Final = "others"
_DAY_S: Final = 86_400.0

log = structlog.stdlib.get_logger(__name__)


class _Waiting(Struct, frozen=True):
    event: Event
    written: "asyncio.Future[None]"


class AuditTrail(Background):
    def __init__(self, pool: Pool) -> None:
        super().__init__("the audit log waits for Postgres", RETRY_S)
        self._pool = pool
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._refusals = Refusals(now=time.monotonic())

    async def add(self, event: Event) -> None:
        """Returns when it is committed. Raises what keeps Postgres from that."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(event, written))
        self._wake.set()
        await written

    def refused(self, event: Event) -> None:
        """Is written within a second or so."""
        self._refusals.add(event)

    async def turn(self) -> None:
        try:
            async with asyncio.timeout(REFUSALS_EVERY_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        taken, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
        if self._waiting:
            self._wake.set()
        refusals = self._refusals.due(time.monotonic())
        if not taken and not refusals:
            return
        try:
            async with self._pool.connection() as connection:
                await entries.add(connection, [*(each.event for each in taken), *refusals])
        except BaseException as error:
            self._refusals.put_back(refusals)
            for each in taken:
                if not each.written.done():
                    each.written.set_exception(_of_request(error))
            raise
        for each in taken:
            if not each.written.done():
                each.written.set_result(None)

    async def close(self) -> None:
        """What was refused until now is written, where Postgres answers."""
        await super().close()
        left = self._refusals.due(time.monotonic(), all_of_them=True)
        if left:
            try:
                async with self._pool.connection() as connection:
                    await entries.add(connection, left)
            except queries.AWAY as error:
                log.warning("refusals are not in the audit log", rows=len(left), error=str(error))


def _of_request(error: BaseException) -> BaseException:
    """A request that waits is not cancelled because this task is."""
    return error if isinstance(error, Exception) else TimeoutError("the ingress stops")


class RefusalKind(NamedTuple):
    """Refusals that differ in nothing of this are one row."""

    action: str
    user_id: str | None
    key_id: str | None
    subject: str | None
    address: str | None


class _RefusalCount(NamedTuple):
    times: int
    trace: str | None  # of the first


class Refusals:
    """Counted by kind, within a budget of rows."""

    def __init__(
        self, at_once: int = REFUSALS_AT_ONCE, per_day: int = REFUSALS_PER_DAY, now: float = 0.0
    ) -> None:
        self._at_once = at_once
        self._per_s = per_day / _DAY_S
        self._rows_left = float(at_once)
        self._counted: dict[RefusalKind, _RefusalCount] = {}
        self._others: Counter[str] = Counter()
        self._looked_at = now
        self._others_at = now

    def add(self, event: Event) -> None:
        kind = RefusalKind(event.action, event.user_id, event.key_id, event.subject, event.address)
        before = self._counted.get(kind)
        if before is not None:
            self._counted[kind] = before._replace(times=before.times + event.count)
        elif len(self._counted) < self._at_once and event.subject != OTHERS:
            self._counted[kind] = _RefusalCount(event.count, event.trace)
        else:
            self._others[event.action] += event.count

    def due(self, now: float, *, all_of_them: bool = False) -> list[Event]:
        """The rows that are to be written now."""
        gained = max(0.0, now - self._looked_at) * self._per_s
        self._rows_left = min(float(self._at_once), self._rows_left + gained)
        self._looked_at = now
        found = []
        for kind, counted in self._counted.items():
            if self._rows_left >= 1:
                self._rows_left -= 1
                found.append(Event(**kind._asdict(), trace=counted.trace, count=counted.times))
            else:
                self._others[kind.action] += counted.times
        self._counted.clear()
        if self._others and (all_of_them or now - self._others_at >= OTHERS_EVERY_S):
            self._others_at = now
            found += [
                Event(action=action, subject=OTHERS, count=count)
                for action, count in self._others.items()
            ]
            self._others.clear()
        return found

    def put_back(self, events: Sequence[Event]) -> None:
        """They were not written."""
        for event in events:
            self._rows_left += event.subject != OTHERS
            self.add(event)
