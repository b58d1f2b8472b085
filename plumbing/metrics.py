"""Metrics: every name in one commented list, a registry per process, and /metrics over HTTP.

A metric that is not in the list cannot be made, and a test holds the list and docs/reference
together. Nothing registers itself at import.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from aiohttp import web
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# Every service: 1, with its name and version in the labels.
INFO = Metric(
    "streamledger_info",
    "gauge",
    "Always 1; its labels name what runs.",
    ("service", "version", "ledger"),
)
# Every service. After a restart in place the system still reports the first start.
BEGAN = Metric(
    "streamledger_began_timestamp_seconds",
    "gauge",
    "When the program began, in seconds since 1970.",
)
# The ingress: one for each answer. `route` is the pattern, never the path.
HTTP_REQUESTS = Metric(
    "streamledger_http_requests_total",
    "counter",
    "HTTP requests answered.",
    ("method", "route", "status"),
)
# The ingress: from the request's arrival to its answer, waiting for an outcome included.
HTTP_SECONDS = Metric(
    "streamledger_http_request_seconds",
    "histogram",
    "Time to answer an HTTP request, in seconds.",
    ("method", "route"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
)

# The processor: commands by what became of them; `reason` is empty for what was posted.
COMMANDS = Metric(
    "streamledger_commands_total",
    "counter",
    "Commands decided, by outcome and reason.",
    ("outcome", "reason"),
)
# The processor: how many records are decided together; most often in one Kafka transaction.
BATCH_RECORDS = Metric(
    "streamledger_batch_records",
    "histogram",
    "Records of `commands` and `coordination` in one batch.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000),
)
# The processor: from beginning the Kafka transaction to its commit, without deciding.
TRANSACTION_SECONDS = Metric(
    "streamledger_transaction_seconds",
    "histogram",
    "Time to write and commit one Kafka transaction, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
# The processor: how far behind it is. -1 where the end of `commands` is not known yet.
LAG_RECORDS = Metric(
    "streamledger_lag_records",
    "gauge",
    "Records of `commands` that were not read yet.",
    ("partition",),
)
LAG_SECONDS = Metric(
    "streamledger_lag_seconds",
    "gauge",
    "Age of the newest decided record, in seconds; 0 where nothing waits.",
    ("partition",),
)
# The processor: falls to 0 while a partition is restored.
RESTORE_RECORDS = Metric(
    "streamledger_restore_remaining_records",
    "gauge",
    "Records of `state` that are still to be restored.",
    ("partition",),
)
# The processor: its local copy, on disk and in memtables.
TABLE_BYTES = Metric(
    "streamledger_table_bytes",
    "gauge",
    "Size of the local copy of a partition's state, in bytes.",
    ("partition",),
)
# The processor: 1 for the phase that each partition it owns is in.
PARTITION_PHASE = Metric(
    "streamledger_partition_phase",
    "gauge",
    "The partitions owned here: 1 for the phase that each is in.",
    ("partition", "phase"),
)

# The sink: what it has read of the journal, and what became of it.
SINK_RECORDS = Metric(
    "streamledger_sink_records_total", "counter", "Journal records written to Postgres and Kafka."
)
SINK_BATCH_RECORDS = Metric(
    "streamledger_sink_batch_records",
    "histogram",
    "Journal records in one batch.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000),
)
SINK_ROWS = Metric(
    "streamledger_sink_rows_total", "counter", "Rows added to tables that only grow.", ("table",)
)
SINK_RESULTS = Metric("streamledger_sink_results_total", "counter", "Results written to Kafka.")
SINK_ROWS_SECONDS = Metric(
    "streamledger_sink_rows_seconds",
    "histogram",
    "Time to write and commit one Postgres transaction, waiting for Postgres included, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
SINK_RESULTS_SECONDS = Metric(
    "streamledger_sink_results_seconds",
    "histogram",
    "Time from a batch's rows to its results, which were sent beside them, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
# The sink: how far behind it is. Records is -1 where the end of the journal is not known yet.
SINK_AGE_SECONDS = Metric(
    "streamledger_sink_age_seconds",
    "gauge",
    "Age of the last record when its rows had been committed, in seconds; grows while they wait.",
    ("partition",),
)
SINK_LAG_RECORDS = Metric(
    "streamledger_sink_lag_records",
    "gauge",
    "Offsets of `journal` that are not in Postgres yet, but for the last transaction's marker.",
    ("partition",),
)
# The sink: 1 for the phase that each partition it owns is in.
SINK_PHASE = Metric(
    "streamledger_sink_partition_phase",
    "gauge",
    "The partitions written here: 1 for the phase that each is in.",
    ("partition", "phase"),
)

ALL = (
    INFO,
    BEGAN,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    COMMANDS,
    BATCH_RECORDS,
    TRANSACTION_SECONDS,
    LAG_RECORDS,
    LAG_SECONDS,
    RESTORE_RECORDS,
    TABLE_BYTES,
    PARTITION_PHASE,
    SINK_RECORDS,
    SINK_BATCH_RECORDS,
    SINK_ROWS,
    SINK_RESULTS,
    SINK_ROWS_SECONDS,
    SINK_RESULTS_SECONDS,
    SINK_AGE_SECONDS,
    SINK_LAG_RECORDS,
    SINK_PHASE,
)


def registry(service: str, version: str, ledger_id: str) -> CollectorRegistry:
    collectors = CollectorRegistry()
    ProcessCollector(registry=collectors)
    PlatformCollector(registry=collectors)
    gauge(collectors, INFO).labels(service, version, ledger_id).set(1)
    gauge(collectors, BEGAN).set_to_current_time()
    return collectors


def counter(registry: CollectorRegistry, metric: Metric) -> Counter:
    assert metric in ALL and metric.kind == "counter", metric.name
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def gauge(registry: CollectorRegistry, metric: Metric) -> Gauge:
    assert metric in ALL and metric.kind == "gauge", metric.name
    return Gauge(metric.name, metric.help, metric.labels, registry=registry)


def histogram(registry: CollectorRegistry, metric: Metric) -> Histogram:
    assert metric in ALL and metric.kind == "histogram", metric.name
    return Histogram(
        metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
    )


def handler(registry: CollectorRegistry) -> Handler:
    """Answers /metrics in the text format of Prometheus."""

    async def show(_: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return show
