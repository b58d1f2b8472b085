"""Outcomes as their producers see them: one result for each record of `commands`.

Results and their positions are produced within one Kafka transaction, which `result_publisher`
begins and ends. It knows no table.
"""

import threading
import time
from collections.abc import Mapping, Sequence, Set

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec import Struct

from plumbing.kafka import transactional_producer
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedReader
from plumbing.worker.lane_thread import StopRequested
from schemas.published_records import Result
from schemas.reasons import Reason
from schemas.topics import RESULTS, Names
from sinks.journal_chain import JournalPosition, SinkRecord, beginning

# Longer than any broker leaves a dead producer's transaction open.
STABLE_TIMEOUT_S = 60.0
POLL_S = 0.1
# The last positions are searched in windows of so many offsets before the end, in turn.
SEARCH_WINDOWS = (1_000, 100_000)

_encode = msgspec.json.Encoder().encode


class ResultPosition(Struct, frozen=True, gc=False):
    """Up to where one journal partition has results: the value in `results.positions`."""

    next_offset: int
    sequence: int
    last_hash: str


_decode = msgspec.json.Decoder(ResultPosition).decode


def result_of(record: SinkRecord) -> Result | None:
    """None if the record is not the outcome of a command."""
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
        outcome=outcome,  # type: ignore[arg-type]  # these steps are the outcomes
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
    """The results of one partition in one batch."""

    def __init__(self, partition: int) -> None:
        # The journal's partition modulo the number of partitions of `results`.
        self._partition = partition % RESULTS.count(partitions=1)
        self._messages: list[dict[str, object]] = []

    def __len__(self) -> int:
        return len(self._messages)

    def add(self, record: SinkRecord) -> None:
        result = result_of(record)
        if result is not None:
            key = result.transaction_id or f"{result.partition}:{result.offset}"
            self._messages.append({"key": key, "value": _encode(result)})

    def produce(self, producer: Producer, names: Names) -> None:
        """Called within a transaction."""
        transactional_producer.produce_all(producer, names.results, self._messages, self._partition)


def produce_positions(
    producer: Producer, names: Names, lane: int, positions: Mapping[int, JournalPosition]
) -> None:
    """Called within a transaction, after its results, for every partition of the lane."""
    for partition, position in positions.items():
        if position.sequence:
            value = _encode(ResultPosition(*position))
            producer.produce(names.results_positions, value, str(partition), lane)


class ResultPositionReader:
    """Reads up to where partitions have results."""

    def __init__(
        self, config: ClientConfig, names: Names, ledger_id: str, stopping: threading.Event
    ) -> None:
        self._config = config
        self._topic = names.results_positions
        self._ledger_id = ledger_id
        self._stopping = stopping

    def read(self, lane: int, partitions: Sequence[int]) -> dict[int, JournalPosition]:
        """Called after the lane's producer is initialised: no other sink can commit a position
        after that."""
        with CommittedReader(self._config) as reader:
            self._wait_until_stable(reader, lane)
            last = self._last_positions(
                reader, lane, {str(number).encode() for number in partitions}
            )
        return {number: self._position(number, last) for number in partitions}

    def _position(self, partition: int, last: Mapping[bytes, ResultPosition]) -> JournalPosition:
        position = last.get(str(partition).encode())
        if position is None:
            return beginning(self._ledger_id, partition)
        return JournalPosition(position.next_offset, position.sequence, position.last_hash)

    def _wait_until_stable(self, reader: CommittedReader, lane: int) -> None:
        """The lane's only writer has ended its last transaction by now. A reader sees it only after
        the brokers have ended it too."""
        deadline = time.monotonic() + STABLE_TIMEOUT_S
        while reader.open_from(self._topic, lane) is not None:
            if time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            if self._stopping.wait(POLL_S):
                raise StopRequested

    def _last_positions(
        self, reader: CommittedReader, lane: int, keys: Set[bytes]
    ) -> dict[bytes, ResultPosition]:
        """By key; keys without a position are missing."""
        start, end = reader.range(self._topic, lane)
        for window in (*SEARCH_WINDOWS, end):
            first = max(start, end - window)
            last = {
                record.key or b"": _decode(record.value or b"")
                for record in reader.read(self._topic, lane, first, end)
            }
            if first == start or keys <= last.keys():
                break
        return last
