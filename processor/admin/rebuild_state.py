"""`streamledger rebuild state`: a fresh local copy of each partition, from `state`, or from
`journal` by `evolve` alone.

A copy appears under its own name only when it is whole. It reads and writes no topic's records but
to read them; what the two topics say must come to the same.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import KafkaException

from plumbing.failures import Failure
from plumbing.kafka.committed_reader import CommittedReader, CommittedRecord
from processor.admin.input_check import InputCheck
from processor.rules.decision import BrokenInvariant
from processor.rules.evolve import evolve
from processor.state import checkpoint, record_digest
from processor.state.checkpoint import LocalCheckpoint
from processor.state.recovery import Recovery, check_owner, committed_position
from processor.state.store import Memory, StateStore
from schemas import journal
from schemas.journal import JournalRecord
from schemas.ledger_parameters import FORMAT_LEVEL
from schemas.state import InputPosition, PartitionPosition
from schemas.topics import Names

CHUNK = 10_000
MEMORY_MIB = 128
CACHED = 100_000
UNFINISHED = ".unfinished"

# Called with partition, done and total.
Progress = Callable[[int, int, int], None]

_decode = msgspec.json.Decoder(JournalRecord).decode


class RebuiltState(NamedTuple):
    partition: int
    sequence: int


class StateSources(NamedTuple):
    """Which ledger is rebuilt, and from where."""

    config: Mapping[str, Any]
    names: Names
    ledger_id: str
    partitions: int


@contextmanager
def answered() -> Iterator[None]:
    """What Kafka refuses or leaves unanswered, as something to act on."""
    try:
        yield
    except KafkaException as error:
        raise Failure(f"Kafka: {error.args[0].str()}") from error


@answered()
def from_state(sources: StateSources, folder: Path, progress: Progress) -> list[RebuiltState]:
    """As a processor does that starts without a copy."""
    _fresh(folder)
    memory, rebuilt = Memory(MEMORY_MIB), []
    with CommittedReader(sources.config) as reader:
        for number in range(sources.partitions):
            recovery = Recovery(reader, sources.names, number)
            with table_in(folder, number, memory) as table:
                recovery.restore(table, sources.ledger_id, lambda *at, n=number: progress(n, *at))
                last = recovery.check_journal(table.position)
                if table.position is None or last is None:
                    raise Failure(f"partition {number} has no ledger yet")
                check_owner(table.position, sources.ledger_id, sources.partitions)
                recovery.check_inputs(table.position)
                table.prove(last.offset, table.position.last_hash)
                rebuilt.append(RebuiltState(number, table.partition.sequence))
    return rebuilt


@answered()
def from_journal(sources: StateSources, folder: Path, progress: Progress) -> list[RebuiltState]:
    """Of `state` only the position is taken: how far it is, and that it came to the same."""
    _fresh(folder)
    memory, rebuilt = Memory(MEMORY_MIB), []
    topic = sources.names.state
    with CommittedReader(sources.config) as reader:
        for number in range(sources.partitions):
            last = reader.last(topic, number)
            position = committed_position(reader, sources.names, number)
            if last is None or position is None:
                raise Failure(
                    f"partition {number} of `{topic}` is lost: `streamledger rebuild state-topic`"
                    " writes it again"
                )
            check_owner(position, sources.ledger_id, sources.partitions)
            with table_in(folder, number, memory) as table:
                fold = Fold(sources, reader, table, number)
                fold.until(position.partition.sequence, progress)
                if (table.partition, fold.hash) != (position.partition, position.last_hash):
                    raise Failure(
                        f"partition {number}: at sequence {position.partition.sequence} the journal"
                        f" comes to something else than `{topic}`: `streamledger verify` says what"
                    )
                local = LocalCheckpoint(
                    last.offset + 1, last.time_ms, fold.offset, fold.hash, position.incarnation
                )
                table.commit(table.staged(), position, local)
                rebuilt.append(RebuiltState(number, table.partition.sequence))
    return rebuilt


class Fold:
    """A partition's journal, evolved on a table from its genesis on."""

    def __init__(
        self,
        sources: StateSources,
        reader: CommittedReader,
        table: StateStore,
        number: int,
        inputs: Mapping[str, InputCheck] = MappingProxyType({}),
    ) -> None:
        """`inputs`: by topic, to be compared with what the journal answers."""
        self.hash = journal.genesis_hash(sources.ledger_id, number)
        self.offset = -1
        self._inputs = inputs
        self._reader = reader
        self._topic = sources.names.journal
        self._table = table
        self._number = number

    def until(self, sequence: int | None, progress: Progress) -> None:
        """As far as a sequence, or all that is committed."""
        table, number = self._table, self._number
        start, end = self._reader.range(self._topic, number)
        if start > 0:
            raise Failure(f"partition {number} of `{self._topic}` begins at {start}: it was cut")
        records = self._reader.read(self._topic, number, start, end)
        nowhere = InputPosition()
        while table.partition.sequence != sequence and (chunk := list(islice(records, CHUNK))):
            for read in chunk:
                self._take(read)
                if table.partition.sequence == sequence:
                    break
            # Not yet a copy that anyone may go on from: it has read no changelog.
            table.commit(
                table.staged(),
                PartitionPosition(table.partition, nowhere, nowhere, self.hash),
                LocalCheckpoint(),
            )
            table.forget()
            progress(number, self.offset + 1, end)

    def _take(self, read: CommittedRecord) -> None:
        offset, value = read.offset, read.value or b""
        where = f"partition {self._number} of `{self._topic}`, record at {offset}"
        try:
            record = _decode(value)
            if record.previous_hash != self.hash:
                raise BrokenInvariant("it does not follow on the one before it")
            if record.settings is not None and record.settings.format_level > FORMAT_LEVEL:
                raise Failure(f"{where}: {record_digest.too_new(record.settings.format_level)}")
            evolve(self._table, record)
        except (msgspec.MsgspecError, BrokenInvariant) as error:
            raise Failure(f"{where}: {error}; `streamledger verify` tells more") from error
        self.hash, self.offset = journal.hash_of(value), offset
        if (input := self._inputs.get(record.source.topic)) is not None:
            input.answered(record.source.offset, record.digest, read.key)


@contextmanager
def table_in(folder: Path, number: int, memory: Memory) -> Iterator[StateStore]:
    """A table that gets its name when it is whole."""
    path = folder / f"partition-{number}"
    unfinished = path.with_name(path.name + UNFINISHED)
    table = StateStore(unfinished, number, memory, CACHED)
    try:
        yield table
        checkpoint.note(unfinished, table.local.changelog_next_offset)
    finally:
        table.close()
    unfinished.rename(path)


def _fresh(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise Failure(f"{folder} is not empty: name a folder that is not there yet")
    folder.mkdir(parents=True, exist_ok=True)
