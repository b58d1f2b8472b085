"""A processor's health server: /metrics, /health (alive) and /ready (all partitions run)."""

from aiohttp import web
from prometheus_client import CollectorRegistry

from plumbing.worker import health_server
from plumbing.worker.health_server import Readiness
from processor.lanes.lane import LanePhase
from processor.lanes.supervisor import LaneSupervisor


async def serve(
    lanes: LaneSupervisor, registry: CollectorRegistry, host: str, port: int
) -> web.AppRunner:
    def readiness() -> Readiness:
        phases = lanes.phases()
        running = all(phase is LanePhase.RUNNING for phase in phases.values())
        return Readiness(lanes.assigned and running, phases)

    return await health_server.serve(readiness, registry, lanes.identity.ledger_id, host, port)
