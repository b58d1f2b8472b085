"""Random histories of a whole ledger, made in memory by the simulation, and kept: every record of
its topics as it would lie there.

What a partition reads and writes has the offsets that it would have in Kafka without transactions.
"""

import random
from dataclasses import dataclass, field
from functools import cache
from itertools import count, islice

import msgspec

from plumbing.kafka.committed_reader import CommittedRecord
from processor.lanes import batch_output
from processor.rules.decision import Decision, DecisionInput
from processor.rules.evolve import evolve
from processor.rules.state_view import MemoryState
from processor.state.record_digest import digest
from schemas import ids, state_keys
from schemas.journal import JournalRecord, hash_of
from schemas.ledger_parameters import LedgerParameters
from schemas.partitioning import partition_of
from schemas.published_records import DeadLetter, TransactionRecord
from schemas.state import InputPosition, PartitionPosition
from tests.simulation.cluster import LEDGER_ID, Cluster, Log, Logged, Partition
from tests.simulation.run import Run

__all__ = ["LEDGER_ID", "History", "Kept", "MemoryState", "Script", "ids", "of_seed"]

INCARNATION = b"0123456789abcdef"

_decode = msgspec.json.Decoder(JournalRecord).decode


@dataclass
class Kept:
    """One partition: its inputs and its journal, record by record, and the state at the end."""

    number: int
    state: MemoryState
    commands: list[Logged]
    messages: list[Logged]
    journal: list[tuple[bytes | None, bytes]]
    last_hash: str
    # What readers were told with each record, by its sequence: entries, and dead letters by key.
    transactions: list[TransactionRecord] = field(default_factory=list)
    letters: list[tuple[int, bytes | None, DeadLetter]] = field(default_factory=list)
    # What lies in `coordination` and in `commands` beyond its position.
    unread: list[Logged] = field(default_factory=list)
    waiting: list[Logged] = field(default_factory=list)

    def until(self, count: int) -> "Kept":
        """As it was after some journal records; not between what came due and what it came
        before.
        """
        state = MemoryState(self.number)
        read = {"commands": 0, "coordination": 0}
        journal = self.journal[:count]
        for _, value in journal:
            record = _decode(value)
            evolve(state, record)
            read[record.source.topic] = record.source.offset + 1
        return Kept(
            self.number,
            state,
            self.commands[: read["commands"]],
            self.messages[: read["coordination"]],
            journal,
            hash_of(journal[-1][1]),
            [each for each in self.transactions if each.sequence <= count],
            [each for each in self.letters if each[0] <= count],
            [*self.messages[read["coordination"] :], *self.unread],
        )

    def whole_steps(self) -> list[int]:
        """The counts at which a batch may have ended."""
        sources = [_decode(value).source.topic for _, value in self.journal]
        return [count for count, topic in enumerate(sources, 1) if topic != "expiry"]

    def position(self) -> PartitionPosition:
        return PartitionPosition(
            self.state.partition,
            _position(self.commands),
            _position(self.messages),
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
    return InputPosition(last + 1, last, digest(CommittedRecord(last, key, value, time_ms)))


class _WholeLog(Log):
    """Keeps what is forgotten."""

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

    def _compare_with_model(
        self, partition: Partition, input: DecisionInput, decisions: list[Decision]
    ) -> None:
        super()._compare_with_model(partition, input, decisions)
        self._keep(partition, input, decisions)

    def _keep(self, partition: Partition, input: DecisionInput, decisions: list[Decision]) -> None:
        key = None
        if input.topic == "commands" and input.key is not None:
            key = input.key[: batch_output.MAX_KEY_BYTES]
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
        both = partition.commands, partition.messages = _WholeLog(), _WholeLog()
        logs.append(both)
    if not rest:
        run.rest = lambda: None  # type: ignore[method-assign]  # to stop where it stands
    run.run()
    return History([_kept(cluster, each) for each in cluster.partitions])


@cache
def in_flight(seed: int, commands: int, partitions: int) -> History:
    """One that ends in the middle of things, with messages that were not read."""
    for number in count(100 * seed):
        history = of_seed(number, commands, partitions, rest=False)
        if any(b'"number":' in each.value for one in history.partitions for each in one.unread):
            return history
    raise AssertionError("there are seeds without end")


def _kept(cluster: _Recording, partition: Partition) -> Kept:
    sent, messages = partition.commands, partition.messages
    assert isinstance(sent, _WholeLog) and isinstance(messages, _WholeLog)
    return Kept(
        partition.number,
        partition.state.copy(),
        sent.all[: sent.begin],
        messages.all[: messages.begin],
        list(zip(cluster.keys[partition.number], partition.whole, strict=True)),
        partition.hash,
        cluster.entries.get(partition.number, []),
        cluster.letters.get(partition.number, []),
        messages.all[messages.begin :],
        sent.all[sent.begin :],
    )


class Script(_Recording):
    """A short history, command by command, with no model beside it: the rules that make it may be
    wrong."""

    def __init__(self, partitions: int = 2, settings: LedgerParameters | None = None) -> None:
        super().__init__(partitions, random.Random(1), keep_journal=True, save_every=10**9)
        self.keys, self.entries, self.letters = {}, {}, {}
        self._ids = count(1)
        for partition in self.partitions:
            partition.commands, partition.messages = _WholeLog(), _WholeLog()
        self.begin(settings or LedgerParameters())

    def _compare_with_model(
        self, partition: Partition, input: DecisionInput, decisions: list[Decision]
    ) -> None:
        self._keep(partition, input, decisions)

    def log_time(self) -> int:
        return self.now_ms

    def account(self, partition: int, number: int = 0) -> str:
        """The name of an account of a partition."""
        names = (f"account-{each}" for each in range(10**6))
        mine = (name for name in names if partition_of(name, len(self.partitions)) == partition)
        return next(islice(mine, number, None))

    def send(self, key: bytes | None = None, /, **command: object) -> str:
        """A command, decided; the messages that follow wait. Gives its transaction's id."""
        account = str(command["account"])
        command = {"id": f"command-{next(self._ids)}", **command}
        number = partition_of(account, len(self.partitions))
        value = msgspec.json.encode(command)
        self.command(number, account.encode() if key is None else key, value)
        self.step(number, take=1, coordination_first=False)
        own = str(command.get("idempotency_key") or command["id"])
        return ids.transaction_id(account, own, wallets_only=bool(command.get("wallets_only")))

    def open(self, partition: int, number: int = 0, **fields: object) -> str:
        account = self.account(partition, number)
        opened = {"type": "wallet", "currency": "NGN", "account": account, **fields}
        self.send(kind="open_account", **opened)
        self.send(kind="credit", account=account, amount=1_000_000)
        return account

    def deliver(self, number: int, count: int = 1) -> None:
        for _ in range(count):
            self.step(number, take=1, coordination_first=True)

    def settle(self) -> None:
        while any(partition.messages.records for partition in self.partitions):
            for partition in self.partitions:
                self.deliver(partition.number, len(partition.messages.records))

    def pass_time(self, milliseconds: int) -> None:
        self.now_ms += milliseconds
        for partition in self.partitions:
            self.tick(partition.number)
        self.settle()

    def history(self) -> list[Kept]:
        return [_kept(self, each) for each in self.partitions]
