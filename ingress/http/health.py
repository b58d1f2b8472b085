"""/health reports the version and the dependencies, /ready whether to send this ingress requests.

Both probe the broker and the database, at most once a second in total. Responses contain no address
and no error text; the log has them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec
import structlog

from ingress.http.roles import PUBLIC
from ingress.http.routes import Answer, Call, ResponseModel, Route

PROBE_TIMEOUT_S = 2.0
FRESH_S = 1.0

# Returns None if reachable, or the error text. Takes at most PROBE_TIMEOUT_S; never raises.
Probe = Callable[[float], Awaitable[str | None]]

log = structlog.stdlib.get_logger(__name__)


class DependencyHealth(ResponseModel):
    reachable: bool


class HealthResponse(ResponseModel):
    name: str
    service: str
    version: str
    ledger: str
    environment: str
    status: Literal["ok", "degraded"]
    uptime_s: float
    kafka: DependencyHealth
    postgres: DependencyHealth


class ReadyResponse(ResponseModel):
    ready: bool
    kafka: bool
    postgres: bool


@dataclass(slots=True)
class Health:
    about: Mapping[str, str]
    probes: Mapping[str, Probe]
    started_at: float = field(default_factory=time.monotonic)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _checked_at: float = float("-inf")
    _reachable: dict[str, bool] = field(default_factory=dict)

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/health",
                handler=self.health,
                summary="Version and dependencies",
                tag="About",
                roles=PUBLIC,
                answers={200: HealthResponse},
                versioned=False,
            ),
            Route(
                method="GET",
                path="/ready",
                handler=self.ready,
                summary="Readiness",
                tag="About",
                roles=PUBLIC,
                answers={200: ReadyResponse, 503: ReadyResponse},
                versioned=False,
            ),
        ]

    async def health(self, _: Call[None, None]) -> Answer:
        reachable = await self._probe()
        report = {
            **self.about,
            "status": "ok" if all(reachable.values()) else "degraded",
            "uptime_s": round(time.monotonic() - self.started_at, 3),
            **{part: {"reachable": is_reachable} for part, is_reachable in reachable.items()},
        }
        return Answer(msgspec.json.encode(report))

    async def ready(self, _: Call[None, None]) -> Answer:
        reachable = await self._probe()
        ready = all(reachable.values())
        report = msgspec.json.encode({"ready": ready, **reachable})
        return Answer(report, 200 if ready else 503)

    async def _probe(self) -> dict[str, bool]:
        async with self._lock:
            if time.monotonic() - self._checked_at >= FRESH_S:
                errors = await asyncio.gather(
                    *(probe(PROBE_TIMEOUT_S) for probe in self.probes.values())
                )
                self._log_changes(dict(zip(self.probes, errors, strict=True)))
                self._checked_at = time.monotonic()
        return self._reachable

    def _log_changes(self, errors: dict[str, str | None]) -> None:
        for part, error in errors.items():
            was_reachable = self._reachable.get(part, True)
            if error is not None and was_reachable:
                log.warning("dependency unreachable", part=part, error=error)
            if error is None and not was_reachable:
                log.info("dependency reachable again", part=part)
        self._reachable = {part: error is None for part, error in errors.items()}
