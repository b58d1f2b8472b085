"""A sink's health server: /metrics, /health (alive) and /ready (all partitions run)."""

import asyncio
import threading

from prometheus_client import CollectorRegistry

from plumbing.failures import Failure
from plumbing.worker import health_server
from plumbing.worker.health_server import Readiness
from sinks.worker.group_member import GroupMember
from sinks.worker.lane import SinkPhase


def start(
    member: GroupMember, registry: CollectorRegistry, ledger_id: str, host: str, port: int
) -> None:
    """Serves in a thread of its own until the process ends. Returns once it answers."""
    errors: list[OSError] = []
    started = threading.Event()

    def readiness() -> Readiness:
        phases = member.phases()
        running = all(phase is SinkPhase.RUNNING for phase in phases.values())
        return Readiness(member.assigned and running, phases)

    async def serve() -> None:
        try:
            await health_server.serve(readiness, registry, ledger_id, host, port)
        except OSError as error:
            errors.append(error)
            started.set()
            return
        started.set()
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(serve(),), name="health", daemon=True).start()
    started.wait()
    if errors:
        raise Failure(f"METRICS_PORT={port} on {host} cannot be opened: {errors[0].strerror}")
