"""Faults of a lane's client that a real Kafka does not produce on demand."""

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from plumbing.kafka.partition_consumer import OutOfOrder
from processor.lanes.batch_reader import BatchReader
from schemas.encoding.codecs import AvroSchemas
from schemas.state import InputPosition, PartitionPosition, PartitionState
from schemas.topics import Names

NAMES = Names("")


class Consumer:
    """Returns the messages in `next`; `end` is the end of its partition."""

    def __init__(self) -> None:
        self.next: list[Message] = []
        self.end = 0
        # Where it reads from, by topic.
        self.assigned: dict[str, int] = {}

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = {each.topic: each.offset for each in partitions}

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return partitions

    def close(self) -> None: ...

    def consume(self, count: int, _: float) -> list[Message]:
        given, self.next = self.next[:count], self.next[count:]
        return given

    def get_watermark_offsets(self, _: object, cached: bool) -> tuple[int, int]:
        return 0, self.end


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def inputs(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> BatchReader:
    monkeypatch.setattr("plumbing.kafka.clients.committed_consumer", lambda _: consumer)
    reader = BatchReader({}, NAMES, AvroSchemas())
    reader.start({0: PartitionPosition(PartitionState(0), InputPosition(), InputPosition(), "")})
    return reader


def command(offset: int) -> Message:
    return Message(
        topic=NAMES.commands, partition=0, offset=offset, key=b"w1", value=b"{}", timestamp=(2, 1)
    )


def message(offset: int) -> Message:
    return Message(
        topic=NAMES.coordination, partition=0, offset=offset, value=b"{}", timestamp=(2, 1)
    )


def test_an_error_without_a_partition_is_raised_as_it_is(
    inputs: BatchReader, consumer: Consumer
) -> None:
    consumer.next = [Message(error=KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))]
    with pytest.raises(KafkaException, match="Group authorization failed"):
        inputs.read_ahead(0)


def test_a_message_that_was_read_is_no_command_that_waits(
    inputs: BatchReader, consumer: Consumer
) -> None:
    end = Message(topic=NAMES.commands, partition=0, error=KafkaError(KafkaError._PARTITION_EOF))
    consumer.next, consumer.end = [end, message(0)], 1
    inputs.read_ahead(0)
    assert inputs.lag(0) == 0


def test_another_client_reads_on_after_what_was_read_ahead(
    inputs: BatchReader, consumer: Consumer
) -> None:
    consumer.next = [command(0), command(1), message(0)]
    assert inputs.read_ahead(0)
    (batch,) = inputs.take(0)
    assert [len(batch.commands), len(batch.messages)] == [2, 1]
    consumer.next = [command(2), message(1), message(2)]
    assert inputs.read_ahead(0)
    inputs._consumer._replace({})
    assert consumer.assigned == {NAMES.commands: 3, NAMES.coordination: 3}
    consumer.next = [command(3)]
    (batch,) = inputs.take(0)
    assert [each.offset for each in batch.commands] == [2, 3]
    assert [each.offset for each in batch.messages] == [1, 2]


@pytest.mark.parametrize("offset", [1, 0])
def test_nothing_is_decided_of_what_comes_twice_or_late(
    inputs: BatchReader, consumer: Consumer, offset: int
) -> None:
    consumer.next = [command(0), command(1), command(offset)]
    with pytest.raises(OutOfOrder, match=f"offset {offset} came, after 1"):
        inputs.read_ahead(0)
