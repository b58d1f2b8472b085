"""What a lane reads, and how far behind it is: that ends at 0, whatever other producers leave in
`commands` that is no record, the markers of their transactions and what they aborted."""

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from processor.lanes import batch_reader as reading
from processor.lanes.batch_reader import Batch, BatchReader
from schemas.encoding.codecs import AvroSchemas
from schemas.state import InputPosition, PartitionPosition, PartitionState
from schemas.topics import Names
from tests.testkit import brokers
from tests.testkit.waiting import eventually


@pytest.fixture
def names(kafka: str, topic_prefix: str) -> Names:
    brokers.create_topics(kafka, topic_prefix, 1)
    return Names(topic_prefix)


@pytest.fixture
def producer(kafka: str, names: Names) -> Producer:
    client = Producer(
        {
            "bootstrap.servers": kafka,
            "transactional.id": f"{names.prefix}somebody",
            "transaction.timeout.ms": 10_000,
            "log_level": 0,
        }
    )
    client.init_transactions(30)
    return client


@pytest.fixture
def inputs(kafka: str, names: Names) -> Iterator[BatchReader]:
    client = BatchReader({"bootstrap.servers": kafka}, names, AvroSchemas())
    client.start({0: PartitionPosition(PartitionState(0), InputPosition(), InputPosition(), "")})
    yield client
    client.close()


def write(producer: Producer, names: Names, count: int, *, committed: bool) -> None:
    producer.begin_transaction()
    for _ in range(count):
        producer.produce(names.commands, b"{}", b"w1", 0)
    if committed:
        producer.commit_transaction(30)
    else:
        producer.flush(30)
        producer.abort_transaction(30)


def taken(inputs: BatchReader, count: int) -> list[Batch]:
    """Until `count` commands have arrived and no more are known."""
    found: list[Batch] = []

    def all_are_there() -> bool:
        found.extend(inputs.take(0.1))
        return sum(len(each.commands) for each in found) == count and inputs.lag(0) == 0

    eventually(all_are_there, 30)
    return found


def test_markers_and_aborted_records_are_not_waited_for(
    inputs: BatchReader, names: Names, producer: Producer
) -> None:
    write(producer, names, 3, committed=True)
    taken(inputs, 3)
    write(producer, names, 5, committed=False)
    write(producer, names, 2, committed=True)
    write(producer, names, 4, committed=False)
    batches = taken(inputs, 2)
    # Each batch begins where the one before it ended, as if nothing lay between.
    assert batches[0].commands_from == 3
    assert [read.offset for batch in batches for read in batch.commands] == [10, 11]


def test_what_is_read_ahead_of_a_batch_follows_on_it(
    inputs: BatchReader, names: Names, producer: Producer
) -> None:
    write(producer, names, 3, committed=True)
    (first,) = taken(inputs, 3)
    write(producer, names, 600, committed=True)
    eventually(lambda: inputs.read_ahead(0.1) and inputs.untaken(0) == 600, 30)
    # 600 and a marker: what was read still waits.
    assert inputs.backlog() == inputs.lag(0) >= 600
    write(producer, names, 7, committed=True)
    then = taken(inputs, 607)
    assert [first.commands_from, then[0].commands_from] == [0, 3]
    offsets = [read.offset for batch in then for read in batch.commands]
    assert offsets == [*range(4, 604), *range(605, 612)]
    assert inputs.backlog() == 0


def test_what_is_read_ahead_leaves_room_for_what_comes_last(
    inputs: BatchReader, names: Names, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_READ_AHEAD", 50)
    write(producer, names, 90, committed=True)
    eventually(lambda: not inputs.read_ahead(0.1), 30)
    assert inputs.untaken(0) == 50
    (batch,) = taken(inputs, 90)
    assert len(batch.commands) == 90


def test_what_is_read_at_once_is_bounded_by_its_bytes(
    inputs: BatchReader, names: Names, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More comes while it is read: records alone would not bound what is held."""
    monkeypatch.setattr(reading, "RECORDS_PER_READ", 10)
    monkeypatch.setattr(reading, "MAX_INPUT_BYTES", 100)
    write(producer, names, 95, committed=True)
    batches = taken(inputs, 95)
    sizes = [len(batch.commands) for batch in batches]
    # 4 bytes each, as keys count: after the one that was waited for, the third ten go beyond 100.
    assert max(sizes) <= 31
    assert [read.offset for batch in batches for read in batch.commands] == list(range(95))
