"""`python -m sinks`: reads the settings, checks the topics and the tables, and writes what it is
assigned.
"""

import signal
import sys
import threading
from importlib.metadata import version
from types import FrameType

import structlog

from plumbing import failures, logging, memory, metrics
from plumbing.kafka import clients, topic_check
from plumbing.worker.crash_points import CrashPoints
from plumbing.worker.lane_thread import StopRequested
from schemas import ids
from sinks.postgres import write_connection
from sinks.postgres.ledger_writer import Queries
from sinks.postgres.write_connection import Connections
from sinks.settings import SinkSettings
from sinks.worker import health
from sinks.worker.group_member import Group
from sinks.worker.lane import Tools
from sinks.worker.metrics import SinkMetrics

log = structlog.get_logger(__name__)


def main() -> None:
    """Raises a Failure for what an operator can act on."""
    run(SinkSettings.read())


def run(settings: SinkSettings) -> None:
    """Until the process is told to stop."""
    logging.configure("sink", settings)
    name = ids.service_name(settings.ledger_id, "sink")
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    database = settings.database
    topic_check.wait_for_topics(clients.admin(settings, name), settings)
    try:
        write_connection.wait_for_tables(database, stopping)
    except StopRequested:
        return
    memory.collect_seldom()
    registry = metrics.registry("sink", version("streamledger"), settings.ledger_id)
    config = clients.service(settings, name, log)
    connections = Connections(database, f"{settings.ledger_id}-sink", settings.database_pool_size)
    tools = Tools(
        settings.ledger_id,
        config,
        settings.topics,
        connections,
        Queries(),
        SinkMetrics(registry),
        CrashPoints(settings.crash_at, settings.crash_chance),
        threading.Lock(),
    )
    group = Group(tools, settings.partitions, settings.session_timeout_ms, stopping)
    if settings.metrics_port is not None:
        health.start(
            group, registry, settings.ledger_id, settings.metrics_host, settings.metrics_port
        )
    try:
        group.run()
    finally:
        connections.close()
    if group.crash_policy.refusal is not None:
        raise group.crash_policy.refusal


if __name__ == "__main__":
    try:
        main()
    except failures.Failure as failure:
        sys.exit(failures.report(failure))
