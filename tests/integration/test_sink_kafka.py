"""A sink whose Kafka goes away and comes back: it goes on by itself, and rows and results are there
once each.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.embedded import kafka
from tests.testkit import environment as stages
from tests.testkit import sink_rig
from tests.testkit.sink_rig import Rig, history
from tests.testkit.waiting import eventually

PARTS = 4


@pytest.fixture
def cluster(mortal_kafka: kafka.Cluster) -> kafka.Cluster:
    return mortal_kafka


@pytest.fixture
def rig(cluster: kafka.Cluster, database: str, tmp_path: Path) -> Iterator[Rig]:
    prefix = f"{database.rpartition('/')[2]}-"
    with sink_rig.running_rig(cluster.bootstrap, database, prefix, tmp_path) as rig:
        yield rig


def come_back(cluster: kafka.Cluster) -> None:
    cluster.start_broker(1)
    cluster.wait_until_serving(stages.NEVER_STOPPED)


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_broker_that_goes_and_comes_back(cluster: kafka.Cluster, rig: Rig, how: str) -> None:
    """While there is much to write, and while there is nothing."""
    whole = history()
    rig.publish_part(whole, 0, PARTS)
    rig.publish_part(whole, 1, PARTS)
    sink = rig.sink().start()
    eventually(rig.sequences, 60)
    for part in (2, 3):
        broker = cluster.processes[1]
        eventually(rig.stable, 60)
        if how == "killed":
            broker.kill()
        else:
            broker.stop()
        come_back(cluster)
        rig.publish_part(whole, part, PARTS)
        rig.reach(whole, part, PARTS, 120)
    rig.settle(whole, 90)
    rig.check(whole)
    # The same process, all the way.
    assert sink.stop() == 0, sink.tail()


def test_a_sink_that_loses_its_broker_while_it_sends_begins_anew_by_itself(
    cluster: kafka.Cluster, rig: Rig
) -> None:
    """The client gives records up after ten seconds, and with them their transaction."""
    whole = history()
    rig.publish_all(whole)
    eventually(rig.stable, 60)
    sink = rig.sink().start(CRASH_AT="freeze:mid_results")
    eventually(sink.frozen, 60)
    cluster.processes[1].kill()
    sink.send(signal.SIGCONT)
    eventually(lambda: "restarting" in sink.log_text(), 120)
    come_back(cluster)
    # It was told to freeze once, and begins with what it was told.
    eventually(sink.frozen, 120)
    sink.send(signal.SIGCONT)
    rig.settle(whole, 120)
    rig.check(whole)
    assert sink.stop() == 0, sink.tail()


def test_a_sink_that_starts_before_its_broker(cluster: kafka.Cluster, rig: Rig) -> None:
    whole = history()
    rig.publish_all(whole)
    eventually(rig.stable, 60)
    cluster.processes[1].kill()
    sink = rig.sink().start()
    eventually(lambda: "waiting for" in sink.log_text(), 60)
    come_back(cluster)
    rig.settle(whole, 90)
    rig.check(whole)
    assert sink.stop() == 0, sink.tail()
