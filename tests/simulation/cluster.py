"""A cluster in memory: partitions with their logs, the rules, and every accident that may befall
them.

A step takes a few records of one partition through the rules; its outputs become visible together,
or not at all. The naive model is then told what was read, and must agree with each record of the
journal. Where there is a folder, each partition is kept a second time, as a processor does it: what
that writes must be the same, byte for byte. Nothing here decides anything.
"""

import hashlib
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec

from processor.rules import chain, engine
from processor.rules.decision import Decision, DecisionInput
from processor.rules.evolve import evolve
from processor.rules.journal_header import input_of
from processor.rules.state_view import MemoryState
from processor.state.store import Memory
from schemas import coordination, journal
from schemas.coordination import CoordinationMessage
from schemas.encoding import codecs
from schemas.journal import JournalRecord
from schemas.ledger_parameters import Genesis, LedgerParameters
from tests.model import ledger, values
from tests.simulation import checks
from tests.simulation.store import MEMORY_MIB, Store, Written
from tests.testkit.journal_chains import verify

LEDGER_ID = "simulated"
START_MS = 1_750_000_000_000
AVRO = codecs.AvroSchemas()

_encode = msgspec.json.Encoder().encode
_message = msgspec.json.Decoder(CoordinationMessage).decode
_record = msgspec.json.Decoder(JournalRecord).decode


class Logged(NamedTuple):
    key: bytes | None
    value: bytes
    time_ms: int


class Log:
    """A topic's partition. What was read and committed may be forgotten."""

    def __init__(self) -> None:
        self.begin = 0
        self.records: deque[Logged] = deque()

    @property
    def end(self) -> int:
        return self.begin + len(self.records)

    def append(self, key: bytes | None, value: bytes, time_ms: int) -> None:
        self.records.append(Logged(key, value, time_ms))

    def forget(self, count: int) -> None:
        for _ in range(count):
            self.records.popleft()
        self.begin += count


@dataclass
class Partition:
    number: int
    state: MemoryState
    # A copy as it was saved some time ago, advanced by replaying the journal's tail alone.
    saved: MemoryState
    saved_hash: str
    hash: str
    commands: Log = field(default_factory=Log)
    messages: Log = field(default_factory=Log)
    tail: list[bytes] = field(default_factory=list)
    whole: list[bytes] = field(default_factory=list)
    # Coordination messages that were read, kept to be delivered again.
    delivered: deque[Logged] = field(default_factory=lambda: deque(maxlen=20))
    # Offsets of commands that are still pending.
    waiting: set[int] = field(default_factory=set)
    answered: int = 0
    store: Store | None = None


class Cluster:
    def __init__(
        self,
        partitions: int,
        dice: random.Random,
        *,
        keep_journal: bool,
        save_every: int,
        folder: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.dice = dice
        self.now_ms = START_MS
        self.model = ledger.Ledger(partitions)
        self.keep_journal = keep_journal
        self.save_every = save_every
        self.steps: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.accidents: Counter[str] = Counter()
        self.partitions = []
        memory = Memory(MEMORY_MIB) if folder is not None else None
        for number in range(partitions):
            first = hashlib.sha256(f"{LEDGER_ID}:{number}".encode()).hexdigest()
            partition = Partition(number, MemoryState(number), MemoryState(number), first, first)
            if folder is not None and memory is not None:
                partition.store = Store(number, memory, folder, str(seed))
            self.partitions.append(partition)

    # What is written to the logs from outside

    def begin(self, settings: LedgerParameters) -> None:
        """Each partition's genesis, which stands in no topic."""
        for partition in self.partitions:
            message = self._configure(settings, genesis=True)
            input = engine.genesis(partition.number, message, _encode(message))
            decided = [engine.apply(partition.state, input)]
            written = self._commit(partition, decided)
            if partition.store is not None:
                assert message.genesis is not None
                checks.same_bytes(partition.store.begin(message.genesis, settings), written)
            self._compare_with_model(partition, input, decided[0])

    def configure(self, number: int, settings: LedgerParameters, *, genesis: bool = False) -> None:
        self._append_own(number, self._configure(settings, genesis=genesis))

    def _configure(self, settings: LedgerParameters, *, genesis: bool) -> coordination.Configure:
        first = Genesis(ledger_id=LEDGER_ID, partitions=len(self.partitions)) if genesis else None
        return coordination.Configure(settings=settings, genesis=first)

    def tick(self, number: int) -> None:
        self._append_own(number, coordination.Tick())

    def decide_log_time(self, number: int) -> None:
        """An operator gives some commands that come next an earlier time."""
        first = self.partitions[number].commands.begin + self.dice.randrange(5)
        last = first + self.dice.randrange(20)
        time_ms = self.now_ms - self.dice.randrange(2_000)
        decision = coordination.LogTime(topic="commands", first=first, last=last, time_ms=time_ms)
        self._append_own(number, decision)

    def _append_own(self, number: int, message: CoordinationMessage) -> None:
        self.partitions[number].messages.append(None, _encode(message), self.log_time())

    def command(
        self, number: int, key: bytes | None, value: bytes, time_ms: int | None = None
    ) -> None:
        if time_ms is None:
            time_ms = self.log_time()
        self.partitions[number].commands.append(key, value, time_ms)

    def deliver_again(self, number: int) -> None:
        """A message that this partition has read, or has still to read, arrives once more."""
        partition = self.partitions[number]
        candidates = [*partition.delivered, *list(partition.messages.records)[:5]]
        numbered = [message for message in candidates if b'"number":' in message.value]
        if numbered:
            again = self.dice.choice(numbered)
            partition.messages.append(again.key, again.value, self.log_time())
            self.accidents["delivered again"] += 1

    def log_time(self) -> int:
        """Near to now; now and then long past."""
        chance = self.dice.random()
        if chance < 0.01:
            return self.now_ms - self.dice.randrange(20_000)
        return self.now_ms + self.dice.randrange(-20, 20)

    # What partitions do

    def backlog(self, number: int) -> int:
        partition = self.partitions[number]
        return len(partition.commands.records) + len(partition.messages.records)

    def step(
        self, number: int, *, take: int, coordination_first: bool, crash: str | None = None
    ) -> None:
        """One batch of one topic: through the rules, into the logs, past the model."""
        partition = self.partitions[number]
        topic_is_coordination = bool(partition.messages.records) and (
            coordination_first or not partition.commands.records
        )
        log = partition.messages if topic_is_coordination else partition.commands
        inputs = [
            self._input(log, topic_is_coordination, place) for place in range(self._most(log, take))
        ]
        decided = [engine.apply(partition.state, input) for input in inputs]
        if crash == "before":
            self.accidents["crashed before the commit"] += 1
            if partition.store is not None:
                partition.store.decide(inputs, of_coordination=topic_is_coordination, crash=crash)
            self._recover(partition)
            return
        written = self._commit(partition, decided)
        if partition.store is not None:
            stored = partition.store.decide(
                inputs, of_coordination=topic_is_coordination, crash=crash
            )
            checks.same_bytes(stored, written)
        if crash == "after":
            self.accidents["crashed after the commit"] += 1
            self._recover(partition)
        for input, decisions in zip(inputs, decided, strict=True):
            self._compare_with_model(partition, input, decisions)
        if topic_is_coordination:
            partition.delivered.extend(log.records[place] for place in range(len(inputs)))
        log.forget(len(inputs))
        if len(partition.tail) >= self.save_every:
            self.save(number)

    def _most(self, log: Log, take: int) -> int:
        return min(take, len(log.records))

    def _input(self, log: Log, topic_is_coordination: bool, place: int) -> DecisionInput:
        key, value, time_ms = log.records[place]
        if topic_is_coordination:
            return input_of("coordination", log.begin + place, key, value, time_ms, _message(value))
        message = codecs.decode_command(value, AVRO)
        return input_of("commands", log.begin + place, key, value, time_ms, message)

    def _commit(self, partition: Partition, decided: list[list[Decision]]) -> Written:
        written = Written([], [], {})
        for decisions in decided:
            for decision in decisions:
                value = chain.seal(decision.record, partition.hash)
                written.journal.append(value)
                written.transactions.extend(map(codecs.encode_json, decision.transactions))
                partition.tail.append(value)
                if self.keep_journal:
                    partition.whole.append(value)
                partition.hash = hashlib.sha256(value).hexdigest()
                for destination, message in decision.messages:
                    sent = _encode(message)
                    written.messages.setdefault(destination, []).append(sent)
                    self.partitions[destination].messages.append(None, sent, self.log_time())
        return written

    def _compare_with_model(
        self, partition: Partition, input: DecisionInput, decisions: list[Decision]
    ) -> None:
        said = self._model_says(partition.number, input)
        checks.agree(self.model, partition.number, input, decisions, said)
        for decision in decisions:
            record = decision.record
            self.steps[record.step] += 1
            if record.reason is not None:
                self.reasons[record.reason] += 1
            self._count_outcome(partition, record)

    def _model_says(self, number: int, input: DecisionInput) -> list[values.Said]:
        message = input.message
        if input.topic == "commands":
            return self.model.command(number, input.offset, input.key, input.value, input.time_ms)
        match message:
            case coordination.Tick():
                return self.model.tick(number, input.time_ms)
            case coordination.LogTime():
                return self.model.decide_log_time(
                    number, message.first, message.last, message.time_ms
                )
            case coordination.Configure():
                settings = message.settings
                parameters = values.Settings(
                    settings.commission_bps,
                    settings.max_overdraft,
                    settings.hold_ttl_ms,
                    settings.participant_timeout_ms,
                    settings.max_pending,
                    settings.rules_version,
                )
                genesis = message.genesis is not None
                return self.model.configure(number, parameters, genesis, input.time_ms)
        assert isinstance(message, coordination.NumberedMessage)
        return self.model.message(number, message.source, message.number, input.time_ms)

    def _count_outcome(self, partition: Partition, record: JournalRecord) -> None:
        """Each command has one outcome: at once, or once after it was pending."""
        if record.step == "pending":
            partition.waiting.add(record.source.offset)
        elif record.step in journal.OUTCOMES:
            if record.source.topic != "commands":
                assert record.command_offset is not None, record
                partition.waiting.remove(record.command_offset)
            partition.answered += 1

    # Saving and recovering

    def save(self, number: int) -> None:
        """The journal's tail, replayed from its bytes on the saved copy, gives the live state."""
        partition = self.partitions[number]
        last = verify(partition.tail, partition.saved_hash)
        assert last == partition.hash, "the chain ends elsewhere"
        _replay(partition.saved, partition.tail)
        checks.same_state(partition.saved, partition.state)
        partition.saved_hash = partition.hash
        partition.tail.clear()

    def _recover(self, partition: Partition) -> None:
        """The live state is lost: from the journal's start, or from the saved copy and the
        journal's tail.
        """
        if self.keep_journal and len(partition.whole) < 2_000 and self.dice.random() < 0.3:
            recovered = MemoryState(partition.number)
            _replay(recovered, partition.whole)
        else:
            recovered = partition.saved.copy()
            _replay(recovered, partition.tail)
        partition.state = recovered

    def check(self) -> None:
        """Everything that must hold between any two steps."""
        for partition in self.partitions:
            self.save(partition.number)
            if partition.store is not None:
                checks.same_store(partition.store, partition.state)
        states = [partition.state for partition in self.partitions]
        checks.same_as_model(self.model, states)
        checks.balanced(states)
        checks.transit_is_on_the_way(states, self._undelivered())

    def _undelivered(self) -> list[tuple[int, coordination.NumberedMessage]]:
        """The coordination messages that are on their way, once each."""
        found = []
        for partition in self.partitions:
            seen = list(partition.state.partition.seen)
            for logged in partition.messages.records:
                message = _message(logged.value)
                if (
                    isinstance(message, coordination.NumberedMessage)
                    and message.number > seen[message.source]
                ):
                    seen[message.source] = message.number
                    found.append((partition.number, message))
        return found

    def check_quiet(self) -> None:
        """Nothing is under way: no transit, no reservation but of holds, one outcome for each
        command.
        """
        self.check()
        checks.quiet([partition.state for partition in self.partitions])
        for partition in self.partitions:
            assert not partition.waiting, f"never answered: {sorted(partition.waiting)[:5]}"
            assert partition.answered == partition.commands.end, (
                f"partition {partition.number} answered {partition.answered}"
                f" of {partition.commands.end} commands"
            )
            if self.keep_journal:
                first = journal.genesis_hash(LEDGER_ID, partition.number)
                assert verify(partition.whole, first) == partition.hash
                replayed = MemoryState(partition.number)
                _replay(replayed, partition.whole)
                checks.same_state(replayed, partition.state)

    def all_accidents(self) -> Counter[str]:
        """Those of the stores, too."""
        stores = [each.store.accidents for each in self.partitions if each.store is not None]
        return sum(stores, self.accidents)

    def close(self) -> None:
        for partition in self.partitions:
            if partition.store is not None:
                partition.store.close()


def _replay(state: MemoryState, records: list[bytes]) -> None:
    for value in records:
        evolve(state, _record(value))
