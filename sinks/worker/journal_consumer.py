"""What a sink reads: the journals of a lane, from the offsets that the tables and the results name.

One consumer for one lane, never in a group: where to read is for them to say.
"""

from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, Message

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import OffsetRange
from plumbing.kafka.partition_consumer import PartitionConsumer, Place
from schemas.topics import Names
from sinks.journal_chain import JournalPosition, ReadJournalRecord

# Enough that a batch's fixed costs vanish; rows of as many are still a small transaction.
MAX_RECORDS = 16_000
TIMEOUT_S = 20.0
KIB = 1024


# A partition, and what was read of it.
Taken = tuple[int, ReadJournalRecord]


def records_between(next_offset: int, end: int) -> int:
    """How many records of a journal may lie there. The last offset before a journal's end is the
    marker of a transaction; those of earlier ones count as records."""
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
        # Where each journal ended when reading began.
        self._first_ends: dict[int, int] = {}
        self._at_end: set[int] = set()

    def start(self, positions: Mapping[int, JournalPosition]) -> None:
        for partition, position in positions.items():
            at = position.next_offset
            there = OffsetRange(*self._reader.watermarks((self._topic, partition), TIMEOUT_S))
            if not there.start <= at <= there.end:
                raise Failure(
                    f"partition {partition} of `{self._topic}` has offsets {there.start} to"
                    f" {there.end}; the tables or the results are at {at}"
                )
            self._next_offsets[partition] = at
            self._first_ends[partition] = there.end
        self._reader.start()

    def take(self, timeout_s: float) -> list[Taken]:
        """All that has arrived, as soon as anything has; nothing if nothing did in time."""
        first = self._reader.poll(timeout_s)
        if first is None:
            return []
        taken = self._noted([first])
        taken += self._noted(self._reader.consume(MAX_RECORDS - 1, 0))
        return taken

    def _noted(self, messages: list[Message]) -> list[Taken]:
        taken = []
        for message in messages:
            error, offset, partition = message.error(), message.offset(), message.partition()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            assert partition is not None, "a message is of a partition, and so is an end"
            if error is not None:
                self._at_end.add(partition)
                self._reader.note_end(self._topic, message)
                continue
            assert offset is not None, "a message without error has an offset"
            self._at_end.discard(partition)
            self._next_offsets[partition] = offset + 1
            taken.append((partition, ReadJournalRecord(offset, message.value() or b"")))
        return taken

    def caught_up(self, partition: int) -> bool:
        """Whether all that was there when reading began was taken. More may have come since."""
        at = self._next_offsets[partition]
        return partition in self._at_end or at >= self._first_ends[partition]

    def lag(self, partition: int) -> int:
        """Offsets that are known to be there and were not taken; 0 where no record was left; -1 if
        not known."""
        if partition in self._at_end:
            return 0
        end = self._reader.known_end((self._topic, partition))
        return records_between(self._next_offsets[partition], end) if end >= 0 else -1

    def close(self) -> None:
        self._reader.close()

    def _places(self) -> dict[Place, int]:
        return {(self._topic, partition): at for partition, at in self._next_offsets.items()}
