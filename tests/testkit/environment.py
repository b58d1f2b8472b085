"""A Kafka cluster and a Postgres server that a test may kill and restart, with the topics and the
database of one ledger.

It must not know what runs on them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka.admin import AdminClient

from compose import provisioning
from compose.embedded import kafka, postgres, programs
from compose.embedded.data_dir import DataFolder
from schemas.topics import Names
from tests import conftest
from tests.testkit import brokers

NEVER_STOPPED = threading.Event()
BASE_CLIENT_CONFIG: dict[str, str | int | float | bool] = {"log_level": 0}


class Environment:
    """Brokers and Postgres, and the names of one ledger's topics and database."""

    def __init__(
        self, cluster: kafka.Cluster, server: postgres.Server, prefix: str, partitions: int
    ) -> None:
        self.cluster = cluster
        self.server = server
        self.bootstrap = cluster.bootstrap
        self.prefix = prefix
        self.partitions = partitions
        self.names = Names(prefix)
        self.client = {**BASE_CLIENT_CONFIG, "bootstrap.servers": self.bootstrap}
        self.database = server.url(prefix)

    def for_another_ledger(self) -> "Environment":
        """An environment on the same brokers for another ledger."""
        return Environment(self.cluster, self.server, f"beside-{self.prefix}", self.partitions)

    def make_topics(self) -> None:
        brokers.create_topics(self.bootstrap, self.prefix, self.partitions)

    def make_database(self) -> None:
        conftest.create(self.server.url("postgres"), self.prefix)
        provisioning.migrate(self.database)

    def leader(self, topic: str, partition: int) -> int:
        admin = AdminClient(self.client)
        metadata = admin.list_topics(topic, timeout=10).topics[topic].partitions[partition]
        return int(metadata.leader)

    def kill_broker(self, number: int) -> None:
        self.cluster.processes[number].kill()

    def start_broker(self, number: int) -> None:
        self.cluster.start_broker(number)

    def wait_until_serving(self) -> None:
        self.cluster.wait_until_serving(NEVER_STOPPED)

    def kill_postgres(self) -> None:
        assert self.server.process is not None, "it was started"
        self.server.process.kill()

    def start_postgres(self) -> None:
        """Returns when Postgres has recovered and answers."""
        self.server.serve(NEVER_STOPPED)


@contextmanager
def running_postgres(folder: DataFolder) -> Iterator[postgres.Server]:
    options = postgres.PostgresOptions(first_port=brokers.some_port(), fast_start=True)
    server = programs.server(folder, options, NEVER_STOPPED)
    try:
        server.start(NEVER_STOPPED)
        yield server
    finally:
        server.stop()


@contextmanager
def running_kafka(folder: DataFolder, count: int) -> Iterator[kafka.Cluster]:
    """Running brokers that allow session time-outs of one second."""
    options = kafka.KafkaOptions(
        brokers=count,
        first_port=brokers.some_port(),
        fast_start=True,
        properties=brokers.SHORT_SESSIONS,
    )
    cluster = programs.cluster(folder, options, NEVER_STOPPED)
    try:
        cluster.start(NEVER_STOPPED)
        yield cluster
    finally:
        cluster.stop()
