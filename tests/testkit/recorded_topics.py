"""Writes a recorded history into real topics, as a ledger leaves it there.

The topics keep the timestamps of the records, because the history has its own times.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from schemas import topics
from schemas.journal import JournalRecord, hash_of
from schemas.topics import Names
from tests.testkit import naive_results
from tests.testkit.histories import Kept
from tests.testkit.naive_results import PublishedResult

CONFIRM_S = 30.0
ChangeResults = Callable[[list[PublishedResult]], list[PublishedResult]]


def make(bootstrap: str, prefix: str, partitions: int) -> Names:
    names = Names(prefix)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    new = [
        NewTopic(
            names.name_of(topic),
            num_partitions=topic.count(partitions),
            replication_factor=1,
            config={
                **topic.config(1),
                "message.timestamp.type": "CreateTime",
                "message.timestamp.after.max.ms": str(2**62),
            },
        )
        for topic in topics.ALL
    ]
    for created in admin.create_topics(new).values():
        created.result(CONFIRM_S)
    return names


def write(
    bootstrap: str,
    names: Names,
    history: Sequence[Kept],
    state: Iterable[Kept] | None = None,
    results: Iterable[Kept] | None = None,
    change_results: ChangeResults = list,
    journaled_ms: int = 0,
) -> None:
    """Writes every record at its own offset. State and results may be of another time, and results
    may be changed. `journaled_ms`: when the journal was written; 0 is now."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    write_with(producer, names, history, state, results, change_results, journaled_ms)
    assert producer.flush(CONFIRM_S) == 0, "not confirmed in time"


def write_with(
    producer: Producer,
    names: Names,
    history: Sequence[Kept],
    state: Iterable[Kept] | None = None,
    results: Iterable[Kept] | None = None,
    change_results: ChangeResults = list,
    journaled_ms: int = 0,
) -> None:
    for partition_history in history:
        commands, messages = (
            [*partition_history.commands, *partition_history.waiting],
            [*partition_history.messages, *partition_history.unread],
        )
        for topic, logged in ((names.commands, commands), (names.coordination, messages)):
            for key, value, time_ms in logged:
                _produce(producer, topic, partition_history.number, key, value, time_ms)
        for key, value in partition_history.journal:
            _produce(producer, names.journal, partition_history.number, key, value, journaled_ms)
        for entry in partition_history.transactions:
            account = entry.account_id.encode()
            value = msgspec.json.encode(entry)
            _produce(producer, names.transactions, partition_history.number, account, value)
        for _, key, letter in partition_history.letters:
            _produce(producer, names.commands_dead, 0, key, msgspec.json.encode(letter))
    for partition_history in state if state is not None else history:
        for key, value in partition_history.changelog():
            _produce(producer, names.state, partition_history.number, key, value)
    for partition_history in results if results is not None else history:
        _write_results(producer, names, partition_history, len(history), change_results)


def empty(
    bootstrap: str, topic: str, before: int = OFFSET_END, partition: int | None = None
) -> None:
    """Deletes what lies before an offset, or all, of one partition or of each."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    there = admin.list_topics(topic, timeout=CONFIRM_S).topics[topic].partitions
    numbers = there if partition is None else [partition]
    if topic.endswith((topics.STATE.role, topics.RESULTS_POSITIONS.role)):
        _set(admin, topic, "cleanup.policy", "compact,delete")
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none"})
    ends = {}
    for number in numbers:
        ends[number] = consumer.get_watermark_offsets(TopicPartition(topic, number), CONFIRM_S)[1]
    consumer.close()
    gone = [
        TopicPartition(topic, number, end if before == OFFSET_END else min(before, end))
        for number, end in ends.items()
    ]
    for deleted in admin.delete_records(gone).values():
        deleted.result(CONFIRM_S)


def keep(bootstrap: str, topic: str, *, days: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    _set(admin, topic, "retention.ms", str(days * 24 * 3_600_000))


def _set(admin: AdminClient, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(CONFIRM_S)


def results_of(partition_history: Kept) -> list[PublishedResult]:
    records = (
        msgspec.json.decode(value, type=JournalRecord) for _, value in partition_history.journal
    )
    return [result for result in map(naive_results.result_of, records) if result is not None]


def _write_results(
    producer: Producer,
    names: Names,
    partition_history: Kept,
    partitions: int,
    change_results: ChangeResults,
) -> None:
    """All of them, and how far they are."""
    for result in change_results(results_of(partition_history)):
        value = msgspec.json.encode(result.value)
        _produce(producer, names.results, result.partition, result.key.encode(), value)
    end = len(partition_history.journal)
    at = {
        "next_offset": end,
        "sequence": end,
        "last_hash": hash_of(partition_history.journal[-1][1]),
    }
    partition = topics.lane(partition_history.number, partitions)
    key = str(partition_history.number).encode()
    _produce(producer, names.results_positions, partition, key, msgspec.json.encode(at))


def _produce(
    producer: Producer,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    time_ms: int = 0,
) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition, timestamp=time_ms)
        except BufferError:
            producer.poll(0.1)
        else:
            return
