"""How far behind the tables are is told while a sink waits for its Postgres, too."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.simulation.cluster import Cluster
from tests.testkit import sink_rig
from tests.testkit.sink_rig import PARTITIONS, Proxy, Rig, Sink, history
from tests.testkit.waiting import eventually

PARTS = 4


@pytest.fixture
def rig(kafka: str, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    with sink_rig.running_rig(kafka, database, topic_prefix, tmp_path) as rig:
        yield rig


def gauges(sink: Sink, name: str) -> dict[int, float]:
    """A gauge of each partition, as Prometheus would read it."""
    _, text = sink.get("/metrics")
    found = re.findall(rf'^streamledger_sink_{name}{{partition="(\d+)"}} (\S+)$', text, re.M)
    return {int(partition): float(value) for partition, value in found}


def lag(sink: Sink) -> list[float]:
    found = gauges(sink, "lag_records")
    return [found.get(partition, -1.0) for partition in range(PARTITIONS)]


def publish(rig: Rig, cluster: Cluster, part: int) -> list[int]:
    """A part of the journal; and how many records of it each partition has."""
    rig.publish_part(cluster, part, PARTS)
    return [
        len(each.whole) * (part + 1) // PARTS - len(each.whole) * part // PARTS
        for each in cluster.partitions
    ]


def rises(sink: Sink, rig: Rig, cluster: Cluster) -> None:
    """Lag and age go on growing while nothing reaches the tables."""
    waiting = [0] * PARTITIONS
    for part in range(1, PARTS - 1):
        more = publish(rig, cluster, part)
        waiting = [one + other for one, other in zip(waiting, more, strict=True)]

        def behind(waiting: list[int] = waiting) -> bool:
            return all(one >= other for one, other in zip(lag(sink), waiting, strict=True))

        eventually(behind, 30)
    before = gauges(sink, "age_seconds")
    assert before.keys() == set(range(PARTITIONS))
    eventually(lambda: all(s > before[p] + 2 for p, s in gauges(sink, "age_seconds").items()), 30)
    assert rig.has_part(cluster, 0, PARTS)


def test_lag_is_told_while_postgres_is_away(rig: Rig) -> None:
    cluster = history()
    proxy = Proxy(rig.database)
    proxy.serve()
    publish(rig, cluster, 0)
    sink = rig.sink(DATABASE_URL=proxy.database).start()
    eventually(lambda: rig.has_part(cluster, 0, PARTS), 60)
    eventually(lambda: lag(sink) == [0] * PARTITIONS, 30)
    proxy.cut()
    rises(sink, rig, cluster)
    assert "waiting for Postgres" in sink.log_text()
    proxy.serve()
    publish(rig, cluster, PARTS - 1)
    rig.settle(cluster)
    eventually(lambda: lag(sink) == [0] * PARTITIONS, 30)
    assert sink.stop() == 0
    proxy.cut()


def test_lag_is_told_while_postgres_gives_no_answer(rig: Rig) -> None:
    """It takes the batch and says nothing, as behind a lock or on a disk that hangs."""
    cluster = history()
    publish(rig, cluster, 0)
    sink = rig.sink().start()
    eventually(lambda: rig.has_part(cluster, 0, PARTS), 60)
    with psycopg.connect(rig.database) as locking:
        locking.execute("LOCK TABLE ledger.commands IN SHARE MODE")
        rises(sink, rig, cluster)
    publish(rig, cluster, PARTS - 1)
    rig.settle(cluster)
    eventually(lambda: lag(sink) == [0] * PARTITIONS, 30)
    assert sink.stop() == 0
