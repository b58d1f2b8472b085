"""What must be there before the services start: topics and tables. Both idempotent.

Only makes what is missing; what is there and wrong is for `check_topics` to name and for people to
change. It must not know how Kafka and Postgres are run.
"""

import time
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import SecretStr

from plumbing.failures import Failure
from plumbing.kafka import clients, topic_check
from plumbing.postgres import migrations
from plumbing.settings import AppSettings, KafkaSettings, PostgresSettings, setting
from schemas.topics import ALL, Topic

CLIENT_ID = "provision"
MOST_REPLICAS = 3
TIMEOUT_S = 30.0
POLL_S = 0.05
# The packages that own tables, in the order of their migrations: the first creates the schema.
PACKAGES_WITH_TABLES: Final = ("sinks", "ingress")
# The least-privilege roles that the migrations create.
INGRESS_ROLE: Final = "streamledger_ingress"
SINK_ROLE: Final = "streamledger_sink"


class ProvisionSettings(AppSettings, KafkaSettings, PostgresSettings):
    """What the commands that make and check topics and tables read."""

    ingress_database_password: SecretStr | None = setting(
        None,
        f"The password with which the ingress signs in to Postgres as `{INGRESS_ROLE}`. Where it is"
        " set, `streamledger migrate` gives it to that role.",
        default_text="unset: the role gets no password",
        secret=True,
        min_length=1,
    )
    sink_database_password: SecretStr | None = setting(
        None,
        f"The same for the sink and `{SINK_ROLE}`.",
        default_text="unset: the role gets no password",
        secret=True,
        min_length=1,
    )

    def role_passwords(self) -> dict[str, str]:
        given = {
            INGRESS_ROLE: self.ingress_database_password,
            SINK_ROLE: self.sink_database_password,
        }
        return {role: secret.get_secret_value() for role, secret in given.items() if secret}


def create_topics(brokers: str, settings: KafkaSettings | None = None) -> list[str]:
    """Makes the topics that are missing and returns their names, in the design's order."""
    settings = (settings or ProvisionSettings.read()).model_copy(update={"kafka_brokers": brokers})
    admin = clients.admin(settings, CLIENT_ID)
    layout = topic_check.cluster_layout(admin, settings)
    replicas = settings.replication_factor or min(MOST_REPLICAS, len(layout.brokers))
    missing = [topic for topic in ALL if settings.topics.name_of(topic) not in layout.topics]
    if not missing:
        return []
    new = [_new(topic, settings, replicas) for topic in missing]
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            created = _create(admin, new)
        except NotYet as not_yet:
            if time.monotonic() > deadline:
                raise Failure(*not_yet.lines) from None
            time.sleep(POLL_S)
        else:
            break
    _wait_until_known(admin, settings)
    return created


def check_topics(brokers: str, settings: KafkaSettings | None = None) -> None:
    """Raises a Failure that names each unsafe difference."""
    settings = (settings or ProvisionSettings.read()).model_copy(update={"kafka_brokers": brokers})
    topic_check.check_topics(clients.admin(settings, CLIENT_ID), settings)


def migrate(database_url: str, passwords: Mapping[str, str] | None = None) -> list[str]:
    """Applies the migrations that are missing and returns their names; lets each role that has a
    password sign in."""
    wanted = migrations.bundled(*PACKAGES_WITH_TABLES)
    return migrations.migrate(database_url, wanted, passwords)


def _new(topic: Topic, settings: KafkaSettings, replicas: int) -> NewTopic:
    return NewTopic(
        settings.topics.name_of(topic),
        num_partitions=topic.count(settings.partitions),
        replication_factor=replicas,
        config=topic.config(replicas),
    )


class NotYet(Failure):
    """Brokers that have just started may be known but not yet be allowed to hold topics."""


def _create(admin: AdminClient, topics: list[NewTopic]) -> list[str]:
    created: list[str] = []
    refused: list[str] = []
    not_yet: list[str] = []
    for name, future in admin.create_topics(topics, request_timeout=TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            # Another process was faster: that is as good.
            if cause.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            problems = not_yet if cause.code() == KafkaError.INVALID_REPLICATION_FACTOR else refused
            problems.append(f"topic {name}: cannot be made: {cause.str()}")
        else:
            created.append(name)
    if refused:
        raise Failure(*refused)
    if not_yet:
        raise NotYet(*not_yet)
    return created


def _wait_until_known(admin: clients.Admin, settings: KafkaSettings) -> None:
    """Brokers learn of a new topic a moment after it was made; who starts next must find it."""
    names = {settings.topics.name_of(topic) for topic in ALL}
    deadline = time.monotonic() + TIMEOUT_S
    while missing := names - topic_check.cluster_layout(admin, settings).topics.keys():
        if time.monotonic() > deadline:
            raise Failure(f"made, but not known to the brokers: {', '.join(sorted(missing))}")
        time.sleep(POLL_S)
