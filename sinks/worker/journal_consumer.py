"""Reads the journals of a lane, from the positions of the tables and the results.

One consumer per lane, in no consumer group: those positions alone say where to read.
"""

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, Message

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import OffsetRange
from plumbing.kafka.partition_consumer import PartitionConsumer
from plumbing.kafka.stall_watchdog import Place
from schemas.topics import Names
from sinks.journal_chain import JournalPosition, ReadJournalRecord

# Large enough that the fixed costs of a batch vanish, small enough for one Postgres transaction.
MAX_RECORDS = 16_000
TIMEOUT_S = 20.0
KIB = 1024


# With its partition.
PartitionRecord = tuple[int, ReadJournalRecord]


def records_between(next_offset: int, end: int) -> int:
    """An upper bound: the last offset before the end is a transaction marker and is subtracted,
    earlier markers count as records."""
    return max(0, end - next_offset - 1)


class JournalConsumer:
    def __init__(self, config: ClientConfig, names: Names) -> None:
        self._topic = names.journal
        self._reader = PartitionConsumer(
            config,
            {
                "fetch.wait.max.ms": 500,
                "fetch.min.bytes": 1,
                "fetch.error.backoff.ms": 100,
                "fetch.message.max.bytes": 4 * KIB * KIB,
                "queued.min.messages": 2 * MAX_RECORDS,
                "queued.max.messages.kbytes": 16 * KIB,
                "fetch.queue.backoff.ms": 5,
            },
            self._places,
        )
        self._next_offsets: dict[int, int] = {}
        # The journals' ends at `start`.
        self._first_ends: dict[int, int] = {}
        self._at_end: set[int] = set()

    def start(self, positions: Mapping[int, JournalPosition]) -> None:
        for partition, position in positions.items():
            next_offset = position.next_offset
            journal = OffsetRange(*self._reader.watermarks((self._topic, partition), TIMEOUT_S))
            if not journal.start <= next_offset <= journal.end:
                raise Failure(
                    f"partition {partition} of `{self._topic}` has offsets {journal.start} to"
                    f" {journal.end}; the tables or the results are at {next_offset}"
                )
            self._next_offsets[partition] = next_offset
            self._first_ends[partition] = journal.end
        self._reader.start()

    def take(self, timeout_s: float) -> list[PartitionRecord]:
        """Whatever has arrived, as soon as there is anything; empty after the time-out."""
        first = self._reader.poll(timeout_s)
        if first is None:
            return []
        records = self._note([first])
        records += self._note(self._reader.consume(MAX_RECORDS - 1, 0))
        return records

    def _note(self, messages: list[Message]) -> list[PartitionRecord]:
        records = []
        for message in messages:
            error, offset, partition = message.error(), message.offset(), message.partition()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            assert partition is not None, "messages and partition ends have a partition"
            if error is not None:
                self._at_end.add(partition)
                self._reader.note_end(self._topic, message)
                continue
            assert offset is not None, "a message without error has an offset"
            self._at_end.discard(partition)
            self._next_offsets[partition] = offset + 1
            records.append((partition, ReadJournalRecord(offset, message.value() or b"")))
        return records

    def caught_up(self, partition: int) -> bool:
        """Whether everything that was there at `start` is taken. More may have come since."""
        next_offset = self._next_offsets[partition]
        return partition in self._at_end or next_offset >= self._first_ends[partition]

    def lag(self, partition: int) -> int:
        """Offsets not taken yet; 0 if no record is left; -1 if the end is not known."""
        if partition in self._at_end:
            return 0
        end = self._reader.known_end((self._topic, partition))
        return records_between(self._next_offsets[partition], end) if end >= 0 else -1

    def close(self) -> None:
        self._reader.close()

    def _places(self) -> dict[Place, int]:
        return {
            (self._topic, partition): next_offset
            for partition, next_offset in self._next_offsets.items()
        }
