"""The short form: a ledger of two workers under load, killed at each numbered step and more, must
come out without one difference. `python -m tests.crash` is the long form.
"""

import json
import secrets
import signal
import sys
from collections.abc import Iterator

import pytest

from compose.embedded import kafka
from tests import brokers
from tests.crash import rig as rigs
from tests.crash import stage as stages
from tests.crash.audit import Audit
from tests.crash.faults import foreign_copy
from tests.crash.rig import STEPS, Rig, until
from tests.crash.stage import Stage
from tests.crash.workers import KILLED, Worker

PARTITIONS = 2
RATE = 250


@pytest.fixture(scope="module")
def cluster() -> Iterator[kafka.Cluster]:
    """A broker of these tests' own: they kill it."""
    with brokers.data_folder() as own, stages.running(own, 1) as started:
        yield started


@pytest.fixture
def stage(cluster: kafka.Cluster) -> Stage:
    return Stage(cluster, f"crash-{secrets.token_hex(4)}-", PARTITIONS)


@pytest.fixture
def rig(stage: Stage) -> Iterator[Rig]:
    seed = secrets.randbelow(10**6)
    sys.stdout.write(f"seed {seed}\n")
    with rigs.made(stage, 2, seed, RATE) as made:
        yield made


def audit_of(stage: Stage) -> Audit:
    return Audit(stage.client, stage.names, stage.partitions)


def owns_all(worker: Worker) -> bool:
    status, body = worker.get("/ready")
    return status == 200 and len(json.loads(body)["partitions"]) == PARTITIONS


def test_whatever_dies_nothing_is_lost_doubled_or_made(rig: Rig) -> None:
    crew, stage = rig.crew, rig.stage
    one, other = crew.workers
    until(lambda: one.ready() and other.ready(), 60, rig)
    rig.load.start()

    # Killed at each numbered step, the two workers at the same time.
    copy = rig.keep_copy(one)
    crew.crash_next(one, STEPS[::2])
    crew.crash_next(other, STEPS[1::2])
    rig.kill(one)
    rig.kill(other)
    until(lambda: all(crew.kills[step] == 1 for step in STEPS), 120, rig)

    # A zombie: the other has taken over when it wakes up, in the middle of what it did.
    until(lambda: one.ready() and other.ready(), 60, rig)
    one.send(signal.SIGSTOP)
    until(lambda: owns_all(other), 60, rig)
    one.send(signal.SIGCONT)

    # All workers at once: what is under way between the partitions is what transit holds.
    with crew.aside(one), crew.aside(other):
        rig.kill(one)
        rig.kill(other)
        with audit_of(stage) as audit:
            assert audit.verify(quiet=False) == []
        other.lose_disk()

    until(lambda: one.ready() and other.ready(), 60, rig)
    stage.kill_broker(1)
    stage.start_broker(1)
    stage.wait_until_serving()

    rig.swap_disk(one, copy)
    until(lambda: one.ready() and other.ready(), 60, rig)
    rig.load.stop()
    with audit_of(stage) as audit:
        rig.settle(audit, 60)
        found = rig.verdict(audit)
        told = {"kills": crew.kills, "exits": crew.exits, **audit.figures()}
        sys.stdout.write(json.dumps(told))
        assert found == []
        assert len(audit.positions()) > 1_000
    assert set(crew.exits) <= {KILLED, 70}, crew.exits


def test_a_copy_of_another_ledger_is_not_believed(rig: Rig) -> None:
    with foreign_copy(rig) as copy:
        worker, _ = rig.crew.workers
        rig.load.start()
        rig.swap_disk(worker, copy)
        until(lambda: all(each.ready() for each in rig.crew.workers), 60, rig)
        rig.load.stop()
    with audit_of(rig.stage) as audit:
        rig.settle(audit, 60)
        assert rig.verdict(audit) == []


def test_a_broker_that_is_away_is_waited_for(rig: Rig) -> None:
    """Nobody ends, somebody says so, and all goes on when it is back."""
    stage, workers = rig.stage, rig.crew.workers
    until(lambda: all(worker.ready() for worker in workers), 60, rig)
    rig.load.start()
    stage.kill_broker(1)
    until(lambda: all("waiting for Kafka" in worker.told() for worker in workers), 60, rig)
    stage.start_broker(1)
    stage.wait_until_serving()
    until(lambda: all(worker.ready() for worker in workers), 60, rig)
    rig.load.stop()
    with audit_of(stage) as audit:
        rig.settle(audit, 60)
        assert rig.verdict(audit) == []
