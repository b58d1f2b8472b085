"""Outcomes as their producers see them: one result for each record of `commands`.

Written in one Kafka transaction with how far they are; the teller says when. Knows no table.
"""

import threading
import time
from collections.abc import Mapping, Sequence, Set

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from msgspec import Struct

from plumbing.kafka import clients, transactional_producer
from plumbing.kafka.clients import ClientConfig
from plumbing.worker.lane_thread import StopRequested
from schemas.published_records import Result
from schemas.reasons import Reason
from schemas.topics import RESULTS, Names
from sinks.journal_chain import JournalPosition, SinkRecord, beginning

TIMEOUT_S = 20.0
# Longer than any broker leaves a dead producer's transaction open.
STABLE_TIMEOUT_S = 60.0
POLL_S = 0.1
CHUNK = 10_000
# How far before the end of `results.positions` the last ones are looked for, in turn.
WINDOWS = (1_000, 100_000)

_encode = msgspec.json.Encoder().encode


class ResultPosition(Struct, frozen=True, gc=False):
    """How far the results of one partition of the journal are: the value in `results.positions`."""

    next_offset: int
    sequence: int
    last_hash: str


_decode = msgspec.json.Decoder(ResultPosition).decode


def result_of(record: SinkRecord) -> Result | None:
    """What the record answers; None where it is no outcome of a command."""
    step, command = record.step, record.command
    offset, replay, reason = record.source.offset, False, record.reason
    outcome: str | None
    if record.command_offset is not None:
        offset, outcome = record.command_offset, step
    elif record.source.topic != "commands" or step == "pending":
        return None
    elif step == "replayed":
        outcome, replay = record.first_status, True
    else:
        outcome = "rejected" if step == "refused" else step
    label = command.id if command is not None else None
    if record.refused is not None:
        label = record.refused.id
    return Result(
        partition=record.partition,
        offset=offset,
        outcome=outcome,  # type: ignore[arg-type]  # steps that are outcomes are these
        id=label,
        transaction_id=record.transaction_id,
        kind=None if command is None else command.kind,
        reason=None if reason is None else Reason(reason),
        detail=record.detail,
        replay=replay,
        entries=record.entries,
        trace=None if command is None else command.trace,
        sequence=record.sequence,
        time_ms=record.time_ms,
    )


class Results:
    """What one batch will tell of one partition, gathered while it is read."""

    def __init__(self, partition: int) -> None:
        # That of the journal modulo theirs.
        self._where = partition % RESULTS.count(partitions=1)
        self._messages: list[dict[str, object]] = []

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, record: SinkRecord) -> None:
        result = result_of(record)
        if result is not None:
            key = result.transaction_id or f"{result.partition}:{result.offset}"
            self._messages.append({"key": key, "value": _encode(result)})

    def produce(self, producer: Producer, names: Names) -> None:
        """Within a transaction."""
        transactional_producer.produce_all(producer, names.results, self._messages, self._where)


def tell(
    producer: Producer, names: Names, lane: int, reached: Mapping[int, JournalPosition]
) -> None:
    """Within a transaction, after its results: how far they are, of each partition of the lane."""
    for partition, position in reached.items():
        if position.sequence:
            value = _encode(ResultPosition(*position))
            producer.produce(names.results_positions, value, str(partition), lane)


class Positions:
    """Reads how far the results of partitions are."""

    def __init__(
        self, config: ClientConfig, names: Names, ledger_id: str, stopping: threading.Event
    ) -> None:
        self._config = config
        self._topic = names.results_positions
        self._ledger_id = ledger_id
        self._stopping = stopping

    def of(self, lane: int, partitions: Sequence[int]) -> dict[int, JournalPosition]:
        """Asked for once the lane's producer is initialised: nobody else can commit any for it
        after that."""
        where = TopicPartition(self._topic, lane)
        committed = self._consumer("read_committed")
        try:
            end = self._end_of_all(where)
            self._wait_until_stable(committed, where, end)
            told = _last_of(committed, where, end, {str(number).encode() for number in partitions})
        finally:
            committed.close()
        return {number: self._position(number, told) for number in partitions}

    def _position(self, partition: int, told: Mapping[bytes, ResultPosition]) -> JournalPosition:
        at = told.get(str(partition).encode())
        if at is None:
            return beginning(self._ledger_id, partition)
        return JournalPosition(at.next_offset, at.sequence, at.last_hash)

    def _consumer(self, isolation: str) -> Consumer:
        return clients.reader(
            {
                **self._config,
                "isolation.level": isolation,
                "fetch.wait.max.ms": 100,
            }
        )

    def _end_of_all(self, where: TopicPartition) -> int:
        consumer = self._consumer("read_uncommitted")
        try:
            return int(clients.watermarks(consumer, where, TIMEOUT_S)[1])
        finally:
            consumer.close()

    def _wait_until_stable(self, committed: Consumer, where: TopicPartition, end: int) -> None:
        """A lane's partition has one writer, whose last transaction has ended by now. A reader sees
        what it wrote only once nothing before that is open to the brokers, either."""
        deadline = time.monotonic() + STABLE_TIMEOUT_S
        while clients.watermarks(committed, where, TIMEOUT_S)[1] < end:
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            if self._stopping.wait(POLL_S):
                raise StopRequested


def _last_of(
    consumer: Consumer, where: TopicPartition, end: int, keys: Set[bytes]
) -> dict[bytes, ResultPosition]:
    """The last one of each key that has any."""
    start, _ = clients.watermarks(consumer, where, TIMEOUT_S)
    for window in (*WINDOWS, end):
        first = max(start, end - window)
        told = _last_since(consumer, TopicPartition(where.topic, where.partition, first), end)
        if first == start or keys <= told.keys():
            break
    return told


def _last_since(consumer: Consumer, where: TopicPartition, end: int) -> dict[bytes, ResultPosition]:
    found: dict[bytes, ResultPosition] = {}
    if where.offset >= end:
        return found
    consumer.assign([where])
    quiet_since = time.monotonic()
    while True:
        messages = consumer.consume(CHUNK, 0.2)
        if messages:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > TIMEOUT_S:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        for message in messages:
            error, offset = message.error(), message.offset() or 0
            if error is None:
                if offset < end:
                    found[message.key() or b""] = _decode(message.value() or b"")
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if offset >= end or error is not None:
                return found
