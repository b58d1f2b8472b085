"""Are the topics as the ledger needs them? Every service asks at its start and refuses if not.

Each of these would lose, double or block money without a sign: another partition count sends an
account to another writer, a retention forgets the books, a short min ISR forgets what was accepted,
a long broker transaction time-out lets one dead producer hold up a partition.
"""

import time
from dataclasses import dataclass

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AdminClient,
    ConfigResource,
    ResourceType,
)

from plumbing.failures import Failure
from plumbing.kafka import auth_errors, clients
from plumbing.settings import SHORT_BROKER_TXN_TIMEOUT_MS, KafkaSettings
from schemas.topics import ALL, UNLIMITED, Topic

CONTACT_TIMEOUT_S = 5.0
TIMEOUT_S = 15.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0
TXN_TIMEOUT = "transaction.max.timeout.ms"

# More of these is as safe as what we ask for.
AT_LEAST = frozenset({"min.insync.replicas", "delete.retention.ms", "min.compaction.lag.ms"})
RETENTION = frozenset({"retention.ms", "retention.bytes"})

log = structlog.stdlib.get_logger(__name__)


class KafkaUnreachable(Failure):
    pass


class TopicsUnsafe(Failure):
    pass


@dataclass(frozen=True, slots=True)
class Layout:
    """What the cluster has: partitions and replicas of each topic, and the brokers' ids."""

    topics: dict[str, tuple[int, int]]
    brokers: tuple[int, ...]


def check_topics(admin: clients.Admin, settings: KafkaSettings) -> None:
    """Raises TopicsUnsafe with one line for each difference. It blocks."""
    found = differences(admin, settings)
    if found:
        raise TopicsUnsafe(*found)


def wait_for_topics(admin: clients.Admin, settings: KafkaSettings) -> None:
    """The same for who may be started before Kafka is there. What is unsafe, and being refused by
    the brokers, ends it at once."""
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            check_topics(admin, settings)
        except KafkaUnreachable as away:
            log.warning("waiting for Kafka", reason=str(away), pause_s=pause_s)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            return


def differences(admin: clients.Admin, settings: KafkaSettings) -> list[str]:
    layout = cluster_layout(admin, settings)
    names = {settings.topics.name_of(topic): topic for topic in ALL}
    there = {name: topic for name, topic in names.items() if name in layout.topics}
    # To those who may not describe a topic it is not shown.
    may = "" if settings.kafka_security_protocol == "PLAINTEXT" else ", or this user may not see it"
    found = [
        f"topic {name}: not there{may}; `streamledger topics create` makes it"
        for name in names
        if name not in layout.topics
    ]
    configs = _configs(admin, ResourceType.TOPIC, list(there))
    for name, topic in there.items():
        found += _layout_differences(name, topic, layout, settings)
        found += _config_differences(name, topic, layout.topics[name][1], configs[name])
    return found + _txn_timeout_differences(admin, layout, settings)


def cluster_layout(admin: clients.Admin, settings: KafkaSettings) -> Layout:
    try:
        metadata = admin.list_topics(timeout=CONTACT_TIMEOUT_S)
    except KafkaException as error:
        if (why := admin.last_refusal()) is not None:
            raise auth_errors.BrokersRefused(why) from None
        cause: KafkaError = error.args[0]
        raise KafkaUnreachable(
            f"Kafka at {settings.brokers} gives no answer: {cause.str()}"
        ) from None
    topics = {
        name: (len(topic.partitions), min(len(p.replicas) for p in topic.partitions.values()))
        for name, topic in metadata.topics.items()
        if topic.partitions
    }
    return Layout(topics, tuple(sorted(metadata.brokers)))


def _layout_differences(
    name: str, topic: Topic, layout: Layout, settings: KafkaSettings
) -> list[str]:
    found = []
    partitions, replicas = layout.topics[name]
    expected = topic.count(settings.partitions)
    if partitions != expected:
        by = " (PARTITIONS)" if topic.partitions is None else ""
        found.append(f"topic {name}: has {partitions} partitions, must have {expected}{by}")
    wanted = settings.replication_factor
    if wanted is not None and replicas != wanted:
        found.append(
            f"topic {name}: has {replicas} replicas, must have {wanted} (REPLICATION_FACTOR)"
        )
    return found


def _config_differences(
    name: str, topic: Topic, replicas: int, config: dict[str, str] | str
) -> list[str]:
    if isinstance(config, str):
        return [f"topic {name}: its settings cannot be read: {config}"]
    found = []
    for key, wanted in topic.config(replicas).items():
        if key in RETENTION and not topic.retention_fixed:
            continue
        has = config.get(key, "")
        if key in AT_LEAST or (key == "retention.ms" and topic.retention_ms != UNLIMITED):
            enough = has.lstrip("-").isdigit() and (int(has) >= int(wanted) or has == "-1")
            if not enough:
                found.append(f"topic {name}: {key} is {has or 'unknown'}, must be {wanted} or more")
        elif has != wanted:
            found.append(f"topic {name}: {key} is {has or 'unknown'}, must be {wanted}")
    return found


def _txn_timeout_differences(
    admin: clients.Admin, layout: Layout, settings: KafkaSettings
) -> list[str]:
    accepted = settings.allow_broker_txn_timeout_ms
    limit = accepted or SHORT_BROKER_TXN_TIMEOUT_MS
    found = []
    brokers = [str(broker) for broker in layout.brokers]
    for broker, config in _configs(admin, ResourceType.BROKER, brokers).items():
        value = config if isinstance(config, str) else config.get(TXN_TIMEOUT, "unknown")
        if value.isdigit() and int(value) <= SHORT_BROKER_TXN_TIMEOUT_MS:
            continue
        if value.isdigit() and int(value) <= limit:
            log.warning(
                "brokers accept long transactions: a dead producer may hold a partition up",
                broker=broker,
                timeout_ms=int(value),
            )
        elif accepted is not None and not value.isdigit():
            log.warning("transaction time-out not checked", broker=broker, error=value)
        else:
            found.append(
                f"broker {broker}: {TXN_TIMEOUT} is {value}, must be at most {limit};"
                " ALLOW_BROKER_TXN_TIMEOUT_MS accepts a longer one"
            )
    return found


def _configs(
    admin: AdminClient, kind: ResourceType, names: list[str]
) -> dict[str, dict[str, str] | str]:
    """The settings of each resource, or why they cannot be read."""
    # A broker answers only for itself: one request each. Topics share one.
    resources = [ConfigResource(kind, name) for name in names]
    requests = [[one] for one in resources] if kind is ResourceType.BROKER else [resources]
    futures = {
        resource: future
        for request in requests
        if request
        for resource, future in admin.describe_configs(request, request_timeout=TIMEOUT_S).items()
    }
    configs: dict[str, dict[str, str] | str] = {}
    for resource, future in futures.items():
        try:
            entries = future.result()
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            configs[resource.name] = str(cause.str())
        else:
            configs[resource.name] = {key: entry.value for key, entry in entries.items()}
    return configs
