"""`streamledger rebuild state-topic`: the topic `state`, lost or cut, written again from `journal`.

Without it the processor refuses to go on, as all would be decided again. The owners of all lanes
are fenced first. All partitions are checked, with their inputs, before anything is written. Each
partition's position is written last, so that a topic that was cut short is still lost, and the
command is given again.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
from confluent_kafka import KafkaException, Producer
from rocksdict import AccessType, Options, Rdict

from plumbing.failures import Failure
from plumbing.kafka import transactional_producer
from plumbing.kafka.committed_reader import CommittedReader
from processor.admin.input_check import InputCheck
from processor.admin.rebuild_state import (
    MEMORY_MIB,
    Fold,
    Progress,
    RebuiltState,
    StateSources,
    answered,
    table_in,
)
from processor.state import record_digest
from processor.state.record_digest import new_incarnation
from processor.state.recovery import Recovery
from processor.state.store import LOCAL_KEY, Memory, scan
from schemas import state_keys, topics
from schemas.state import PartitionPosition

TIMEOUT_S = 30.0
# Of one Kafka transaction: little enough for its time-out.
MOST_RECORDS, MOST_BYTES = 20_000, 4 * 1024 * 1024

Change = tuple[bytes, bytes | None]

_encode = msgspec.msgpack.encode


@answered()
def write_anew(sources: StateSources, progress: Progress, *, replace: bool) -> list[RebuiltState]:
    """`replace`: also where there is a position that the journal has gone beyond. The client id
    must be the processor's: that is what fences it."""
    memory = Memory(MEMORY_MIB)
    with (
        tempfile.TemporaryDirectory(prefix="streamledger-rebuild-") as folder,
        CommittedReader(sources.config) as reader,
    ):
        lanes = topics.lanes(sources.partitions)
        producers = [fenced(sources, lane) for lane in range(lanes)]
        partitions = [
            _PartitionRebuild(
                sources, reader, number, producers[topics.lane(number, sources.partitions)]
            )
            for number in range(sources.partitions)
        ]
        begun = [each for each in partitions if not each.journal_is_empty()]
        for each in begun:
            each.check(replace=replace)
        for each in begun:
            each.fold(Path(folder), memory, progress)
        return [each.write() for each in begun]


def fenced(sources: StateSources, lane: int) -> Producer:
    """The lane's only producer from here on."""
    producer = transactional_producer.producer(sources.config, lane)
    producer.init_transactions(TIMEOUT_S)
    return producer


class _PartitionRebuild:
    _path: Path
    _position: PartitionPosition

    def __init__(
        self, sources: StateSources, reader: CommittedReader, number: int, producer: Producer
    ) -> None:
        self._sources = sources
        self._reader = reader
        self._number = number
        self._topic = sources.names.state
        self._producer = producer
        Recovery(reader, sources.names, number).check_no_open_transactions()

    def journal_is_empty(self) -> bool:
        start, end = self._reader.range(self._sources.names.journal, self._number)
        return start == end

    def check(self, *, replace: bool) -> None:
        last = self._reader.last(self._topic, self._number)
        if last is None or last.key != state_keys.POSITION or not last.value or replace:
            return
        sequence = record_digest.decode(last.value).partition.sequence
        raise Failure(
            f"partition {self._number} of `{self._topic}` is there, at sequence {sequence}; to"
            " write it again all the same: --replace"
        )

    def fold(self, folder: Path, memory: Memory, progress: Progress) -> None:
        """The journal, with the inputs that it answers."""
        sources, number = self._sources, self._number
        names = sources.names
        with ExitStack() as closing:
            readers = [closing.enter_context(CommittedReader(sources.config)) for _ in range(2)]
            commands = InputCheck(readers[0], names.commands, number, keys=True)
            messages = InputCheck(readers[1], names.coordination, number, keys=False)
            with table_in(folder, number, memory) as table:
                checks = {"commands": commands, "coordination": messages}
                fold = Fold(sources, self._reader, table, number, checks)
                fold.until(None, progress)
                partition = table.partition
            self._position = PartitionPosition(
                partition, commands.position(), messages.position(), fold.hash, new_incarnation()
            )
        self._path = folder / f"partition-{number}"

    def write(self) -> RebuiltState:
        # From here on it is lost, until all of it is there again.
        self._commit([(state_keys.POSITION, None)])
        for changes in _in_transactions(self._changes(self._path)):
            self._commit(changes)
        self._commit([(state_keys.POSITION, _encode(self._position))])
        return RebuiltState(self._number, self._position.partition.sequence)

    def _changes(self, path: Path) -> Iterator[Change]:
        """Every key of the copy; and an end for what only the topic has."""
        database = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
        try:
            own = (state_keys.POSITION, LOCAL_KEY)
            start, end = self._reader.range(self._topic, self._number)
            there = {read.key for read in self._reader.read(self._topic, self._number, start, end)}
            for gone in there:
                if gone is not None and gone not in own and gone not in database:
                    yield gone, None
            for key, value in scan(database, b""):
                if key not in own:
                    yield key, value
        finally:
            database.close()

    def _commit(self, changes: list[Change]) -> None:
        producer = self._producer
        try:
            producer.begin_transaction()
            for key, value in changes:
                producer.produce(self._topic, value, key, self._number)
            producer.commit_transaction(TIMEOUT_S)
        except KafkaException as error:
            raise Failure(
                f"partition {self._number} of `{self._topic}`: {error.args[0].str()}; it is not"
                " whole, give the command again"
            ) from None


def _in_transactions(changes: Iterator[Change]) -> Iterator[list[Change]]:
    some: list[Change] = []
    size = 0
    for key, value in changes:
        some.append((key, value))
        size += len(key) + len(value or b"")
        if len(some) >= MOST_RECORDS or size >= MOST_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
