"""What a sink shows over HTTP: /metrics, /health (alive) and /ready (all partitions run)."""

import asyncio
import threading

from aiohttp import web
from prometheus_client import CollectorRegistry

from plumbing import metrics
from plumbing.failures import Failure
from sinks.group import Group
from sinks.owner import Phase


def start(group: Group, registry: CollectorRegistry, ledger_id: str, host: str, port: int) -> None:
    """In a thread of its own, until the process ends. Returns once it answers."""
    refused: list[OSError] = []
    told = threading.Event()

    async def serve() -> None:
        try:
            await _serve(group, registry, ledger_id, host, port)
        except OSError as error:
            refused.append(error)
            told.set()
            return
        told.set()
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(serve(),), name="web", daemon=True).start()
    told.wait()
    if refused:
        raise Failure(f"METRICS_PORT={port} on {host} cannot be opened: {refused[0].strerror}")


async def _serve(
    group: Group, registry: CollectorRegistry, ledger_id: str, host: str, port: int
) -> None:
    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "ledger": ledger_id})

    async def ready(_: web.Request) -> web.Response:
        phases = group.phases()
        there = group.assigned and all(phase is Phase.RUNNING for phase in phases.values())
        told = {str(partition): phase for partition, phase in phases.items()}
        return web.json_response(
            {"status": "ready" if there else "not ready", "partitions": told},
            status=200 if there else 503,
        )

    app = web.Application()
    app.router.add_get("/metrics", metrics.handler(registry))
    app.router.add_get("/health", health)
    app.router.add_get("/ready", ready)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
