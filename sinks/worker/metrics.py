"""A sink's metrics: set by the lanes' threads, read at /metrics."""

import time

from prometheus_client import CollectorRegistry

from plumbing import metrics
from sinks.postgres.projection import Rows


class SinkMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._records = metrics.counter(registry, metrics.SINK_RECORDS)
        self._batch = metrics.histogram(registry, metrics.SINK_BATCH_RECORDS)
        self._rows = metrics.counter(registry, metrics.SINK_ROWS)
        self._results = metrics.counter(registry, metrics.SINK_RESULTS)
        self._rows_seconds = metrics.histogram(registry, metrics.SINK_ROWS_SECONDS)
        self._results_seconds = metrics.histogram(registry, metrics.SINK_RESULTS_SECONDS)
        self._age = metrics.gauge(registry, metrics.SINK_AGE_SECONDS)
        self._lag = metrics.gauge(registry, metrics.SINK_LAG_RECORDS)
        self._phase = metrics.gauge(registry, metrics.SINK_PHASE)

    def phase(self, partition: int, before: str, after: str) -> None:
        self._phase.labels(partition, before).set(0)
        self._phase.labels(partition, after).set(1)

    def batch(self, records: int) -> None:
        self._records.inc(records)
        self._batch.observe(records)

    def rows_took(self, started: float) -> None:
        self._rows_seconds.observe(time.monotonic() - started)

    def rows(self, rows: Rows) -> None:
        self.age(rows.partition, rows.last_ms)
        for table, count in (
            ("entries", sum(map(len, rows.entries.values()))),
            ("system_entries", len(rows.system_entries)),
            ("transactions", len(rows.transactions)),
            ("commands", len(rows.commands)),
        ):
            self._rows.labels(table).inc(count)

    def results(self, started: float, count: int) -> None:
        self._results_seconds.observe(time.monotonic() - started)
        self._results.inc(count)

    def age(self, partition: int, last_ms: int) -> None:
        """A partition with only its genesis, which has no time, is not behind."""
        self._age.labels(partition).set(time.time() - last_ms / 1_000 if last_ms else 0)

    def lag(self, partition: int, records: int) -> None:
        self._lag.labels(partition).set(records)

    def released(self, partition: int) -> None:
        """Another sink reports the partition from here on."""
        self._lag.labels(partition).set(0)
        self._age.labels(partition).set(0)
