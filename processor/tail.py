"""The last record of a partition, without reading all of it: for those who look from outside."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from plumbing.failures import Failure
from plumbing.kafka import ClientConfig
from processor.inputs import MOST_BYTES, Read, as_read
from schemas import state
from schemas.state import Position

TIMEOUT_S = 15.0

_decode_position = msgspec.msgpack.Decoder(Position).decode


@contextmanager
def reader(config: ClientConfig) -> Iterator[Consumer]:
    """Reads what is committed, in no group, from where it is told."""
    consumer = Consumer(
        {
            **config,
            "group.id": "none",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            **MOST_BYTES,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def read(consumer: Consumer, topic: str, partition: int, start: int, end: int) -> Iterator[Read]:
    """The records from start up to, not with, end."""
    consumer.assign([TopicPartition(topic, partition, start)])
    while True:
        message = consumer.poll(TIMEOUT_S)
        if message is None:
            raise Failure(f"partition {partition} of {topic} cannot be read: no answer")
        error, offset = message.error(), message.offset() or 0
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        if offset >= end:
            return
        if error is None:
            yield as_read(message)


def position(consumer: Consumer, topic: str, partition: int) -> Position | None:
    """A partition's position as last committed: the last record of its last transaction."""
    start, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S)
    # Transaction markers take offsets too, so the last record is a little before the end.
    for back in (8, 64, 4_096, end):
        found = list(read(consumer, topic, partition, max(start, end - back), end))
        if found:
            assert found[-1].key == state.POSITION_KEY, "each transaction ends with the position"
            return _decode_position(found[-1].value or b"")
    return None
