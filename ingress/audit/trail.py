"""Writes the rows of the audit log that are not part of a request's own transaction.

Keeps the rule that an operator's command is in the log before it is sent to Kafka. Commands that
wait at the same time share a transaction. Anybody can cause any number of refusals, so they are
counted in memory and written every second: one row for each kind, within a budget of rows for each
source. A flood from strangers uses up only the strangers' budget.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog
from aiohttp import web
from msgspec import Struct
from msgspec.structs import replace

from ingress.audit import entries
from ingress.audit.entries import Event
from ingress.audit.refusals import Refusal, Source, refusal_of
from ingress.background import Background
from ingress.http.client_address import network_of
from ingress.http.problems import HttpProblem
from ingress.sql import queries
from plumbing.postgres.connection_pool import Pool

RETRY_S: Final = 0.5
MAX_ROWS_PER_INSERT: Final = 500
# How long a refusal may be in memory only.
FLUSH_INTERVAL_S: Final = 1.0
# For each ingress and source: rows at once, and how many rows a day refill that.
BURST_ROWS: Final = 1_000
ROWS_PER_DAY: Final = 14_400
# Beyond the budget there is one row for each action, this often.
OVERFLOW_INTERVAL_S: Final = 60.0
OVERFLOW_SUBJECT: Final = "others"
_DAY_S: Final = 86_400.0

log = structlog.stdlib.get_logger(__name__)


class _PendingEvent(Struct, frozen=True):
    event: Event
    written: "asyncio.Future[None]"


class AuditTrail(Background):
    def __init__(self, pool: Pool) -> None:
        super().__init__("audit log is waiting for Postgres", RETRY_S)
        self._pool = pool
        self._pending: list[_PendingEvent] = []
        self._wake = asyncio.Event()
        self._refusals = RefusalCounts(now=time.monotonic())

    async def add(self, event: Event) -> None:
        """Returns when the row is committed. Raises the error if that fails."""
        written = asyncio.get_running_loop().create_future()
        self._pending.append(_PendingEvent(event, written))
        self._wake.set()
        await written

    def add_problem(self, request: web.Request, problem: HttpProblem) -> None:
        if (refusal := refusal_of(request, problem)) is not None:
            self.add_refusal(refusal)

    def add_refusal(self, refusal: Refusal) -> None:
        """The refusal is written within about a second."""
        self._refusals.add(refusal)

    async def run_once(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_INTERVAL_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()
        batch = self._pending[:MAX_ROWS_PER_INSERT]
        self._pending = self._pending[MAX_ROWS_PER_INSERT:]
        if self._pending:
            self._wake.set()
        refusals = self._refusals.take_due(time.monotonic())
        if not batch and not refusals:
            return
        events = [pending.event for pending in batch] + [refusal.event for refusal in refusals]
        try:
            async with self._pool.connection() as connection:
                await entries.add(connection, events)
        except BaseException as error:
            self._refusals.put_back(refusals)
            for pending in batch:
                if not pending.written.done():
                    pending.written.set_exception(_error_for_request(error))
            raise
        for pending in batch:
            if not pending.written.done():
                pending.written.set_result(None)

    async def close(self) -> None:
        """Writes the refusals that are left, if Postgres answers."""
        await super().close()
        refusals = self._refusals.take_due(time.monotonic(), flush_overflow=True)
        if refusals:
            try:
                async with self._pool.connection() as connection:
                    await entries.add(connection, [refusal.event for refusal in refusals])
            except queries.UNAVAILABLE as error:
                log.warning(
                    "refusals lost from the audit log", rows=len(refusals), error=str(error)
                )


def _error_for_request(error: BaseException) -> BaseException:
    """The cancellation of this task must not cancel a waiting request."""
    return error if isinstance(error, Exception) else TimeoutError("the ingress stops")


class RefusalKind(NamedTuple):
    """Refusals that agree in all of this share a row. A client can change its address within its
    network at no cost, so the network counts."""

    action: str
    user_id: str | None
    key_id: str | None
    subject: str | None
    network: str | None


class RefusalCounts:
    """Refusals counted by kind, within a budget of rows for each source."""

    def __init__(
        self, burst: int = BURST_ROWS, per_day: int = ROWS_PER_DAY, now: float = 0.0
    ) -> None:
        self._budgets = {source: _Budget(burst, per_day, now) for source in Source}
        self._overflow_written_at = now

    def add(self, refusal: Refusal) -> None:
        self._budgets[refusal.source].add(refusal.event)

    def take_due(self, now: float, *, flush_overflow: bool = False) -> list[Refusal]:
        """The rows to write now."""
        flush_overflow |= now - self._overflow_written_at >= OVERFLOW_INTERVAL_S
        if flush_overflow:
            self._overflow_written_at = now
        return [
            Refusal(event, source)
            for source, budget in self._budgets.items()
            for event in budget.take(now, flush_overflow)
        ]

    def put_back(self, refusals: Sequence[Refusal]) -> None:
        """Takes back rows that could not be written."""
        for event, source in refusals:
            self._budgets[source].put_back(event)


class _Budget:
    def __init__(self, burst: int, per_day: int, now: float) -> None:
        self._burst = burst
        self._per_s = per_day / _DAY_S
        self._rows_left = float(burst)
        # The first event of each kind, with the count of all.
        self._events: dict[RefusalKind, Event] = {}
        self._overflow: Counter[str] = Counter()
        self._refilled_at = now

    def add(self, event: Event) -> None:
        network = network_of(event.address)
        kind = RefusalKind(event.action, event.user_id, event.key_id, event.subject, network)
        first = self._events.get(kind)
        if first is not None:
            self._events[kind] = replace(first, count=first.count + event.count)
        elif len(self._events) < self._burst and event.subject != OVERFLOW_SUBJECT:
            self._events[kind] = event
        else:
            self._overflow[event.action] += event.count

    def take(self, now: float, flush_overflow: bool) -> list[Event]:
        refill = max(0.0, now - self._refilled_at) * self._per_s
        self._rows_left = min(float(self._burst), self._rows_left + refill)
        self._refilled_at = now
        rows = []
        for event in self._events.values():
            if self._rows_left >= 1:
                self._rows_left -= 1
                rows.append(event)
            else:
                self._overflow[event.action] += event.count
        self._events.clear()
        if flush_overflow:
            rows += [
                Event(action=action, subject=OVERFLOW_SUBJECT, count=count)
                for action, count in self._overflow.items()
            ]
            self._overflow.clear()
        return rows

    def put_back(self, event: Event) -> None:
        self._rows_left += event.subject != OVERFLOW_SUBJECT
        self.add(event)
