"""What a broker refuses of `commands`: a batch that is vast once it is decompressed, in whatever
compression it came. No client could read one of more than 2 GiB.
"""

import pytest
from confluent_kafka import KafkaError, Message, Producer

from compose import provisioning

MIB = 1024 * 1024
# lz4 makes 255 bytes into one at best.
MOST_DECOMPRESSED = 256 * MIB


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip"])
def test_brokers_refuse_what_is_vast_once_it_is_decompressed(
    kafka: str, topic_prefix: str, compression: str
) -> None:
    values = {"KAFKA_BROKERS": kafka, "TOPIC_PREFIX": topic_prefix, "PARTITIONS": 1}
    settings = provisioning.ProvisionSettings.model_validate(values)
    provisioning.create_topics(kafka, settings)

    def sent(size: int) -> str | None:
        """Why it was refused, if it was."""
        told: list[KafkaError | None] = []
        producer = Producer(
            {
                "bootstrap.servers": kafka,
                "compression.type": compression,
                "message.max.bytes": 2 * MOST_DECOMPRESSED,
                "queue.buffering.max.kbytes": 1024 * 1024,
                "acks": "all",
            }
        )

        def delivered(error: KafkaError | None, _: Message) -> None:
            told.append(error)

        producer.produce(settings.topics.commands, bytes(size), "w1", on_delivery=delivered)
        assert producer.flush(60) == 0
        (error,) = told
        return None if error is None else error.name()

    assert sent(MIB // 2) is None
    assert sent(32 * MIB) is None, "it is small as it is compressed"
    assert sent(MOST_DECOMPRESSED) == "MSG_SIZE_TOO_LARGE"
