"""What a sink tells of itself: an age that an alert can be set on."""

import time

import pytest
from prometheus_client import CollectorRegistry

from sinks.worker.metrics import SinkMetrics


def age(last_ms: int) -> float | None:
    registry = CollectorRegistry()
    SinkMetrics(registry).age(3, last_ms)
    return registry.get_sample_value("streamledger_sink_age_seconds", {"partition": "3"})


def test_a_partition_that_has_only_its_genesis_is_not_late() -> None:
    assert age(0) == 0


def test_a_record_is_as_old_as_its_time_says() -> None:
    assert age(int((time.time() - 300) * 1_000)) == pytest.approx(300, abs=30)
