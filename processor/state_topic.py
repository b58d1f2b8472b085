"""`streamledger rebuild state-topic`: the topic `state`, lost or cut, written anew from `journal`.

Without it the processor refuses to go on, as all would be decided again. Each partition's owner,
its lane's, is fenced first; the position is written last, so that a copy cut short is lost still,
and the command is given again.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from confluent_kafka import KafkaException
from rocksdict import AccessType, Options, Rdict

from plumbing import transactions
from plumbing.failures import Failure
from processor import positions
from processor.committed import CommittedReader
from processor.positions import new_incarnation, position_after
from processor.rebuild import MEMORY_MIB, Fold, Progress, Rebuilt, Sources, answered, table_in
from processor.recovery import Recovery
from processor.table import LOCAL_KEY, Memory
from schemas import state_keys, topics
from schemas.state import InputPosition, Position

TIMEOUT_S = 30.0
# Of one Kafka transaction: little enough for its time-out.
MOST_RECORDS, MOST_BYTES = 20_000, 4 * 1024 * 1024

Change = tuple[bytes, bytes | None]

_encode = msgspec.msgpack.encode


@answered()
def write_anew(sources: Sources, progress: Progress, *, replace: bool) -> list[Rebuilt]:
    """`replace`: also where there is a position that the journal has gone beyond. The client id
    must be the processor's: that is what fences it."""
    memory, rebuilt = Memory(MEMORY_MIB), []
    with (
        tempfile.TemporaryDirectory(prefix="streamledger-rebuild-") as folder,
        CommittedReader(sources.config) as reader,
    ):
        for number in range(sources.partitions):
            one = _Partition(sources, reader, number)
            if not one.journal_is_empty():
                one.check(replace=replace)
                rebuilt.append(one.write(Path(folder), memory, progress))
    return rebuilt


class _Partition:
    def __init__(self, sources: Sources, reader: CommittedReader, number: int) -> None:
        self._sources = sources
        self._reader = reader
        self._number = number
        self._topic = sources.names.state
        self._producer = transactions.producer(
            sources.config, topics.lane(number, sources.partitions)
        )
        self._producer.init_transactions(TIMEOUT_S)
        Recovery(reader, sources.names, number).check_ended()

    def journal_is_empty(self) -> bool:
        start, end = self._reader.range(self._sources.names.journal, self._number)
        return start == end

    def check(self, *, replace: bool) -> None:
        last = self._reader.last(self._topic, self._number)
        if last is None or last.key != state_keys.POSITION or not last.value:
            return
        if not replace:
            sequence = positions.decode(last.value).partition.sequence
            raise Failure(
                f"partition {self._number} of `{self._topic}` is there, at sequence {sequence}; to"
                " write it anew all the same: --replace"
            )
        # From here on it is lost, until all of it is there again.
        self._commit([(state_keys.POSITION, None)])

    def write(self, folder: Path, memory: Memory, progress: Progress) -> Rebuilt:
        number = self._number
        with table_in(folder, number, memory) as table:
            fold = Fold(self._sources, self._reader, table, number)
            fold.until(None, progress)
            partition = table.partition
        position = Position(
            partition,
            self._read_up_to(self._sources.names.commands, fold.read["commands"]),
            self._read_up_to(self._sources.names.legs, fold.read["legs"]),
            fold.hash,
            new_incarnation(),
        )
        path = folder / f"partition-{number}"
        for changes in _in_transactions(self._changes(path)):
            self._commit(changes)
        self._commit([(state_keys.POSITION, _encode(position))])
        return Rebuilt(number, partition.sequence)

    def _read_up_to(self, topic: str, last_offset: int) -> InputPosition:
        if last_offset < 0:
            return InputPosition()
        start, _ = self._reader.range(topic, self._number)
        last = self._reader.at(topic, self._number, last_offset) if last_offset >= start else None
        if last is None:
            # A leg that was read and deleted: nobody will ask for its digest.
            return InputPosition(last_offset + 1, last_offset)
        return position_after(last)

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
            for key, value in database.items():
                assert isinstance(key, bytes) and isinstance(value, bytes), "it is raw"
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
