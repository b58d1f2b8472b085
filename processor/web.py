"""What a processor shows over HTTP: /metrics, /health (alive) and /ready (all partitions run)."""

from aiohttp import web
from prometheus_client import CollectorRegistry

from plumbing import metrics
from processor.ledger import Ledger
from processor.owner import Phase


async def serve(ledger: Ledger, registry: CollectorRegistry, host: str, port: int) -> web.AppRunner:
    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "ledger": ledger.identity.ledger_id})

    async def ready(_: web.Request) -> web.Response:
        phases = ledger.phases()
        there = ledger.assigned and all(phase is Phase.RUNNING for phase in phases.values())
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
    return runner
