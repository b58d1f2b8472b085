"""The embedded Kafka and Postgres: killed with -9 they come back with all they had confirmed."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from compose.embedded import artifacts, kafka, os_user, postgres, programs
from compose.embedded.data_dir import POSTGRES_PASSWORD, DataFolder
from compose.embedded.problems import RuntimeProblem
from tests.testkit import brokers
from tests.testkit.waiting import eventually

NEVER = threading.Event()
TOPIC = "kept"
PATIENT_MS = 300_000
WRITTEN = [f"record {number}".encode() for number in range(100)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DataFolder]:
    made = DataFolder(tmp_path / "data")
    made.hold()
    yield made
    made.processes.stop_stale()
    made.release()


def cluster(folder: DataFolder, count: int = 1, **properties: str) -> kafka.Cluster:
    options = kafka.KafkaOptions(
        brokers=count,
        first_port=brokers.some_port(),
        fast_start=True,
        properties={name.replace("_", "."): value for name, value in properties.items()},
    )
    return programs.cluster(folder, options, NEVER)


def server(folder: DataFolder) -> postgres.Server:
    options = postgres.PostgresOptions(first_port=brokers.some_port(), fast_start=True)
    return programs.server(folder, options, NEVER)


def write(bootstrap: str, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(TOPIC, 1, replicas)])[TOPIC].result(20)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    failed: list[object] = []
    for value in WRITTEN:
        producer.produce(TOPIC, value, on_delivery=lambda e, _: failed.append(e) if e else None)
    assert producer.flush(20) == 0
    assert failed == []


def read(bootstrap: str) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
    values: list[bytes] = []

    def all_there() -> bool:
        values.extend(
            m.value() or b"" for m in consumer.consume(len(WRITTEN), 0.5) if not m.error()
        )
        return len(values) >= len(WRITTEN)

    eventually(all_there, timeout_s=60)
    consumer.close()
    return values


def test_a_killed_broker_comes_back_with_the_data(folder: DataFolder) -> None:
    first = cluster(folder)
    write(first.start(NEVER))
    first.processes[1].kill()
    second = cluster(folder)
    assert read(second.start(NEVER)) == WRITTEN
    process = second.processes[1]
    second.stop()
    assert process.exit_code() == kafka.STOPPED_CLEANLY
    assert folder.processes.records() == []


def test_three_brokers_serve_on_when_a_leader_is_killed(folder: DataFolder) -> None:
    three = cluster(folder, count=3)
    bootstrap = three.start(NEVER)
    write(bootstrap, replicas=3)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    leader = admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions[0].leader
    three.processes[leader].kill()
    assert read(bootstrap) == WRITTEN

    def in_sync() -> list[int]:
        try:
            return sorted(admin.list_topics(TOPIC, timeout=5).topics[TOPIC].partitions[0].isrs)
        except KafkaException:
            return []

    eventually(lambda: len(in_sync()) == 2, timeout_s=20)
    three.start_broker(leader)
    eventually(lambda: in_sync() == [1, 2, 3], timeout_s=30)
    three.stop()


def test_a_transaction_ends_where_its_broker_was_out_of_reach_meanwhile(folder: DataFolder) -> None:
    """Kafka 4.3 and 4.4 tell the producer that it is committed, and never write so where a
    partition had no leader at that moment: its readers stand still for ever."""
    settings = {
        # One coordinator for all, so that it can be told who it is.
        "transaction_state_log_num_partitions": "1",
        # A broker looks so often for a leader that it missed, where nothing else wakes it.
        "request_timeout_ms": "10000",
        # Longer than all of this may take, with an election of controllers in it.
        "transaction_max_timeout_ms": str(PATIENT_MS),
    }
    three = cluster(folder, count=3, **settings)
    bootstrap = three.start(NEVER)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": "writer",
            "transaction.timeout.ms": PATIENT_MS,
            "log_level": 0,
        }
    )
    producer.init_transactions(60)

    def leader(topic: str, asked: int) -> int:
        """As one broker knows it; a client that knows them all may ask the one that stands. -1:
        nobody; 0: not known."""
        address = bootstrap.split(",")[asked - 1]
        its = AdminClient({"bootstrap.servers": address, "log_level": 0})
        try:
            known = its.list_topics(topic, timeout=5).topics[topic].partitions.get(0)
        except KafkaException:
            return 0
        return 0 if known is None else int(known.leader)

    coordinator = eventually(lambda: max(0, leader("__transaction_state", 1)), timeout_s=60)
    other = next(number for number in three.processes if number != coordinator)
    lone = NewTopic(TOPIC, 1, replica_assignment=[[other]])
    admin.create_topics([lone])[TOPIC].result(60)
    producer.begin_transaction()
    for value in WRITTEN:
        producer.produce(TOPIC, value)
    assert producer.flush(20) == 0

    stopped = psutil.Process(three.processes[other].child.pid)
    stopped.suspend()
    try:
        eventually(lambda: leader(TOPIC, coordinator) == -1, timeout_s=60)
        producer.commit_transaction(60)
    finally:
        stopped.resume()
    assert read(bootstrap) == WRITTEN
    three.stop()


def test_the_number_of_brokers_is_fixed_at_the_first_start(folder: DataFolder) -> None:
    folder.kafka.mkdir(exist_ok=True)
    (folder.path / "kafka" / "cluster.json").write_text('{"id": "x", "brokers": 1}')
    with pytest.raises(RuntimeProblem, match=r"made with 1 broker\(s\), not 3"):
        cluster(folder, count=3).start(NEVER)


def test_a_killed_postgres_comes_back_with_the_data(folder: DataFolder) -> None:
    first = server(folder)
    with psycopg.connect(first.start(NEVER)) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        connection.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    assert first.process is not None
    first.process.kill()
    second = server(folder)
    with psycopg.connect(second.start(NEVER)) as connection:
        counted = connection.execute("SELECT count(*) FROM kept").fetchone()
    second.stop()
    assert counted == (1000,)
    assert folder.processes.records() == []


def test_a_pid_that_is_somebody_elses_by_now_stops_nothing(folder: DataFolder) -> None:
    first = server(folder)
    first.start(NEVER)
    assert first.process is not None
    first.process.kill()
    lock = next(folder.path.rglob("postmaster.pid"))
    lock.write_text("\n".join([str(os.getpid()), *lock.read_text().splitlines()[1:]]) + "\n")
    second = server(folder)
    second.start(NEVER)
    second.stop()


def test_postgres_asks_for_its_password(folder: DataFolder) -> None:
    started = server(folder)
    url = started.start(NEVER)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url, password="wrong")
    (folder.path / "secrets.env").write_text(f"{POSTGRES_PASSWORD}=another\n")
    started.stop()
    with pytest.raises(RuntimeProblem, match=r"made with another password.*secrets\.env"):
        server(folder).start(NEVER)
    assert (folder.postgres / "data").exists()


def test_who_runs_postgres_is_never_root(folder: DataFolder) -> None:
    """By each way that this machine has: root's are two, others run it as they are."""
    ways = [os_user.choose()] + ([os_user.nobody()] if os.geteuid() == 0 else [])
    for number, who in enumerate(ways):
        (jar,) = programs.fetch([programs.POSTGRES], artifacts.Silent(), NEVER)
        # What nobody has outside is removed below: it must not be what others run from meanwhile.
        cache = artifacts.user_cache() if who.user is None else folder.path / f"cache-{number}"
        unpacked = postgres.unpack(jar, cache, who, NEVER)
        options = postgres.PostgresOptions(first_port=brokers.some_port(), fast_start=True)
        started = postgres.Server(
            folder.path / f"postgres-{number}",
            unpacked,
            folder.processes,
            folder.logs,
            "a password",
            who,
            options,
        )
        with psycopg.connect(started.start(NEVER)) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        started.stop()
        for elsewhere in (folder.path / f"postgres-{number}", cache / "postgres"):
            shutil.rmtree(os_user.outside(elsewhere), ignore_errors=True)
