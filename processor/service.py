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

# With less, RocksDB flushes small files all the time.
MIN_ROCKSDB_MIB_PER_PARTITION = 6
# Faust's own client logs an absent broker forty times a second; the lanes log it once.
QUIET = {"aiokafka": "CRITICAL", "faust": "WARNING", "mode": "WARNING"}


def run(data: Path | None = None) -> None:
    """`data` overrides the setting. Raises a Failure for what an operator can act on."""
    settings = ProcessorSettings.read()
    if data is not None:
        settings = settings.model_copy(update={"data": data})
    logging.configure("processor", settings, quiet=QUIET)
    name = ids.service_name(settings.ledger_id, "processor")
    lock = _lock_data_folder(settings.data)
    if settings.rocksdb_mib < MIN_ROCKSDB_MIB_PER_PARTITION * settings.partitions:
        log.warning(
            "ROCKSDB_MIB is low if this process owns all partitions",
            rocksdb_mib=settings.rocksdb_mib,
            partitions=settings.partitions,
        )
    topic_check.wait_for_topics(clients.admin(settings, name), settings)
    memory.limit_malloc_arenas()
    memory.collect_rarely()
    schemas = _schemas(settings)
    registry = metrics.registry("processor", version("streamledger"), settings.ledger_id)
    lanes = LaneSupervisor(
        LedgerIdentity(settings.ledger_id, settings.partitions, settings.deciding()),
        clients.long_running_client_config(settings, name, log),
        settings.topics,
        settings.data,
        schemas,
        ProcessorMetrics(registry),
        CrashPoints(settings.crash_at, settings.crash_chance),
        rocksdb_mib=settings.rocksdb_mib,
        cache_entries=settings.cache_entries,
        encode_transaction=transaction_encoding.transaction_encoder(settings, schemas),
    )
    lanes.clock.wait_until_brokers_agree()
    log.info("processor starting", rules=rules_build())
    uvloop.install()
    faust_app = app.create_app(
        settings, lanes, ids.service_id(settings.topic_prefix, settings.ledger_id, "processor")
    )
    if settings.metrics_port is not None:
        faust_app.start_health_server = partial(
            health.serve, lanes, registry, settings.metrics_host, settings.metrics_port
        )
    worker = faust_app.Worker(loglevel=settings.log_level, override_logging=False, quiet=True)
    # It writes cursor movements between the lines of the log.
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit:
        if (refusal := lanes.crash_policy.refusal) is not None:
            raise refusal from None
        raise
    finally:
        lock.close()


def _schemas(settings: ProcessorSettings) -> AvroSchemas:
    """An absent registry stops nothing: schemas that were read before are on disk."""
    url = settings.schema_registry_url
    schemas = AvroSchemas(settings.data / "schemas", HttpRegistry(url) if url else None)
    reason = schemas.load([f"{settings.topics.commands}-value"])
    if reason is not None:
        log.warning("schema registry unavailable", reason=reason)
    return schemas


def _lock_data_folder(data: Path) -> IO[str]:
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
