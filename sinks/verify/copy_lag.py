"""How far the copies are behind the journal, and whether they are on their way.

Where the journal stands is asked first. A copy that is not there yet is waited for; work in flight
arrives, or at least moves. One that stands still has lost something, or nobody writes it.
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

Waited = Literal["results", "postgres", "state"]
_decode_record: Final = msgspec.json.Decoder(JournalRecord).decode
_decode_position: Final = msgspec.msgpack.Decoder(PartitionPosition).decode


class _End(Struct):
    """Where a partition's journal stands: its records, and the last of them with an outcome."""

    sequence: int = 0
    outcome: int = 0


class CopyLag:
    """Of all partitions. `close` it."""

    def __init__(
        self, config: ClientConfig, names: Names, partitions: int, database_url: str | None
    ) -> None:
        self.results = ResultPositions(config, names, partitions)
        self._database_url = database_url
        self._states = [
            topic_reader.TopicPartitionReader(config, names.state, each)
            for each in range(partitions)
        ]
        self._ends = []
        for number in range(partitions):
            journal = topic_reader.TopicPartitionReader(config, names.journal, number)
            self._ends.append(_end(journal))
            journal.close()

    def close(self) -> None:
        self.results.close()
        for state in self._states:
            state.close()

    def wait(self, differences: Differences) -> tuple[LaggingCopy, ...]:
        """For all copies together, for a while. Those that moved and have not arrived."""
        deadline = time.monotonic() + topic_reader.CATCH_UP_S
        first = now = self._look()
        while behind := {at: missing for at in now if (missing := self._missing(at, now[at])) > 0}:
            if time.monotonic() > deadline:
                break
            time.sleep(topic_reader.PAUSE_S)
            now = self._look()
        moving = []
        for (copy, number), records in sorted(behind.items()):
            # What the processor writes with the journal, in one transaction, is never behind it.
            if copy != "state" and now[copy, number] > first[copy, number]:
                moving.append(LaggingCopy(copy=copy, partition=number, records=records))
            else:
                what = (
                    f"stands still at sequence {now[copy, number]}, {records:,} journal records"
                    " behind: it lost them, or nobody writes it"
                )
                differences.note(copy, what, partition=number)
        return tuple(moving)

    def _look(self) -> dict[tuple[Waited, int], int]:
        """By copy and partition: how many journal records it has. Results first, as they follow on
        what Postgres has."""
        self.results.read()
        there: dict[tuple[Waited, int], int] = {}
        for number in range(len(self._ends)):
            try:
                there["results", number] = self.results.at(number).sequence
            except ValueError:
                there["results", number] = 0
        if self._database_url is not None:
            rows = postgres_comparison.sequences(self._database_url)
            for number in range(len(self._ends)):
                there["postgres", number] = rows.get(number, 0)
        for number, state in enumerate(self._states):
            there["state", number] = _state_sequence(state)
        return there

    def _missing(self, at: tuple[Waited, int], sequence: int) -> int:
        end = self._ends[at[1]]
        return (end.outcome if at[0] == "results" else end.sequence) - sequence


def _end(journal: topic_reader.TopicPartitionReader) -> _End:
    """Only what has an outcome has a result: the last one may lie well before the end."""
    start, end = journal.range()
    found, back = _End(), 8
    while True:
        for record in journal.records(max(start, end - back), end):
            try:
                said = _decode_record(record.value or b"")
            except ValueError:
                continue
            found.sequence = said.sequence
            if expected_messages.result(said) is not None:
                found.outcome = said.sequence
        if found.outcome or end - back <= start:
            return found
        back *= 8


def _state_sequence(state: topic_reader.TopicPartitionReader) -> int:
    last = state.last()
    if last is None or last.key != state_keys.POSITION:
        return 0
    try:
        return _decode_position(last.value or b"").partition.sequence
    except ValueError:
        return 0
