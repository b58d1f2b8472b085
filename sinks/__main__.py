"""`python -m sinks`: reads the settings, checks the topics and the tables, and writes what it is
assigned.
"""

import signal
import sys
import threading
from importlib.metadata import version
from types import FrameType

import structlog

from plumbing import failures, kafka, logging, memory, metrics, topics_check
from plumbing.crashpoints import CrashPoints
from schemas import ids
from sinks import postgres, web
from sinks.group import Group
from sinks.ledger import Queries
from sinks.owner import Tools
from sinks.postgres import Abandoned, Connections
from sinks.recorder import Recorder
from sinks.settings import SinkSettings

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
    topics_check.wait_for_topics(kafka.admin(settings, name), settings)
    try:
        postgres.wait_for_tables(database, stopping)
    except Abandoned:
        return
    memory.collect_seldom()
    registry = metrics.registry("sink", version("streamledger"), settings.ledger_id)
    config = kafka.service(settings, name, log)
    connections = Connections(database, f"{settings.ledger_id}-sink", settings.database_pool_size)
    tools = Tools(
        settings.ledger_id,
        config,
        settings.topics,
        connections,
        Queries(),
        Recorder(registry),
        CrashPoints(settings.crash_at, settings.crash_chance),
        threading.Lock(),
    )
    group = Group(tools, settings.partitions, settings.session_timeout_ms, stopping)
    if settings.metrics_port is not None:
        web.start(group, registry, settings.ledger_id, settings.metrics_host, settings.metrics_port)
    try:
        group.run()
    finally:
        connections.close()


if __name__ == "__main__":
    try:
        main()
    except failures.Failure as failure:
        sys.exit(failures.report(failure))
