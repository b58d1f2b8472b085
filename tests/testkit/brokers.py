"""Where the tests' Kafka and Postgres come from: named in the environment, else containers where a
Docker engine answers, else the embedded runtime. One of each for a run, started when first needed.
"""

import os
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from compose import provisioning
from compose.embedded import artifacts, data_dir, kafka, ports, postgres, programs

KAFKA_IMAGE = "apache/kafka:4.2.1"
POSTGRES_IMAGE = "postgres:17.11"
PORTS = range(15_000, 30_000)
PORTS_OF_A_RUN = 1_000
# Lets a member of a group that was killed be declared dead after a second: tests wait for it.
SHORT_SESSIONS = {"group.min.session.timeout.ms": "1000"}
RUNS = Path(tempfile.gettempdir(), f"streamledger-tests-{os.getuid()}")


@cache
def ports_of_this_run() -> range:
    """Several runs go on side by side: each looks for ports in a range of its own, which it has as
    long as it has the first of them."""
    for first in range(PORTS.start, PORTS.stop, PORTS_OF_A_RUN):
        if ports.choose(first):
            return range(first + 1, first + PORTS_OF_A_RUN)
    return PORTS


def some_port() -> int:
    """Where to look for a free port: elsewhere each time."""
    return random.SystemRandom().choice(ports_of_this_run())


def let_go(count: int) -> list[int]:
    """Free ports for a program that is told to take just these, which it can: they are no longer
    chosen by us, and no other run looks where they are."""
    found = [ports.next_free(some_port()) for _ in range(count)]
    for port in found:
        if (descriptor := ports._chosen.pop(port, None)) is not None:
            os.close(descriptor)
    return found


def docker_answers() -> bool:
    if not (os.environ.get("DOCKER_HOST") or Path("/var/run/docker.sock").exists()):
        return False
    import docker  # type: ignore[import-untyped]  # it has no types
    from docker.errors import DockerException  # type: ignore[import-untyped]  # likewise

    try:
        return bool(docker.from_env(timeout=5).ping())
    except DockerException:
        return False


@contextmanager
def data_folder() -> Iterator[data_dir.DataFolder]:
    """A folder for this run. What a run that was killed left behind is stopped, by its records."""
    with artifacts.only_one(RUNS, threading.Event()):  # several runs may begin at once
        for path in RUNS.iterdir():
            if path.is_dir():
                sweep(data_dir.DataFolder(path))
        mine = data_dir.DataFolder(Path(tempfile.mkdtemp(dir=RUNS)))
        mine.hold()
    try:
        yield mine
    finally:
        mine.processes.stop_stale()
        mine.clear()
        shutil.rmtree(mine.path)
        mine.release()


def sweep(left: data_dir.DataFolder) -> None:
    try:
        left.hold()
    except data_dir.Busy:
        return  # of a run that goes on
    left.processes.stop_stale()
    left.clear()
    shutil.rmtree(left.path)
    left.release()


@contextmanager
def embedded_kafka(where: data_dir.DataFolder) -> Iterator[str]:
    never = threading.Event()
    options = kafka.KafkaOptions(first_port=some_port(), fast_start=True, properties=SHORT_SESSIONS)
    cluster = programs.cluster(where, options, never)
    try:
        yield cluster.start(never)
    finally:
        cluster.stop()


@contextmanager
def embedded_postgres(where: data_dir.DataFolder) -> Iterator[str]:
    never = threading.Event()
    options = postgres.PostgresOptions(first_port=some_port(), fast_start=True)
    server = programs.server(where, options, never)
    try:
        server.start(never)
        yield server.url("postgres")
    finally:
        server.stop()


@contextmanager
def kafka_container() -> Iterator[str]:
    from testcontainers.core.container import DockerContainer

    port = ports.next_free(some_port())
    its = {1: kafka.Ports(port, 9093)}
    settings = kafka.settings(
        1, its, Path("/tmp/kafka-logs"), kafka.KafkaOptions(properties=SHORT_SESSIONS)
    )
    settings["listeners"] = f"PLAINTEXT://:{port},CONTROLLER://:9093"
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in settings.items():
        container = container.with_env("KAFKA_" + name.upper().replace(".", "_"), str(value))
    with container:
        address = f"{ports.HOST}:{port}"
        kafka.warm_up({"bootstrap.servers": address, **kafka.CLIENT}, 1)
        yield address


@contextmanager
def postgres_container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer(POSTGRES_IMAGE, driver=None) as container:
        yield container.get_connection_url()


def create_topics(bootstrap: str, prefix: str, partitions: int) -> None:
    values = {"KAFKA_BROKERS": bootstrap, "TOPIC_PREFIX": prefix, "PARTITIONS": partitions}
    settings = provisioning.ProvisionSettings.model_validate(values)
    provisioning.create_topics(bootstrap, settings)
