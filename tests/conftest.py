"""Fixtures that every test may use. Nothing is started for a test that does not ask for it; what
cannot be started fails the tests that do, it never skips them.
"""

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import psycopg
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from psycopg import sql

from compose.embedded import data_dir
from tests.testkit import brokers


def pytest_configure() -> None:
    """Who runs the tests in the background may have had Ctrl-C ignored, and programs inherit that:
    those that are interrupted here would not end."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def embedded_folder() -> Iterator[data_dir.DataFolder]:
    """Where the embedded parts of this run keep their data; also ended when told to terminate."""

    def terminated(number: int, frame: object) -> None:
        pytest.exit("terminated", returncode=128 + number)

    before = signal.signal(signal.SIGTERM, terminated)
    with brokers.data_folder() as made:
        yield made
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[str]:
    """The addresses of a running Kafka."""
    if named := os.environ.get("STREAMLEDGER_TEST_KAFKA"):
        yield named
    elif brokers.docker_answers():
        with brokers.kafka_container() as started:
            yield started
    else:
        with brokers.embedded_kafka(request.getfixturevalue("embedded_folder")) as started:
            yield started


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database in a running Postgres, as somebody who may make others."""
    if named := os.environ.get("STREAMLEDGER_TEST_POSTGRES"):
        yield named
    elif brokers.docker_answers():
        with brokers.postgres_container() as started:
            yield started
    else:
        with brokers.embedded_postgres(request.getfixturevalue("embedded_folder")) as started:
            yield started


@pytest.fixture
def topic_prefix(kafka: str) -> Iterator[str]:
    """What this test's topics, groups and transactional ids begin with; its topics are deleted."""
    prefix = f"t{secrets.token_hex(5)}-"
    yield prefix
    with suppress(KafkaException):  # a test may have stopped the broker that it was given
        admin = AdminClient({"bootstrap.servers": kafka})
        if mine := [t for t in admin.list_topics(timeout=5).topics if t.startswith(prefix)]:
            for deleted in admin.delete_topics(mine).values():
                deleted.result(10)


@pytest.fixture(scope="session")
def template(postgres: str) -> Iterator[str]:
    """The name of a database that has every migration and no rows."""
    from compose import provisioning

    name = f"template_{secrets.token_hex(5)}"
    create(postgres, name)
    provisioning.migrate(beside(postgres, name))
    yield name
    drop(postgres, name)


@pytest.fixture
def database(postgres: str, template: str) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    name = f"test_{secrets.token_hex(5)}"
    create(postgres, name, template)
    yield beside(postgres, name)
    drop(postgres, name)


def create(admin: str, name: str, template: str = "template0") -> None:
    run(admin, "CREATE DATABASE {} TEMPLATE {}", name, template)


def drop(admin: str, name: str) -> None:
    run(admin, "DROP DATABASE {} WITH (FORCE)", name)


def run(admin: str, statement: str, *names: str) -> None:
    with psycopg.connect(admin, autocommit=True) as connection:
        parts = map(sql.Identifier, names)
        connection.execute(sql.SQL(statement).format(*parts))


def beside(admin: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlsplit(admin)._replace(path=f"/{name}").geturl()
