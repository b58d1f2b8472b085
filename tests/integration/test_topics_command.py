"""Topics on a real broker: made once, checked at every start, and each unsafe difference named."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewPartitions

from compose import provisioning
from plumbing.kafka import clients as kafka_clients
from plumbing.kafka import topic_check
from plumbing.kafka.topic_check import KafkaUnreachable, TopicsUnsafe
from schemas import partitioning, topics
from tests.testkit.waiting import eventually

DAY_MS = 86_400_000


def settings_for(
    brokers: str, prefix: str, partitions: int = 2, **others: object
) -> provisioning.ProvisionSettings:
    values = {"KAFKA_BROKERS": brokers, "TOPIC_PREFIX": prefix, "PARTITIONS": partitions, **others}
    return provisioning.ProvisionSettings.model_validate(values)


@pytest.fixture
def settings(kafka: str, topic_prefix: str) -> provisioning.ProvisionSettings:
    return settings_for(kafka, topic_prefix)


@pytest.fixture
def admin(settings: provisioning.ProvisionSettings) -> kafka_clients.Admin:
    return kafka_clients.admin(settings, "test")


def change(admin: kafka_clients.Admin, topic: str, key: str, value: str) -> None:
    entry = ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    (changed,) = admin.incremental_alter_configs([resource]).values()
    changed.result()

    def known() -> bool:
        (described,) = admin.describe_configs([resource]).values()
        return bool(described.result()[key].value == value)

    eventually(known)


def differences(settings: provisioning.ProvisionSettings) -> list[str]:
    with pytest.raises(TopicsUnsafe) as caught:
        provisioning.check_topics(settings.brokers, settings)
    assert caught.value.exit_code == 1
    return list(caught.value.lines)


def test_they_are_made_once_and_are_as_they_must_be(
    settings: provisioning.ProvisionSettings,
) -> None:
    made = provisioning.create_topics(settings.brokers, settings)
    assert made == [settings.topics.name_of(topic) for topic in topics.ALL]
    assert provisioning.create_topics(settings.brokers, settings) == []
    provisioning.check_topics(settings.brokers, settings)


def test_many_may_make_them_at_once(settings: provisioning.ProvisionSettings) -> None:
    with ThreadPoolExecutor(4) as pool:
        each = pool.map(lambda _: provisioning.create_topics(settings.brokers, settings), range(4))
        made = [name for names in each for name in names]
    assert sorted(made) == sorted(settings.topics.name_of(topic) for topic in topics.ALL)
    provisioning.check_topics(settings.brokers, settings)


def test_missing_topics_are_named(settings: provisioning.ProvisionSettings) -> None:
    found = differences(settings)
    assert len(found) == len(topics.ALL)
    assert all("not there; `streamledger topics create` makes it" in line for line in found)


def test_another_partition_count_is_refused(
    kafka: str,
    topic_prefix: str,
    admin: kafka_clients.Admin,
    settings: provisioning.ProvisionSettings,
) -> None:
    provisioning.create_topics(kafka, settings)
    found = differences(settings_for(kafka, topic_prefix, partitions=3))
    assert found == [
        f"topic {topic_prefix}{role}: has 2 partitions, must have 3 (PARTITIONS)"
        for role in ("commands", "coordination", "journal", "transactions", "state")
    ]
    more = NewPartitions(settings.topics.results, 9)
    (created,) = admin.create_partitions([more]).values()
    created.result()

    def named() -> bool:
        line = f"topic {topic_prefix}results: has 9 partitions, must have 8"
        return topic_check.differences(admin, settings) == [line]

    eventually(named)


def test_another_replication_factor_is_refused(
    kafka: str, topic_prefix: str, settings: provisioning.ProvisionSettings
) -> None:
    provisioning.create_topics(kafka, settings)
    found = differences(settings_for(kafka, topic_prefix, REPLICATION_FACTOR=3))
    assert len(found) == len(topics.ALL)
    assert "replicas, must have 3 (REPLICATION_FACTOR)" in found[0]


@pytest.mark.parametrize(
    ("topic", "key", "unsafe"),
    [
        (topics.COMMANDS, "cleanup.policy", "compact"),
        (topics.COMMANDS, "retention.ms", str(DAY_MS)),
        (topics.COMMANDS, "retention.bytes", "1000000"),
        (topics.COMMANDS, "message.timestamp.type", "CreateTime"),
        (topics.COMMANDS, "max.message.bytes", "8388608"),
        (topics.COMMANDS, "compression.type", "producer"),
        (topics.COORDINATION, "retention.ms", "1000"),
        (topics.COORDINATION, "message.timestamp.type", "CreateTime"),
        (topics.JOURNAL, "max.message.bytes", "1048576"),
        (topics.JOURNAL, "unclean.leader.election.enable", "true"),
        (topics.STATE, "cleanup.policy", "compact,delete"),
        (topics.STATE, "delete.retention.ms", str(DAY_MS)),
        (topics.STATE, "min.compaction.lag.ms", "0"),
        (topics.RESULTS, "retention.ms", str(DAY_MS)),
    ],
    ids=lambda value: getattr(value, "role", value),
)
def test_a_topic_that_is_not_safe_is_refused(
    topic: topics.Topic,
    key: str,
    unsafe: str,
    settings: provisioning.ProvisionSettings,
    admin: kafka_clients.Admin,
) -> None:
    provisioning.create_topics(settings.brokers, settings)
    name = settings.topics.name_of(topic)
    change(admin, name, key, unsafe)
    (line,) = differences(settings)
    assert line.startswith(f"topic {name}: {key} is {unsafe}, must be ")


def test_brokers_that_accept_long_transactions_are_refused_unless_told_otherwise(
    settings: provisioning.ProvisionSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioning.create_topics(settings.brokers, settings)
    # A broker reads its limit once, at its start: so it is ours that moves here.
    monkeypatch.setattr(topic_check, "SHORT_BROKER_TXN_TIMEOUT_MS", 9_999)
    (line,) = differences(settings)
    assert "transaction.max.timeout.ms is 15000, must be at most 9999" in line
    assert "ALLOW_BROKER_TXN_TIMEOUT_MS" in line
    accepting = settings.model_copy(update={"allow_broker_txn_timeout_ms": 15_000})
    with structlog.testing.capture_logs() as logged:
        provisioning.check_topics(settings.brokers, accepting)
    assert [(each["log_level"], each["timeout_ms"]) for each in logged] == [("warning", 15_000)]


def test_the_operator_may_keep_transactions_for_a_time_and_results_for_longer(
    settings: provisioning.ProvisionSettings, admin: kafka_clients.Admin
) -> None:
    provisioning.create_topics(settings.brokers, settings)
    change(admin, settings.topics.transactions, "retention.ms", str(DAY_MS))
    change(admin, settings.topics.results, "retention.ms", str(30 * DAY_MS))
    change(admin, settings.topics.state, "delete.retention.ms", str(30 * DAY_MS))
    provisioning.check_topics(settings.brokers, settings)


def test_a_broker_that_gives_no_answer_is_named(topic_prefix: str) -> None:
    with pytest.raises(KafkaUnreachable, match=r"Kafka at 127\.0\.0\.1:1 gives no answer"):
        provisioning.check_topics("127.0.0.1:1", settings_for("127.0.0.1:1", topic_prefix))


def test_commands_reach_the_partition_that_we_compute(
    settings: provisioning.ProvisionSettings,
) -> None:
    wide = settings.model_copy(update={"partitions": 8})
    provisioning.create_topics(wide.brokers, wide)
    producer = kafka_clients.command_producer(wide, "test-producer")
    landed: dict[str, int] = {}

    def note(error: object, message: object) -> None:
        assert error is None
        landed[message.key().decode()] = message.partition()  # type: ignore[attr-defined]  # untyped

    accounts = ["w1", "alice", "wallet-0001", *(f"account:{n}-{'x' * (n % 41)}" for n in range(80))]
    for account in accounts:
        producer.produce(wide.topics.commands, b"{}", account.encode(), on_delivery=note)
    assert producer.flush(30) == 0
    assert landed == {account: partitioning.partition_of(account, 8) for account in accounts}
