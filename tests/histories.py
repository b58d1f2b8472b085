"""Random histories of a whole ledger, made in memory by the simulation, and kept: every record of
its topics as it would lie there.

What a partition reads and writes has the offsets that it would have in Kafka without transactions.
"""

from dataclasses import dataclass, field
from functools import cache

import msgspec

from processor.positions import Read, digest
from processor.rules.decision import Decision, Input
from processor.rules.evolve import evolve
from processor.rules.state import MemoryState
from schemas import ids, state_keys
from schemas.journal import JournalRecord, hash_of
from schemas.messages import DeadLetter, TransactionRecord
from schemas.state import InputPosition, Position
from tests.simulation.cluster import LEDGER_ID, Cluster, Log, Logged, Partition
from tests.simulation.run import Run

__all__ = ["LEDGER_ID", "History", "Kept", "MemoryState", "ids", "of_seed"]

INCARNATION = b"0123456789abcdef"

_decode = msgspec.json.Decoder(JournalRecord).decode


@dataclass
class Kept:
    """One partition: its inputs and its journal, record by record, and the state at the end."""

    number: int
    state: MemoryState
    commands: list[Logged]
    legs: list[Logged]
    journal: list[tuple[bytes | None, bytes]]
    last_hash: str
    # What readers were told with each record, by its sequence: entries, and dead letters by key.
    transactions: list[TransactionRecord] = field(default_factory=list)
    letters: list[tuple[int, bytes | None, DeadLetter]] = field(default_factory=list)

    def until(self, count: int) -> "Kept":
        """As it was after some journal records; not between what came due and what it came
        before.
        """
        state = MemoryState(self.number)
        read = {"commands": 0, "legs": 0}
        journal = self.journal[:count]
        for _, value in journal:
            record = _decode(value)
            evolve(state, record)
            read[record.source.topic] = record.source.offset + 1
        return Kept(
            self.number,
            state,
            self.commands[: read["commands"]],
            self.legs[: read["legs"]],
            journal,
            hash_of(journal[-1][1]),
            [each for each in self.transactions if each.sequence <= count],
            [each for each in self.letters if each[0] <= count],
        )

    def whole_steps(self) -> list[int]:
        """The counts at which a batch may have ended."""
        sources = [_decode(value).source.topic for _, value in self.journal]
        return [count for count, topic in enumerate(sources, 1) if topic != "expiry"]

    def position(self) -> Position:
        return Position(
            self.state.partition,
            _position(self.commands),
            _position(self.legs),
            self.last_hash,
            INCARNATION,
        )

    def changelog(self) -> list[tuple[bytes, bytes]]:
        """What `state` would have kept, the position last."""
        values = [(key, msgspec.msgpack.encode(v)) for key, v in self.state.values().items()]
        return [*values, (state_keys.POSITION, msgspec.msgpack.encode(self.position()))]


@dataclass
class History:
    partitions: list[Kept] = field(default_factory=list)


def _position(read: list[Logged]) -> InputPosition:
    if not read:
        return InputPosition()
    key, value, time_ms = read[-1]
    last = len(read) - 1
    return InputPosition(last + 1, last, digest(Read(last, key, value, time_ms)))


class _WholeLog(Log):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[Logged] = []

    def append(self, key: bytes | None, value: bytes, time_ms: int) -> None:
        super().append(key, value, time_ms)
        self.all.append(Logged(key, value, time_ms))


class _Recording(Cluster):
    """Keeps what the simulation forgets."""

    keys: dict[int, list[bytes | None]]
    entries: dict[int, list[TransactionRecord]]
    letters: dict[int, list[tuple[int, bytes | None, DeadLetter]]]

    def _told(self, partition: Partition, input: Input, decisions: list[Decision]) -> None:
        super()._told(partition, input, decisions)
        key = input.key if input.topic == "commands" else None
        self.keys.setdefault(partition.number, []).extend(
            [None] * (len(decisions) - 1) + [key],
        )
        for decision in decisions:
            self.entries.setdefault(partition.number, []).extend(decision.transactions)
            if decision.dead_letter is not None:
                letter = decision.record.sequence, key, decision.dead_letter
                self.letters.setdefault(partition.number, []).append(letter)


@cache
def of_seed(seed: int, commands: int = 1_500, partitions: int = 3, *, rest: bool = True) -> History:
    """A whole history; without rest it ends in the middle of things."""
    run = Run(seed, commands, partitions, thorough=True)
    cluster = run.cluster
    cluster.__class__ = _Recording
    assert isinstance(cluster, _Recording)
    cluster.keys, cluster.entries, cluster.letters = {}, {}, {}
    logs = []
    for partition in cluster.partitions:
        both = partition.commands, partition.legs = _WholeLog(), _WholeLog()
        logs.append(both)
    if not rest:
        run.rest = lambda: None  # type: ignore[method-assign]  # to stop where it stands
    run.run()
    history = History()
    for partition, (sent, legs) in zip(cluster.partitions, logs, strict=True):
        history.partitions.append(
            Kept(
                partition.number,
                partition.state,
                sent.all[: partition.commands.begin],
                legs.all[: partition.legs.begin],
                list(zip(cluster.keys[partition.number], partition.whole, strict=True)),
                partition.hash,
                cluster.entries.get(partition.number, []),
                cluster.letters.get(partition.number, []),
            )
        )
    return history
