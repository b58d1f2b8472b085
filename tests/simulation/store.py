"""A partition as a processor keeps it: the same writer on the same RocksDB, beside the simulation's
plain memory. It gets the same inputs, in batches that are cut, closed, crashed and restored at
random, and must write the same bytes.

Kafka is lists in memory here; each batch's records are in them at once, or not at all.
"""

import random
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import mock

import msgspec
from confluent_kafka import Producer

from processor.lanes import batch_output
from processor.lanes import partition_writer as writers
from processor.lanes.batch_reader import Batch
from processor.lanes.partition_writer import Outcomes, PartitionWriter
from processor.rules.decision import DecisionInput
from processor.rules.state_view import MemoryState
from processor.state.checkpoint import LocalCheckpoint
from processor.state.expiry_index import DueIndex
from processor.state.store import Memory, StateStore
from schemas import state_keys
from schemas.encoding import codecs
from schemas.ledger_parameters import Genesis, LedgerParameters
from schemas.state import StateValue
from schemas.topics import Names

NAMES = Names()
MEMORY_MIB = 8
# So little that all of it is used up: accounts in the cache, keys in the window of what is due.
CACHED, WINDOWS = 40, (2, 40)
# A batch is cut where it has written so many bytes.
CUTS = (1, 1_000, 4_000)
EVER_MS = 2**62

Change = tuple[bytes, bytes | None]


class Written(NamedTuple):
    """What a batch wrote, in order; its messages to other partitions by their destination."""

    journal: list[bytes]
    transactions: list[bytes]
    messages: dict[int, list[bytes]]


class _Report(NamedTuple):
    """A delivery report, as much of it as a writer looks at."""

    at: int

    def offset(self) -> int:
        return self.at

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class _Transaction:
    """The producer's side of one Kafka transaction."""

    def __init__(self, next_offsets: dict[str, int]) -> None:
        self.records: defaultdict[tuple[str, int], list[Change]] = defaultdict(list)
        self.next_offsets = dict(next_offsets)

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], partition: int) -> int:
        for message in messages:
            self._add(topic, partition, message["key"], message["value"], message.get("callback"))
        return len(messages)

    def produce(
        self,
        topic: str,
        value: bytes,
        key: bytes | None = None,
        partition: int = -1,
        on_delivery: Callable[[None, _Report], None] | None = None,
        headers: object = None,
    ) -> None:
        self._add(topic, partition, key, value, on_delivery)

    def _add(
        self,
        topic: str,
        partition: int,
        key: Any,
        value: Any,
        delivered: Callable[[None, _Report], None] | None,
    ) -> None:
        offset = self.next_offsets.get(topic, 0)
        self.next_offsets[topic] = offset + 1
        self.records[topic, partition].append((key, value))
        if delivered is not None:
            delivered(None, _Report(offset))


class Store:
    def __init__(self, number: int, memory: Memory, folder: Path, seed: str) -> None:
        self.number = number
        self.accidents: Counter[str] = Counter()
        self._memory = memory
        self._path = folder / f"partition-{number}"
        self._dice = random.Random(f"store {seed} {number}")
        self._next_offsets: dict[str, int] = {}
        # What the changelog has, by key; and what of it the table may lack.
        self._changelog: dict[bytes, bytes | None] = {}
        self._tail: list[Change] = []
        self._open()

    def _open(self) -> None:
        self._table = StateStore(self._path, self.number, self._memory, CACHED)
        self._begin()

    def _begin(self) -> None:
        """What is due is read from the table, and of the batch in flight, again and again."""
        table, dice = self._table, self._dice

        def due(time_ms: int, limit: int) -> list[bytes]:
            if dice.random() < 0.3:
                table._index = DueIndex(table._read_due, dice.choice(WINDOWS))
            return table._index.due(time_ms, limit)

        table.due = due
        self._writer = PartitionWriter(self.number, table, codecs.encode_json)

    def begin(self, genesis: Genesis, settings: LedgerParameters) -> Written:
        self._writer.decide_genesis(genesis, settings)
        written = Written([], [], {})
        self._commit(written)
        return written

    def decide(
        self, inputs: Sequence[DecisionInput], *, of_coordination: bool, crash: str | None
    ) -> Written:
        """Where it crashes, nothing of the batch has happened before its commit, and all of it has
        after it."""
        self._happen()
        position = self._writer.position
        messages, commands = (list(inputs), []) if of_coordination else ([], list(inputs))
        batch = Batch(
            self.number,
            position.coordination.next_offset,
            messages,
            position.commands.next_offset,
            commands,
        )
        written = Written([], [], {})
        most = self._dice.choice(CUTS) if self._dice.random() < 0.3 else batch_output.MAX_BYTES
        with mock.patch.object(writers, "MAX_BYTES", most):
            for _ in self._writer.decide(batch, Outcomes()):
                if crash == "before":
                    break
                self.accidents["batch cut"] += 1
                self._commit(written)
        if crash != "before" and self._writer.writes:
            self._commit(written, crash=crash)
        if crash is not None:
            self._recover()
        return written

    def _happen(self) -> None:
        """Between two batches."""
        chance = self._dice.random()
        if chance < 0.004:
            self.accidents["disk lost"] += 1
            self._table.close()
            shutil.rmtree(self._path)
            self._open()
            self._restore(self._changelog.items())
        elif chance < 0.02:
            self.accidents["reopened"] += 1
            self._table.close()
            self._open()
        elif chance < 0.1:
            self._table.forget()

    def _commit(self, written: Written, crash: str | None = None) -> None:
        transaction = _Transaction(self._next_offsets)
        producer = cast(Producer, transaction)
        self._writer.produce_records(producer, NAMES)
        self._writer.produce_state(producer, NAMES)
        self._next_offsets = transaction.next_offsets
        for (topic, partition), records in transaction.records.items():
            values = [value for _, value in records if value is not None]
            if topic == NAMES.journal:
                written.journal.extend(values)
            elif topic == NAMES.transactions:
                written.transactions.extend(values)
            elif topic == NAMES.coordination:
                written.messages.setdefault(partition, []).extend(values)
            elif topic == NAMES.state:
                self._changelog.update(records)
                self._tail.extend(records)
        if crash is None:
            self._writer.write(producer)
            self._tail.clear()

    def _recover(self) -> None:
        """A new owner opens the copy, and reads of the changelog what it lacks."""
        self.accidents["crashed"] += 1
        self._table.close()
        self._open()
        if self._tail:
            self._restore(self._tail)

    def _restore(self, records: Iterable[Change]) -> None:
        records, left = list(records), self._dice.randrange(1, 200)
        for start in range(0, len(records), left):
            self._table.restore(records[start : start + left], LocalCheckpoint(start))
        self._table.restored()
        self._begin()
        self._tail.clear()

    def differences(self, plain: MemoryState) -> list[str]:
        """Between what the table, or the changelog, and plain memory hold."""
        found = []
        if self._writer.position.partition != plain.partition:
            found.append(f"position: {self._writer.position.partition}, not {plain.partition}")
        values = plain.values()
        self._table.forget()
        for key in values.keys() | self._changelog.keys() - {state_keys.POSITION}:
            expected, there = values.get(key), self._table.get(key)
            if there != expected:
                found.append(f"{key!r}: the table has {there}, not {expected}")
            logged = self._changelog.get(key)
            if logged != _encoded(expected):
                found.append(f"{key!r}: the changelog has {logged!r}, not {expected}")
        self._table.forget()
        due, expected_due = (each.due(EVER_MS, 2**31) for each in (self._table, plain))
        if due != expected_due:
            found.append(f"due: {due}, not {expected_due}")
        return found

    def close(self) -> None:
        self._table.close()


def _encoded(value: StateValue | None) -> bytes | None:
    return None if value is None else msgspec.msgpack.encode(value)
