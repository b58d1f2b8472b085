"""Measures how far the copies lag behind the journal: work in flight, or a stalled copy.

It reads the ends of the journal first, then waits for the copies to reach them. A copy that moves
is work in flight. One that does not has lost records, or its writer is not running.
"""

import time
from typing import Final, Literal

import msgspec
from msgspec import Struct

from plumbing.kafka.clients import ClientConfig
from schemas import state_keys
from schemas.journal import JournalRecord
from schemas.state import PartitionPosition
from schemas.topics import Names
from sinks.verify import expected_messages, postgres_comparison, topic_reader
from sinks.verify.published_topics import ResultPositions
from sinks.verify.report import Differences, LaggingCopy

CopyName = Literal["results", "postgres", "state"]
_decode_record: Final = msgspec.json.Decoder(JournalRecord).decode
_decode_position: Final = msgspec.msgpack.Decoder(PartitionPosition).decode


class _JournalEnd(Struct):
    """The last sequence of a partition's journal, and the last one that has an outcome."""

    sequence: int = 0
    outcome_sequence: int = 0


class CopyLag:
    """Covers all partitions. The caller closes it."""

    def __init__(
        self, config: ClientConfig, names: Names, partitions: int, database_url: str | None
    ) -> None:
        self.results = ResultPositions(config, names, partitions)
        self._database_url = database_url
        self._states = [
            topic_reader.TopicPartitionReader(config, names.state, number)
            for number in range(partitions)
        ]
        self._ends = []
        for number in range(partitions):
            journal = topic_reader.TopicPartitionReader(config, names.journal, number)
            self._ends.append(_journal_end(journal))
            journal.close()

    def close(self) -> None:
        self.results.close()
        for state in self._states:
            state.close()

    def wait(self, differences: Differences) -> tuple[LaggingCopy, ...]:
        """Waits once for all copies together. Notes those that stalled, and returns those that
        moved but still lag."""
        deadline = time.monotonic() + topic_reader.CATCH_UP_S
        first = now = self._read_sequences()
        while lagging := self._lagging(now):
            if time.monotonic() > deadline:
                break
            time.sleep(topic_reader.PAUSE_S)
            now = self._read_sequences()
        lagging_copies = []
        for (copy, number), records in sorted(lagging.items()):
            # The processor writes state and journal in one transaction, so state never lags.
            if copy != "state" and now[copy, number] > first[copy, number]:
                lagging_copies.append(LaggingCopy(copy=copy, partition=number, records=records))
            else:
                what = (
                    f"stalled at sequence {now[copy, number]}, {records:,} journal records behind:"
                    " it lost records, or its writer is not running"
                )
                differences.note(copy, what, partition=number)
        return tuple(lagging_copies)

    def _read_sequences(self) -> dict[tuple[CopyName, int], int]:
        """By copy and partition: the sequence that it has reached. Results come first, because the
        sink writes them after Postgres."""
        self.results.read()
        sequences: dict[tuple[CopyName, int], int] = {}
        for number in range(len(self._ends)):
            try:
                sequences["results", number] = self.results.position(number).sequence
            except ValueError:
                sequences["results", number] = 0
        if self._database_url is not None:
            postgres_sequences = postgres_comparison.sequences(self._database_url)
            for number in range(len(self._ends)):
                sequences["postgres", number] = postgres_sequences.get(number, 0)
        for number, state in enumerate(self._states):
            sequences["state", number] = _state_sequence(state)
        return sequences

    def _lagging(
        self, sequences: dict[tuple[CopyName, int], int]
    ) -> dict[tuple[CopyName, int], int]:
        """By copy and partition: how many journal records it is behind, if any."""
        lagging = {}
        for (copy, number), sequence in sequences.items():
            end = self._ends[number]
            records = (end.outcome_sequence if copy == "results" else end.sequence) - sequence
            if records > 0:
                lagging[copy, number] = records
        return lagging


def _journal_end(journal: topic_reader.TopicPartitionReader) -> _JournalEnd:
    """Only a record with an outcome has a result, and the last one may be far before the end."""
    start, end = journal.range()
    journal_end, look_back = _JournalEnd(), 8
    while True:
        for record in journal.records(max(start, end - look_back), end):
            try:
                journal_record = _decode_record(record.value or b"")
            except ValueError:
                continue
            journal_end.sequence = journal_record.sequence
            if expected_messages.result(journal_record) is not None:
                journal_end.outcome_sequence = journal_record.sequence
        if journal_end.outcome_sequence or end - look_back <= start:
            return journal_end
        look_back *= 8


def _state_sequence(state: topic_reader.TopicPartitionReader) -> int:
    last = state.last()
    if last is None or last.key != state_keys.POSITION:
        return 0
    try:
        return _decode_position(last.value or b"").partition.sequence
    except ValueError:
        return 0
