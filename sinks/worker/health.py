"""What a sink shows over HTTP: /metrics, /health (alive) and /ready (all partitions run)."""

import asyncio
import threading

from prometheus_client import CollectorRegistry

from plumbing.failures import Failure
from plumbing.worker import health_server
from plumbing.worker.health_server import Readiness
from sinks.worker.group_member import Group
from sinks.worker.lane import SinkPhase


def start(group: Group, registry: CollectorRegistry, ledger_id: str, host: str, port: int) -> None:
    """In a thread of its own, until the process ends. Returns once it answers."""
    refused: list[OSError] = []
    told = threading.Event()

    def readiness() -> Readiness:
        phases = group.phases()
        running = all(phase is SinkPhase.RUNNING for phase in phases.values())
        return Readiness(group.assigned and running, phases)

    async def serve() -> None:
        try:
            await health_server.serve(readiness, registry, ledger_id, host, port)
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
