"""Compares the records that one partition published with its journal: `transactions`, `results` and
the sink's position in `results.positions`.

It must not know the code that publishes them.
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
# How many records before the end of `results.positions` to search for a partition's last position:
# first the short range, then the long one, then all.
LOOK_BACK_RECORDS: Final = (1_000, 100_000)


_SCHEMAS: Final = codecs.AvroSchemas()
_decode_result: Final = msgspec.json.Decoder(Result).decode


def _decode_transaction(value: bytes) -> TransactionRecord:
    """Decodes JSON or Avro. A registry's schema id is taken for that of the published schema."""
    if value[:1] == avro.CONFLUENT:
        record = avro.transaction_schema().read(value[avro.CONFLUENT_HEADER_BYTES :])
        return msgspec.convert(record, TransactionRecord)
    transaction = codecs.decode_transaction(value, _SCHEMAS)
    if isinstance(transaction, codecs.UnreadableRecord):
        raise ValueError(transaction.detail)
    return transaction


class PublishedPosition(Struct, frozen=True):
    """The sink's position: how far it has published the results of a partition."""

    next_offset: int = 0
    sequence: int = 0
    last_hash: str = ""


_decode_position: Final = msgspec.json.Decoder(PublishedPosition).decode


class ResultPositions:
    """The last position of each partition in `results.positions`."""

    def __init__(self, config: ClientConfig, names: Names, partitions: int) -> None:
        self._partitions = partitions
        self._readers = [
            topic_reader.TopicPartitionReader(config, names.results_positions, number, trimmed=True)
            for number in range(lanes(partitions))
        ]
        self._next = [0] * len(self._readers)
        self._values_by_key: dict[bytes, bytes | None] = {}

    def close(self) -> None:
        for reader in self._readers:
            reader.close()

    def read(self) -> None:
        """Reads the records that are new since the last call."""
        for number, reader in enumerate(self._readers):
            keys = {
                str(partition).encode()
                for partition in range(self._partitions)
                if lane(partition, self._partitions) == number
            }
            start, end = reader.range()
            for window in (*LOOK_BACK_RECORDS, end):
                first = max(start, self._next[number], end - window)
                value = {each.key or b"": each.value for each in reader.records(first, end)}
                if first == max(start, self._next[number]) or keys <= value.keys():
                    break
            self._values_by_key.update(value)
            self._next[number] = max(self._next[number], end)

    def position(self, partition: int) -> PublishedPosition:
        """Raises a ValueError if the position cannot be decoded."""
        value = self._values_by_key.get(str(partition).encode())
        return PublishedPosition() if value is None else _decode_position(value)


class Retention(Struct, frozen=True):
    """The age that records reach; None if they are never deleted."""

    transactions_ms: int | None
    results_ms: int | None


def retention(config: ClientConfig, names: Names) -> Retention:
    return Retention(
        topic_reader.retention_ms(config, names.transactions),
        topic_reader.retention_ms(config, names.results),
    )


class PublishedTopics:
    """Covers one partition. Call `before_fold` with each record before the books fold it."""

    def __init__(
        self,
        config: ClientConfig,
        names: Names,
        partition: int,
        partitions: int,
        position: PublishedPosition,
        retention: Retention,
        differences: Differences,
    ) -> None:
        self.position = position
        self._differences = differences
        entries = topic_reader.TopicPartitionReader(
            config, names.transactions, partition, trimmed=True
        )
        self._transactions = TopicComparison(
            "transactions",
            _decode_transaction,
            entries,
            partition,
            (partition,),
            retention.transactions_ms,
            differences,
        )
        results_reader = topic_reader.TopicPartitionReader(
            config, names.results, partition % PARTITIONS, trimmed=True
        )
        sharing = range(partition % PARTITIONS, partitions, PARTITIONS)
        self._results = TopicComparison(
            "results",
            _decode_result,
            results_reader,
            partition,
            sharing,
            retention.results_ms,
            differences,
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
        required = record.sequence <= self.position.sequence
        if result is None:
            self._results.compare(offset, appended_ms, record, (), ())
        else:
            key = expected_messages.result_key(result)
            self._results.compare(offset, appended_ms, record, (result,), (key,), required=required)

    def compare_position(self, books: ReplayedBooks) -> None:
        """Call it when the books have reached the sequence of the results."""
        expected = PublishedPosition(books.last_offset + 1, books.sequence, books.hash or "")
        if books.sequence and self.position != expected:
            what = f"position: {differing(self.position, expected)}"
            self._differences.note("results", what, partition=books.partition)

    def finish(self, sequence: int, current_sequence: Callable[[], int]) -> None:
        """`current_sequence` returns the last sequence that the journal has now."""
        for each in (self._transactions, self._results):
            each.finish(sequence, current_sequence)
            each.close()


def compare_unused(
    config: ClientConfig, names: Names, partitions: int, differences: Differences
) -> None:
    """Partitions of `results` that no ledger partition uses must be empty."""
    for number in range(partitions, PARTITIONS):
        reader = topic_reader.TopicPartitionReader(config, names.results, number, trimmed=True)
        start, end = reader.range()
        for record in reader.records(start, end):
            what = (
                f"partition {number} of the topic, offset {record.offset}, belongs to no partition"
                " of the ledger"
            )
            differences.note("results", what)
        reader.close()
