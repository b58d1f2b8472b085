"""docs/operating.md, where it says what a broker does: a batch is measured as it is, not as it was
compressed, where the topic asks for that; and the ledger's own check has nothing against it.
"""

from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it hides all but the first
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from compose import provision
from plumbing import kafka as clients
from plumbing import topics_check
from tests.waiting import eventually

MIB = 1024 * 1024
PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


def test_brokers_refuse_what_is_large_once_it_is_decompressed(
    kafka: str, topic_prefix: str
) -> None:
    values = {"KAFKA_BROKERS": kafka, "TOPIC_PREFIX": topic_prefix, "PARTITIONS": 1}
    settings = provision.ProvisionSettings.model_validate(values)
    provision.create_topics(kafka, settings)
    topic = settings.topics.commands

    def sent(size: int) -> str | None:
        """Why it was refused, if it was."""
        told: list[KafkaError | None] = []
        producer = Producer(
            {
                "bootstrap.servers": kafka,
                "compression.type": "zstd",
                "message.max.bytes": 64 * MIB,
                "acks": "all",
            }
        )

        def delivered(error: KafkaError | None, _: Message) -> None:
            told.append(error)

        producer.produce(topic, bytes(size), "w1", on_delivery=delivered)
        assert producer.flush(30) == 0
        (error,) = told
        return None if error is None else error.name()

    assert sent(32 * MIB) is None, "it is small as it is compressed"
    assert "add-config compression.type=uncompressed" in PAGE.read_text("utf-8")
    change = ConfigEntry(
        "compression.type", "uncompressed", incremental_operation=AlterConfigOpType.SET
    )
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(30)
    eventually(lambda: sent(2 * MIB) == "MSG_SIZE_TOO_LARGE", 30)
    assert sent(MIB // 2) is None
    assert topics_check.differences(clients.admin(settings, "test"), settings) == []
