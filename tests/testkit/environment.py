"""A Kafka and a Postgres of the crash tests' own: they are killed and started again; topics and a
database are made in them for one ledger.

It must not know what runs on it.
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

NEVER = threading.Event()
CLIENT: dict[str, str | int | float | bool] = {"log_level": 0}


class Environment:
    """One or three brokers and a Postgres, and the topics and the database of one ledger."""

    def __init__(
        self, cluster: kafka.Cluster, server: postgres.Server, prefix: str, partitions: int
    ) -> None:
        self.cluster = cluster
        self.server = server
        self.bootstrap = cluster.bootstrap
        self.prefix = prefix
        self.partitions = partitions
        self.names = Names(prefix)
        self.client = {**CLIENT, "bootstrap.servers": self.bootstrap}
        self.database = server.url(prefix)

    def beside(self) -> "Environment":
        """The same brokers, for another ledger."""
        return Environment(self.cluster, self.server, f"beside-{self.prefix}", self.partitions)

    def make_topics(self) -> None:
        values = {
            "KAFKA_BROKERS": self.bootstrap,
            "TOPIC_PREFIX": self.prefix,
            "PARTITIONS": self.partitions,
        }
        settings = provisioning.ProvisionSettings.model_validate(values)
        provisioning.create_topics(self.bootstrap, settings)

    def make_database(self) -> None:
        conftest.create(self.server.url("postgres"), self.prefix)
        provisioning.migrate(self.database)

    def leader(self, topic: str, partition: int) -> int:
        admin = AdminClient(self.client)
        found = admin.list_topics(topic, timeout=10).topics[topic].partitions[partition]
        return int(found.leader)

    def kill_broker(self, number: int) -> None:
        self.cluster.processes[number].kill()

    def start_broker(self, number: int) -> None:
        self.cluster.start_broker(number)

    def wait_until_serving(self) -> None:
        self.cluster.wait_until_serving(NEVER)

    def kill_postgres(self) -> None:
        assert self.server.process is not None, "it was started"
        self.server.process.kill()

    def start_postgres(self) -> None:
        """Returns when it answers: what was killed is recovered then."""
        self.server.serve(NEVER)


@contextmanager
def running_postgres(folder: DataFolder) -> Iterator[postgres.Server]:
    options = postgres.PostgresOptions(first_port=brokers.some_port(), fast_start=True)
    server = programs.server(folder, options, NEVER)
    try:
        server.start(NEVER)
        yield server
    finally:
        server.stop()


@contextmanager
def running_kafka(folder: DataFolder, count: int) -> Iterator[kafka.Cluster]:
    """Brokers that serve; members of a group may be declared dead after a second."""
    options = kafka.KafkaOptions(
        brokers=count,
        first_port=brokers.some_port(),
        fast_start=True,
        properties=brokers.SHORT_SESSIONS,
    )
    cluster = programs.cluster(folder, options, NEVER)
    try:
        cluster.start(NEVER)
        yield cluster
    finally:
        cluster.stop()
