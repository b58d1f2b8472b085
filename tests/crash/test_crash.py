"""The short form: a ledger of two workers and two sinks under load, killed at each numbered step
and more, with its Kafka and its Postgres, must come out without one difference.
`python -m tests.crash` is the long form.
"""

import json
import random
import secrets
import signal
import sys
from collections.abc import Iterator

import pytest

from compose.embedded import kafka, postgres
from tests.crash import harness as rigs
from tests.crash.audit import Audit
from tests.crash.fault_injection import foreign_copy
from tests.crash.harness import SINK_CRASH_POINTS, WORKER_CRASH_POINTS, CrashHarness, until
from tests.testkit import brokers
from tests.testkit import environment as stages
from tests.testkit.environment import Environment
from tests.testkit.programs import KILLED, Program

# Two lanes of two for the sinks.
PARTITIONS = 4
RATE = 250


@pytest.fixture(scope="module")
def cluster() -> Iterator[kafka.Cluster]:
    """A broker of these tests' own: they kill it."""
    with brokers.data_folder() as own, stages.running_kafka(own, 1) as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A Postgres of these tests' own, likewise."""
    with brokers.data_folder() as own, stages.running_postgres(own) as started:
        yield started


@pytest.fixture
def stage(cluster: kafka.Cluster, server: postgres.Server) -> Environment:
    return Environment(cluster, server, f"crash-{secrets.token_hex(4)}-", PARTITIONS)


@pytest.fixture
def rig(stage: Environment) -> Iterator[CrashHarness]:
    seed = secrets.randbelow(10**6)
    sys.stdout.write(f"seed {seed}\n")
    with rigs.running_harness(stage, 2, seed, RATE) as made:
        yield made


def audit_of(stage: Environment) -> Audit:
    return Audit(stage.client, stage.names, stage.partitions)


def owns_all(program: Program) -> bool:
    status, body = program.get("/ready")
    return status == 200 and len(json.loads(body)["partitions"]) == PARTITIONS


def test_whatever_dies_nothing_is_lost_doubled_or_made(rig: CrashHarness) -> None:
    crew, sinks, stage = rig.crew, rig.sinks, rig.stage
    one, other = crew.workers
    sink, other_sink = sinks.workers
    until(lambda: one.ready() and other.ready(), 60, rig)
    rig.load.start()

    # Killed at each numbered step, two workers and two sinks at the same time.
    copy = rig.keep_copy(one)
    crew.crash_next(one, WORKER_CRASH_POINTS[::2])
    crew.crash_next(other, WORKER_CRASH_POINTS[1::2])
    sinks.crash_next(sink, SINK_CRASH_POINTS[::2])
    sinks.crash_next(other_sink, SINK_CRASH_POINTS[1::2])
    for worker in (one, other):
        rig.kill(worker)
    for each in (sink, other_sink):
        sinks.kill(each, "random")
    until(lambda: all(crew.kills[step] == 1 for step in WORKER_CRASH_POINTS), 120, rig)
    until(lambda: all(sinks.kills[step] == 1 for step in SINK_CRASH_POINTS), 120, rig)

    # Zombies: the others have taken over when they wake up, in the middle of what they did.
    frozen: tuple[Program, ...] = one, sink
    until(lambda: all(each.ready() for each in (*crew.workers, *sinks.workers)), 60, rig)
    for program in frozen:
        program.send(signal.SIGSTOP)
    until(lambda: owns_all(other) and owns_all(other_sink), 60, rig)
    for program in frozen:
        program.send(signal.SIGCONT)

    # Postgres in the middle of what it did, too; the processors go on meanwhile.
    waited = other_sink.told().count("waiting for Postgres")
    stage.kill_postgres()
    until(lambda: other_sink.told().count("waiting for Postgres") > waited, 60, rig)
    stage.start_postgres()

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
        exits = {"workers": crew.exits, "sinks": sinks.exits}
        told = {"kills": crew.kills + sinks.kills, "exits": exits, **audit.figures()}
        sys.stdout.write(json.dumps(told))
        assert found == [], "\n".join(found)
        assert len(audit.positions()) > 1_000
    assert set(crew.exits) | set(sinks.exits) <= {KILLED, 70}, exits


def test_a_copy_of_another_ledger_is_not_believed(rig: CrashHarness) -> None:
    with foreign_copy(rig) as copy:
        worker, _ = rig.crew.workers
        rig.load.start()
        rig.swap_disk(worker, copy)
        until(lambda: all(each.ready() for each in rig.crew.workers), 60, rig)
        rig.load.stop()
    with audit_of(rig.stage) as audit:
        rig.settle(audit, 60)
        assert rig.verdict(audit) == []


def test_old_copies_damaged_blocks_and_records_that_come_twice(stage: Environment) -> None:
    """`state` is lost and rebuilt; one worker comes back with a copy from before, the other one
    with a damaged one, and all the while clients deliver records twice."""
    seed = secrets.randbelow(10**6)
    sys.stdout.write(f"seed {seed}\n")
    with rigs.running_harness(stage, 2, seed, RATE, repeats=0.05) as rig:
        one, other = rig.crew.workers

        def ready() -> bool:
            return one.ready() and other.ready()

        until(ready, 60, rig)
        rig.load.start()
        until(lambda: len(rig.load.confirmed) > 500, 60, rig)
        old = rig.keep_copy(one)
        until(lambda: len(rig.load.confirmed) > 1_500, 60, rig)
        rig.rebuild_state_topic(lost=True)
        rig.swap_disk(one, old)
        # What was restored lies in a file; what was decided lies in a log at first.
        rig.lose_disk(other)
        until(ready, 60, rig)
        assert "another incarnation" in one.told()
        assert rig.damage_disk(other, random.Random(seed))
        until(ready, 60, rig)
        until(rig.repeated, 60, rig)
        rig.load.stop()
        with audit_of(stage) as audit:
            rig.settle(audit, 60)
            found = rig.verdict(audit)
            assert found == [], "\n".join(found)


def test_a_broker_that_is_away_is_waited_for(rig: CrashHarness) -> None:
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
