"""The HTTP server of a service without an API: /metrics, /health (alive) and /ready (all of its
partitions run). It must not know what the phases are.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry

from plumbing import metrics


class Readiness(NamedTuple):
    ready: bool
    phases: Mapping[int, str]


async def serve(
    readiness: Callable[[], Readiness],
    registry: CollectorRegistry,
    ledger_id: str,
    host: str,
    port: int,
) -> web.AppRunner:
    """Returns once it answers. An address that cannot be opened is an OSError."""

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "ledger": ledger_id})

    async def ready(_: web.Request) -> web.Response:
        is_ready, phases = readiness()
        return web.json_response(
            {
                "status": "ready" if is_ready else "not ready",
                "partitions": {str(partition): phase for partition, phase in phases.items()},
            },
            status=200 if is_ready else 503,
        )

    app = web.Application()
    app.router.add_get("/metrics", metrics.handler(registry))
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
