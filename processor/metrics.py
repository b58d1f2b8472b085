"""A processor's metrics: updated by the lanes' threads, read at /metrics."""

import time
from collections import Counter

from prometheus_client import CollectorRegistry

from plumbing import metrics
from schemas.reasons import Reason

# Why a command is refused. These counters exist from the start with 0: a rate misses the first
# event of a new counter.
REFUSED = (
    Reason.TOO_LARGE,
    Reason.SCHEMA_UNKNOWN,
    Reason.MALFORMED,
    Reason.UNKNOWN_FIELD,
    Reason.AMOUNT_INVALID,
    Reason.TIME_OUT_OF_RANGE,
    Reason.MISROUTED,
    Reason.IDEMPOTENCY_KEY_REUSED,
)


class ProcessorMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._commands = metrics.counter(registry, metrics.COMMANDS)
        self._batch = metrics.histogram(registry, metrics.BATCH_RECORDS)
        self._transaction = metrics.histogram(registry, metrics.TRANSACTION_SECONDS)
        self._lag_records = metrics.gauge(registry, metrics.LAG_RECORDS)
        self._lag_seconds = metrics.gauge(registry, metrics.LAG_SECONDS)
        self._restore = metrics.gauge(registry, metrics.RESTORE_RECORDS)
        self._table = metrics.gauge(registry, metrics.TABLE_BYTES)
        self._phase = metrics.gauge(registry, metrics.PARTITION_PHASE)
        for reason in REFUSED:
            self._commands.labels("refused", reason)

    def phase(self, partition: int, before: str, now: str) -> None:
        self._phase.labels(partition, before).set(0)
        self._phase.labels(partition, now).set(1)

    def restoring(self, partition: int, remaining: int) -> None:
        self._restore.labels(partition).set(remaining)

    def lag(self, partition: int, records: int, age_s: float) -> None:
        self._lag_records.labels(partition).set(records)
        self._lag_seconds.labels(partition).set(age_s if records > 0 else 0)

    def batch(self, records: int, outcomes: Counter[tuple[str, str]]) -> None:
        self._batch.observe(records)
        for (outcome, reason), count in outcomes.items():
            self._commands.labels(outcome, reason).inc(count)

    def committed(self, started: float) -> None:
        self._transaction.observe(time.monotonic() - started)

    def store_bytes(self, partition: int, bytes: int) -> None:
        self._table.labels(partition).set(bytes)

    def gone(self, partition: int) -> None:
        """A partition that is not owned has no metrics."""
        for gauge in (self._lag_records, self._lag_seconds, self._restore, self._table):
            gauge.remove(partition)
        self._phase.remove_by_labels({"partition": str(partition)})
