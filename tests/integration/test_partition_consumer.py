"""A stalled consumer is replaced, whatever stalled it; one that merely has nothing to read is not.
A paused partition stands for one that the client has stopped fetching.
"""

from collections.abc import Iterator, Mapping

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from plumbing.kafka import clients, stall_watchdog
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.partition_consumer import OutOfOrder
from plumbing.kafka.stall_watchdog import Place, StallWatchdog
from processor.lanes.batch_reader import BatchReader
from schemas.encoding.codecs import AvroSchemas
from schemas.state import InputPosition, PartitionPosition, PartitionState
from schemas.topics import Names
from sinks.journal_chain import beginning
from sinks.worker.journal_consumer import JournalConsumer
from tests.testkit import wire_producer
from tests.testkit.waiting import eventually

# Not so often that what is open is not heard of between two checks.
CHECK_INTERVAL_S = 0.7
CHECKS = 6
REPLACED = 10


@pytest.fixture
def topic(kafka: str, topic_prefix: str) -> str:
    name = f"{topic_prefix}commands"
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    topics = [
        NewTopic(topic_prefix + each, 2, 1) for each in ("commands", "coordination", "journal")
    ]
    for each in admin.create_topics(topics).values():
        each.result(30)
    return name


@pytest.fixture
def producer(kafka: str) -> Producer:
    return Producer({"bootstrap.servers": kafka, "log_level": 0})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Consumer]:
    """Every client that a reader made, and readers that look often."""
    monkeypatch.setattr(stall_watchdog, "CHECK_INTERVAL_S", CHECK_INTERVAL_S)
    found: list[Consumer] = []
    make = clients.committed_consumer

    def noted(config: ClientConfig) -> Consumer:
        found.append(make(config))
        return found[-1]

    monkeypatch.setattr(clients, "committed_consumer", noted)
    return found


@pytest.fixture
def inputs(
    kafka: str, topic: str, topic_prefix: str, made: list[Consumer]
) -> Iterator[BatchReader]:
    started = BatchReader({"bootstrap.servers": kafka}, Names(topic_prefix), AvroSchemas())
    nowhere = PartitionPosition(PartitionState(0), InputPosition(), InputPosition(), "")
    started.start({0: nowhere, 1: nowhere})
    yield started
    started.close()


def produce(producer: Producer, topic: str, partition: int, count: int) -> None:
    for _ in range(count):
        producer.produce(topic, b"{}", b"w1", partition)
    assert producer.flush(30) == 0


class Offsets:
    """Those of the commands that came, by partition."""

    def __init__(self, inputs: BatchReader) -> None:
        self.inputs = inputs
        self.found: dict[int, list[int]] = {0: [], 1: []}

    def come(self, *counts: int) -> bool:
        for batch in self.inputs.take(0.02):
            self.found[batch.partition] += [each.offset for each in batch.commands]
        assert [len(each) for each in self.found.values()] <= list(counts)
        return [len(each) for each in self.found.values()] == list(counts)


def test_another_client_reads_on_where_one_stands_still(
    inputs: BatchReader, producer: Producer, topic: str, made: list[Consumer]
) -> None:
    offsets = Offsets(inputs)
    produce(producer, topic, 0, 3)
    produce(producer, topic, 1, 2)
    eventually(lambda: offsets.come(3, 2), 30)
    # Some are read and not taken yet: they are not read again.
    produce(producer, topic, 0, 4)
    eventually(lambda: inputs.read_ahead(0.02) and inputs.untaken(0) == 4, 30)
    before = len(made)
    made[-1].pause([TopicPartition(topic, 0)])
    produce(producer, topic, 0, 5)
    # The other partition goes on meanwhile.
    produce(producer, topic, 1, 6)
    eventually(lambda: offsets.come(12, 8), 30)
    assert len(made) == before + 1
    assert offsets.found == {0: [*range(12)], 1: [*range(8)]}


def test_a_client_that_never_began_is_replaced(
    inputs: BatchReader, producer: Producer, topic: str, made: list[Consumer]
) -> None:
    made[0].pause([TopicPartition(topic, 1)])
    offsets = Offsets(inputs)
    produce(producer, topic, 1, 2)
    eventually(lambda: offsets.come(0, 2), 30)
    assert len(made) >= 2


def test_a_client_that_has_nothing_to_read_stays(
    kafka: str,
    inputs: BatchReader,
    producer: Producer,
    topic: str,
    made: list[Consumer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was aborted, and what is open, is nothing to read."""
    checks = 0
    check = StallWatchdog._check

    def counted(watchdog: StallWatchdog) -> Mapping[Place, int]:
        nonlocal checks
        checks += 1
        return check(watchdog)

    monkeypatch.setattr(StallWatchdog, "_check", counted)
    offsets = Offsets(inputs)
    produce(producer, topic, 0, 3)
    eventually(lambda: offsets.come(3, 0), 30)
    by = Producer(
        {
            "bootstrap.servers": kafka,
            "transactional.id": topic,
            "transaction.timeout.ms": 10_000,
            "log_level": 0,
        }
    )
    by.init_transactions(30)
    for partition in 0, 1:
        by.begin_transaction()
        produce(by, topic, partition, 2)
        if partition == 0:
            by.abort_transaction(30)

    def looked() -> bool:
        offsets.come(3, 0)
        return checks >= CHECKS

    eventually(looked, 30)
    by.abort_transaction(30)
    assert len(made) == 1


def test_whenever_a_client_is_replaced_nothing_is_read_twice(
    kafka: str,
    topic: str,
    topic_prefix: str,
    producer: Producer,
    made: list[Consumer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also between the first record of what is taken and the rest."""
    monkeypatch.setattr(stall_watchdog, "CHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr(stall_watchdog, "MIN_READS", 1)
    names = Names(topic_prefix)
    journals = JournalConsumer({"bootstrap.servers": kafka}, names)
    journals.start({number: beginning("books", number) for number in (0, 1)})
    found: dict[int, list[int]] = {0: [], 1: []}
    sent = 0

    def replaced_often() -> bool:
        nonlocal sent
        if len(found[0]) == sent:
            made[-1].pause([TopicPartition(names.journal, 0)])
            produce(producer, names.journal, 0, 5)
            sent += 5
        # The other one is busy.
        produce(producer, names.journal, 1, 1)
        for number, read in journals.take(0.1):
            found[number].append(read.offset)
        return len(made) > REPLACED

    eventually(replaced_often, 60)
    journals.close()
    assert found == {number: [*range(len(offsets))] for number, offsets in found.items()}


@pytest.mark.parametrize("claimed", [(0, 0), (0, 1, 0, 1), (1, 0)])
def test_offsets_only_rise_in_what_is_handed_on(
    kafka: str, inputs: BatchReader, topic: str, claimed: tuple[int, ...]
) -> None:
    """Where a record comes twice, or after a later one, nothing of it is decided."""
    records = [(offset, b"w1", b"{}") for offset in claimed]
    eventually(lambda: wire_producer.produce(kafka, topic, 0, records) == 0)
    taken: list[int] = []

    def taken_until_it_is_seen() -> bool:
        with pytest.raises(OutOfOrder, match=f"partition 0 of {topic}"):
            for _ in range(1_000):
                for batch in inputs.take(0.02):
                    taken.extend(command.offset for command in batch.commands)
        return True

    eventually(taken_until_it_is_seen, 30)
    assert taken == []
