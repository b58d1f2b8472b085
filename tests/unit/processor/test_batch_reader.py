"""What a lane does about faults of its client that a real Kafka cannot be made to show at will."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from plumbing.kafka.partition_consumer import OutOfOrder
from processor.lanes.batch_reader import BatchReader
from processor.lanes.lane import MUCH, LaneProcessor
from schemas.encoding.codecs import AvroSchemas
from schemas.state import InputPosition, PartitionPosition, PartitionState
from schemas.topics import Names

NAMES = Names("")


class Consumer:
    """Gives what it was given, and knows of as many commands as it is told to."""

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


class Producer:
    """Commits in whatever thread it is asked to, once it is let."""

    def __init__(self, error: KafkaError | None = None) -> None:
        self.let = threading.Event()
        self.by = ""
        self._error = error

    def commit_transaction(self, _: float) -> None:
        assert self.let.wait(10)
        self.by = threading.current_thread().name
        if self._error is not None:
            raise KafkaException(self._error)


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def inputs(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> BatchReader:
    monkeypatch.setattr("plumbing.kafka.clients.reader", lambda _: consumer)
    made = BatchReader({}, NAMES, AvroSchemas())
    made.start({0: PartitionPosition(PartitionState(0), InputPosition(), InputPosition(), "")})
    return made


def command(offset: int) -> Message:
    return Message(
        topic=NAMES.commands, partition=0, offset=offset, key=b"w1", value=b"{}", timestamp=(2, 1)
    )


def message(offset: int) -> Message:
    return Message(
        topic=NAMES.coordination, partition=0, offset=offset, value=b"{}", timestamp=(2, 1)
    )


def test_an_error_of_no_partition_is_told_as_what_it_is(
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
    inputs._reader._replace({})
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


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, "aside") as made:
        yield made


def commit(inputs: object, producer: Producer, aside: ThreadPoolExecutor) -> None:
    """By an owner that has nothing but what a commit needs."""
    owner = LaneProcessor.__new__(LaneProcessor)
    owner._inputs, owner._producer = inputs, producer  # type: ignore[assignment]
    owner._aside, owner._lane = aside, 0
    owner._commit_transaction()


def test_with_little_before_it_a_lane_commits_by_itself(
    inputs: BatchReader, consumer: Consumer, aside: ThreadPoolExecutor
) -> None:
    consumer.next, consumer.end = [command(0)], MUCH - 1
    producer = Producer()
    producer.let.set()
    commit(inputs, producer, aside)
    assert producer.by == threading.current_thread().name
    assert inputs.ahead(0) == 0


def test_with_much_before_it_a_lane_reads_while_it_commits(
    inputs: BatchReader,
    consumer: Consumer,
    aside: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer.next, consumer.end = [command(n) for n in range(700)], 700
    producer = Producer()
    monkeypatch.setattr("processor.lanes.batch_reader.MAX_AHEAD", 600)

    class Letting:
        """Lets the commit end when nothing more may be read ahead of it."""

        backlog = inputs.backlog

        def read_ahead(self, timeout_s: float) -> bool:
            room = inputs.read_ahead(timeout_s)
            if not room:
                producer.let.set()
            return room

    commit(Letting(), producer, aside)
    assert producer.by.startswith("aside")
    assert inputs.ahead(0) == 600


def test_a_commit_that_fails_meanwhile_fails(
    inputs: BatchReader, consumer: Consumer, aside: ThreadPoolExecutor
) -> None:
    consumer.end = MUCH
    producer = Producer(KafkaError(KafkaError._FENCED))
    producer.let.set()
    with pytest.raises(KafkaException, match="_FENCED"):
        commit(inputs, producer, aside)


def test_a_read_that_fails_does_not_wait_for_the_commit(
    inputs: BatchReader, consumer: Consumer, aside: ThreadPoolExecutor
) -> None:
    consumer.next, consumer.end = [Message(error=KafkaError(KafkaError._ALL_BROKERS_DOWN))], MUCH
    producer = Producer()
    with pytest.raises(KafkaException, match="_ALL_BROKERS_DOWN"):
        commit(inputs, producer, aside)
    assert not producer.let.is_set()
    producer.let.set()
