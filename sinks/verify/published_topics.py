"""What readers were told of one partition, beside the journal that it follows from: `transactions`
and `results`, and how far the sink says that the results are.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedRecord
from schemas.encoding import avro, codecs
from schemas.journal import JournalRecord
from schemas.published_records import Result, TransactionRecord
from schemas.topics import RESULTS, Names, lane, lanes
from sinks.verify import expected_messages, topic_reader
from sinks.verify.replayed_books import ReplayedBooks
from sinks.verify.report import Differences
from sinks.verify.topic_comparison import TopicComparison, differing

PARTITIONS: Final = RESULTS.partitions or 1
# How far before the end of `results.positions` a partition's last one is looked for, in turn.
WINDOWS: Final = (1_000, 100_000)


_SCHEMAS: Final = codecs.AvroSchemas()
_result: Final = msgspec.json.Decoder(Result).decode


def _transaction(value: bytes) -> TransactionRecord:
    """In whatever it was written. A registry's id is taken for that of the schema that we write."""
    if value[:1] == avro.CONFLUENT:
        record = avro.transaction_schema().read(value[avro.CONFLUENT_HEADER_BYTES :])
        return msgspec.convert(record, TransactionRecord)
    told = codecs.decode_transaction(value, _SCHEMAS)
    if isinstance(told, codecs.UnreadableRecord):
        raise ValueError(told.detail)
    return told


class PublishedPosition(Struct, frozen=True):
    """How far the results of a partition are, as the sink has told."""

    next_offset: int = 0
    sequence: int = 0
    last_hash: str = ""


_decode_at: Final = msgspec.json.Decoder(PublishedPosition).decode


class ResultPositions:
    """The last that `results.positions` has of each partition."""

    def __init__(self, config: ClientConfig, names: Names, partitions: int) -> None:
        self._partitions = partitions
        self._of = [
            topic_reader.TopicPartitionReader(config, names.results_positions, number, trimmed=True)
            for number in range(lanes(partitions))
        ]
        self._next = [0] * len(self._of)
        self._found: dict[bytes, bytes | None] = {}

    def close(self) -> None:
        for of in self._of:
            of.close()

    def read(self) -> None:
        """What has come since."""
        for number, of in enumerate(self._of):
            keys = {
                str(partition).encode()
                for partition in range(self._partitions)
                if lane(partition, self._partitions) == number
            }
            start, end = of.range()
            for window in (*WINDOWS, end):
                first = max(start, self._next[number], end - window)
                found = {each.key or b"": each.value for each in of.records(first, end)}
                if first == max(start, self._next[number]) or keys <= found.keys():
                    break
            self._found.update(found)
            self._next[number] = max(self._next[number], end)

    def at(self, partition: int) -> PublishedPosition:
        """Raises a ValueError where it cannot be read."""
        found = self._found.get(str(partition).encode())
        return PublishedPosition() if found is None else _decode_at(found)


class Retention(Struct, frozen=True):
    """The age that records reach; None: for good."""

    transactions_ms: int | None
    results_ms: int | None


def kept(config: ClientConfig, names: Names) -> Retention:
    return Retention(
        topic_reader.retention_ms(config, names.transactions),
        topic_reader.retention_ms(config, names.results),
    )


class PublishedTopics:
    """Of one partition. Fold each record before the books have it."""

    def __init__(
        self,
        config: ClientConfig,
        names: Names,
        partition: int,
        partitions: int,
        at: PublishedPosition,
        kept: Retention,
        differences: Differences,
    ) -> None:
        self.at = at
        self._differences = differences
        entries = topic_reader.TopicPartitionReader(
            config, names.transactions, partition, trimmed=True
        )
        self._transactions = TopicComparison(
            "transactions",
            _transaction,
            entries,
            partition,
            (partition,),
            kept.transactions_ms,
            differences,
        )
        outcomes = topic_reader.TopicPartitionReader(
            config, names.results, partition % PARTITIONS, trimmed=True
        )
        sharing = range(partition % PARTITIONS, partitions, PARTITIONS)
        self._results = TopicComparison(
            "results", _result, outcomes, partition, sharing, kept.results_ms, differences
        )

    @property
    def compared(self) -> dict[str, int]:
        return {"transactions": self._transactions.compared, "results": self._results.compared}

    def before_fold(
        self, books: ReplayedBooks, read: CommittedRecord, record: JournalRecord
    ) -> None:
        offset, appended_ms = read.offset, read.time_ms
        entries = expected_messages.transactions(books, record)
        keys = [each.account_id.encode() for each in entries]
        self._transactions.compare(offset, appended_ms, record, entries, keys)
        result = expected_messages.result(record)
        must_be = record.sequence <= self.at.sequence
        if result is None:
            self._results.compare(offset, appended_ms, record, (), ())
        else:
            key = expected_messages.result_key(result)
            self._results.compare(offset, appended_ms, record, (result,), (key,), must_be=must_be)

    def compare_position(self, books: ReplayedBooks) -> None:
        """Once the books have just the records that the results have."""
        expected = PublishedPosition(books.last_offset + 1, books.sequence, books.hash or "")
        if books.sequence and self.at != expected:
            what = f"position: {differing(self.at, expected)}"
            self._differences.note("results", what, partition=books.partition)

    def finish(self, sequence: int, gone_on: Callable[[], int]) -> None:
        """`gone_on` gives how many records the journal has by now."""
        for each in (self._transactions, self._results):
            each.finish(sequence, gone_on)
            each.close()


def compare_unused(
    config: ClientConfig, names: Names, partitions: int, differences: Differences
) -> None:
    """Where no partition of the ledger has its results there are none."""
    for number in range(partitions, PARTITIONS):
        of = topic_reader.TopicPartitionReader(config, names.results, number, trimmed=True)
        start, end = of.range()
        for record in of.records(start, end):
            what = f"partition {number} of the topic, offset {record.offset}, is nobody's"
            differences.note("results", what)
        of.close()
