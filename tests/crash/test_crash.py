"""The short crash test: two workers and two sinks under load are killed at each crash point, and so
are Kafka and Postgres. The audit must find no difference. `python -m tests.crash` runs longer.
"""

import json
import random
import secrets
import signal
import sys
from collections.abc import Iterator

import pytest

from compose.embedded import kafka, postgres
from tests.crash import harness as harnesses
from tests.crash.audit import Audit
from tests.crash.fault_injection import foreign_disk
from tests.crash.harness import SINK_CRASH_POINTS, WORKER_CRASH_POINTS, CrashHarness, wait_until
from tests.testkit import brokers
from tests.testkit import environment as environments
from tests.testkit.environment import Environment
from tests.testkit.programs import KILLED, Program

# Two lanes of two for the sinks.
PARTITIONS = 4
RATE = 250


@pytest.fixture(scope="module")
def cluster() -> Iterator[kafka.Cluster]:
    """A broker that these tests may kill."""
    with brokers.data_folder() as own, environments.running_kafka(own, 1) as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A Postgres server that these tests may kill."""
    with brokers.data_folder() as own, environments.running_postgres(own) as started:
        yield started


@pytest.fixture
def environment(cluster: kafka.Cluster, server: postgres.Server) -> Environment:
    return Environment(cluster, server, f"crash-{secrets.token_hex(4)}-", PARTITIONS)


@pytest.fixture
def harness(environment: Environment) -> Iterator[CrashHarness]:
    seed = secrets.randbelow(10**6)
    sys.stdout.write(f"seed {seed}\n")
    with harnesses.running_harness(environment, 2, seed, RATE) as running:
        yield running


def audit_of(environment: Environment) -> Audit:
    return Audit(environment.client, environment.names, environment.partitions)


def owns_all(program: Program) -> bool:
    status, body = program.get("/ready")
    return status == 200 and len(json.loads(body)["partitions"]) == PARTITIONS


def test_no_crash_loses_or_duplicates_anything(harness: CrashHarness) -> None:
    workers, sinks, environment = harness.workers, harness.sinks, harness.environment
    one, other = workers.programs
    sink, other_sink = sinks.programs
    wait_until(lambda: one.ready() and other.ready(), 60, harness)
    harness.load.start()

    # Kill two workers and two sinks at each crash point, at the same time.
    copy = harness.copy_disk(one)
    workers.crash_next(one, WORKER_CRASH_POINTS[::2])
    workers.crash_next(other, WORKER_CRASH_POINTS[1::2])
    sinks.crash_next(sink, SINK_CRASH_POINTS[::2])
    sinks.crash_next(other_sink, SINK_CRASH_POINTS[1::2])
    for worker in (one, other):
        harness.kill(worker)
    for each in (sink, other_sink):
        sinks.kill(each, "random")
    wait_until(lambda: all(workers.kills[step] == 1 for step in WORKER_CRASH_POINTS), 120, harness)
    wait_until(lambda: all(sinks.kills[step] == 1 for step in SINK_CRASH_POINTS), 120, harness)

    # Zombies: when they wake up, others have taken over.
    frozen: tuple[Program, ...] = one, sink
    wait_until(
        lambda: all(each.ready() for each in (*workers.programs, *sinks.programs)), 60, harness
    )
    for program in frozen:
        program.send(signal.SIGSTOP)
    wait_until(lambda: owns_all(other) and owns_all(other_sink), 60, harness)
    for program in frozen:
        program.send(signal.SIGCONT)

    # Kill Postgres too, while the processors continue.
    waited = other_sink.log_text().count("waiting for Postgres")
    environment.kill_postgres()
    wait_until(lambda: other_sink.log_text().count("waiting for Postgres") > waited, 60, harness)
    environment.start_postgres()

    # Kill all workers at once: transit must equal the messages in flight.
    with workers.aside(one), workers.aside(other):
        harness.kill(one)
        harness.kill(other)
        with audit_of(environment) as audit:
            assert audit.verify(quiet=False) == []
        other.lose_disk()

    wait_until(lambda: one.ready() and other.ready(), 60, harness)
    environment.kill_broker(1)
    environment.start_broker(1)
    environment.wait_until_serving()

    harness.swap_disk(one, copy)
    wait_until(lambda: one.ready() and other.ready(), 60, harness)
    harness.load.stop()
    with audit_of(environment) as audit:
        harness.settle(audit, 60)
        differences = harness.audit_all(audit)
        exits = {"workers": workers.exits, "sinks": sinks.exits}
        figures = {"kills": workers.kills + sinks.kills, "exits": exits, **audit.figures()}
        sys.stdout.write(json.dumps(figures))
        assert differences == [], "\n".join(differences)
        assert len(audit.positions()) > 1_000
    assert set(workers.exits) | set(sinks.exits) <= {KILLED, 70}, exits


def test_a_disk_of_another_ledger_is_rejected(harness: CrashHarness) -> None:
    with foreign_disk(harness) as copy:
        worker, _ = harness.workers.programs
        harness.load.start()
        harness.swap_disk(worker, copy)
        wait_until(lambda: all(each.ready() for each in harness.workers.programs), 60, harness)
        harness.load.stop()
    with audit_of(harness.environment) as audit:
        harness.settle(audit, 60)
        assert harness.audit_all(audit) == []


def test_old_disks_damaged_blocks_and_redelivered_records(environment: Environment) -> None:
    """`state` is lost and rebuilt. One worker returns with an older disk and the other with a
    damaged one, while consumers deliver records twice."""
    seed = secrets.randbelow(10**6)
    sys.stdout.write(f"seed {seed}\n")
    with harnesses.running_harness(environment, 2, seed, RATE, redelivery_chance=0.05) as harness:
        one, other = harness.workers.programs

        def ready() -> bool:
            return one.ready() and other.ready()

        wait_until(ready, 60, harness)
        harness.load.start()
        wait_until(lambda: len(harness.load.confirmed) > 500, 60, harness)
        old = harness.copy_disk(one)
        wait_until(lambda: len(harness.load.confirmed) > 1_500, 60, harness)
        harness.rebuild_state_topic(lost=True)
        harness.swap_disk(one, old)
        # A restored disk has a table file to damage. New decisions are only in a log at first.
        harness.lose_disk(other)
        wait_until(ready, 60, harness)
        assert "another incarnation" in one.log_text()
        assert harness.damage_disk(other, random.Random(seed))
        wait_until(ready, 60, harness)
        wait_until(harness.redelivered_records, 60, harness)
        harness.load.stop()
        with audit_of(environment) as audit:
            harness.settle(audit, 60)
            differences = harness.audit_all(audit)
            assert differences == [], "\n".join(differences)


def test_programs_wait_for_a_broker_outage(harness: CrashHarness) -> None:
    """No process ends, the logs name the outage, and all continue afterwards."""
    environment, workers = harness.environment, harness.workers.programs
    wait_until(lambda: all(worker.ready() for worker in workers), 60, harness)
    harness.load.start()
    environment.kill_broker(1)
    wait_until(
        lambda: all("waiting for Kafka" in worker.log_text() for worker in workers), 60, harness
    )
    environment.start_broker(1)
    environment.wait_until_serving()
    wait_until(lambda: all(worker.ready() for worker in workers), 60, harness)
    harness.load.stop()
    with audit_of(environment) as audit:
        harness.settle(audit, 60)
        assert harness.audit_all(audit) == []
