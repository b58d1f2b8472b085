"""A sink: reads the settings, checks the topics and the tables, and writes the lanes that it is
assigned.
"""

import signal
import threading
from importlib.metadata import version
from types import FrameType

import structlog

from plumbing import logging, memory, metrics
from plumbing.kafka import clients, topic_check
from plumbing.worker.crash_points import CrashPoints
from plumbing.worker.lane_thread import StopRequested
from schemas import ids
from sinks.postgres import write_connection
from sinks.postgres.write_connection import Connections
from sinks.settings import SinkSettings
from sinks.worker import health
from sinks.worker.group_member import GroupMember
from sinks.worker.lane import LaneResources
from sinks.worker.metrics import SinkMetrics

log = structlog.get_logger(__name__)


def run() -> None:
    """Runs until a signal stops it. Raises a Failure if an operator must act."""
    settings = SinkSettings.read()
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
    memory.collect_rarely()
    registry = metrics.registry("sink", version("streamledger"), settings.ledger_id)
    connections = Connections(database, f"{settings.ledger_id}-sink", settings.database_pool_size)
    resources = LaneResources(
        settings.ledger_id,
        clients.long_running_client_config(settings, name, log),
        settings.topics,
        connections,
        SinkMetrics(registry),
        CrashPoints(settings.crash_at, settings.crash_chance),
        threading.Lock(),
    )
    member = GroupMember(resources, settings.partitions, settings.session_timeout_ms, stopping)
    if settings.metrics_port is not None:
        health.start(
            member, registry, settings.ledger_id, settings.metrics_host, settings.metrics_port
        )
    try:
        member.run()
    finally:
        connections.close()
    if member.crash_policy.refusal is not None:
        raise member.crash_policy.refusal
