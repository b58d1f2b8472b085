"""A processor: reads the settings, checks the topics, and owns what it is assigned."""

import fcntl
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import IO

import structlog
import uvloop

from plumbing import folders, logging, memory, metrics
from plumbing.failures import Failure
from plumbing.kafka import clients, topic_check
from plumbing.worker.crash_points import CrashPoints
from processor import health
from processor.lanes import transaction_encoding
from processor.lanes.lane import LedgerIdentity
from processor.lanes.supervisor import LaneSupervisor
from processor.metrics import ProcessorMetrics
from processor.rules_build import rules_build
from processor.settings import ProcessorSettings
from processor.streaming import app
from schemas import ids
from schemas.encoding.codecs import AvroSchemas
from schemas.encoding.schema_registry import HttpRegistry

log = structlog.get_logger(__name__)

# For each partition: with less, small files are written all the time.
LEAST_ROCKSDB_MIB = 6
# Faust's own client tells of a broker that is away forty times a second; the owners tell it once.
QUIET = {"aiokafka": "CRITICAL", "faust": "WARNING", "mode": "WARNING"}


def run(data: Path | None = None) -> None:
    """`data` overrides the setting. Raises a Failure for what an operator can act on."""
    settings = ProcessorSettings.read()
    if data is not None:
        settings = settings.model_copy(update={"data": data})
    logging.configure("processor", settings, quiet=QUIET)
    name = ids.service_name(settings.ledger_id, "processor")
    lock = _locked(settings.data)
    if settings.rocksdb_mib < LEAST_ROCKSDB_MIB * settings.partitions:
        log.warning(
            "ROCKSDB_MIB is little if this process comes to own all partitions",
            rocksdb_mib=settings.rocksdb_mib,
            partitions=settings.partitions,
        )
    topic_check.wait_for_topics(clients.admin(settings, name), settings)
    memory.few_arenas()
    memory.collect_seldom()
    schemas = _schemas(settings)
    registry = metrics.registry("processor", version("streamledger"), settings.ledger_id)
    ledger = LaneSupervisor(
        LedgerIdentity(settings.ledger_id, settings.partitions, settings.deciding()),
        clients.service(settings, name, log),
        settings.topics,
        settings.data,
        schemas,
        ProcessorMetrics(registry),
        CrashPoints(settings.crash_at, settings.crash_chance),
        rocksdb_mib=settings.rocksdb_mib,
        cache_entries=settings.cache_entries,
        encode_transaction=transaction_encoding.transactions(settings, schemas),
    )
    ledger.clock.wait_until_brokers_agree()
    log.info("processor starting", rules=rules_build())
    uvloop.install()
    faust_app = app.make(
        settings, ledger, ids.service_id(settings.topic_prefix, settings.ledger_id, "processor")
    )
    if settings.metrics_port is not None:
        faust_app.serve = partial(
            health.serve, ledger, registry, settings.metrics_host, settings.metrics_port
        )
    worker = faust_app.Worker(loglevel=settings.log_level, override_logging=False, quiet=True)
    # It would write cursor movements between the lines of the log.
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit:
        if (refusal := ledger.crash_policy.refusal) is not None:
            raise refusal from None
        raise
    finally:
        lock.close()


def _schemas(settings: ProcessorSettings) -> AvroSchemas:
    """A registry that is away stops nothing: what was read before is on disk."""
    url = settings.schema_registry_url
    known = AvroSchemas(settings.data / "schemas", HttpRegistry(url) if url else None)
    reason = known.load([f"{settings.topics.commands}-value"])
    if reason is not None:
        log.warning("the schema registry could not tell", reason=reason)
    return known


def _locked(data: Path) -> IO[str]:
    """One process for each data folder."""
    try:
        folders.make_private(data)
        lock = (data / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure(f"another processor runs on the data folder {data}") from None
    except OSError as error:
        raise Failure(f"the data folder {data} cannot be used: {error.strerror}") from None
    return lock
