"""The owner of a partition: its single writer, from the moment it is assigned until it is revoked.

Taking over, in this order:

  A. initialise the partition's transactional producer: an older owner is fenced, and every
     transaction of its is wholly committed or aborted when this returns;
  B. see that they are, and bring the local copy to the stable end of `state`, asked for after A;
  C. check that state, inputs and journal go together; refuse otherwise;
  D. journal the genesis, if the partition has none;
  E. read on from the position that the state holds.

Each batch, in this order:

  1. decide every record in order; outputs and overlay are in memory only;
  2. begin the Kafka transaction, produce journal, transactions, legs, dead letters, changed state
     and, last, the position;
  3. commit it;
  4. write overlay and position to RocksDB at once, and forget the overlay.

Whatever fails is not guessed at: the process ends, and A to E of the next owner find out what Kafka
holds. docs/failure-scenarios.md says what each failure between two steps leaves behind.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import msgspec
import structlog
from confluent_kafka import KafkaError, Message, Producer

from plumbing import kafka, transactions
from plumbing.crashpoints import CrashPoints
from plumbing.kafka import ClientConfig
from processor import outputs
from processor.committed import CommittedReader
from processor.encodings import Encode
from processor.inputs import Batch, Inputs, Read, position_after
from processor.outputs import Outputs
from processor.recorder import Recorder
from processor.recovery import Recovery, check_owner
from processor.rules import engine, reads
from processor.rules.decision import BrokenInvariant, Input
from processor.table import Local, Table
from schemas import codecs, commands, ids, legs
from schemas.codecs import AvroSchemas
from schemas.door import Unreadable
from schemas.journal import OUTCOMES, genesis_hash
from schemas.legs import Leg
from schemas.reasons import Reason
from schemas.settings import Genesis, Settings
from schemas.state import InputPosition, Position
from schemas.topics import Names

log = structlog.get_logger(__name__)

# Tried again until it succeeds; a revoked owner waits no longer than this for its thread.
INITIALISE_TIMEOUT_S = 5.0
IDLE_S = 0.5
COMPLAIN_S = 5.0
BETWEEN_S = 0.009
OFFER_AGAIN_S = 1.0
TICK_PAUSE_S = 1.0
# RocksDB counts its own size; asking costs more than a batch may.
TABLE_SIZE_EVERY_S = 5.0

_decode_leg = msgspec.json.Decoder(Leg).decode


class Phase(StrEnum):
    FENCING = "fencing"
    RESTORING = "restoring"
    RUNNING = "running"
    STOPPED = "stopped"


class Identity(NamedTuple):
    """Which ledger a processor works for, and what a fresh partition of it begins with."""

    ledger_id: str
    partitions: int
    settings: Settings


class Owner:
    """Lives in a thread of its own. `deliver` hands each batch to the Faust agent, which answers by
    calling `take_batch`; `crashed` is told of whatever ends the thread, and ends the process."""

    def __init__(
        self,
        partition: int,
        identity: Identity,
        config: ClientConfig,
        names: Names,
        make_table: Callable[[int], Table],
        schemas: AvroSchemas,
        recorder: Recorder,
        crash_points: CrashPoints,
        deliver: Callable[["Owner", Batch], None],
        crashed: Callable[[int, BaseException], None],
        encode_transaction: Encode,
    ) -> None:
        self.partition = partition
        self.phase = Phase.FENCING
        self._identity = identity
        self._config: dict[str, Any] = {**config, "error_cb": self._complain}
        self._names = names
        self._make_table = make_table
        self._schemas = schemas
        self._recorder = recorder
        self._reach = crash_points.reach
        self._deliver = deliver
        self._crashed = crashed
        self._encode_transaction = encode_transaction
        self._stopping = threading.Event()
        self._offered: Batch | None = None
        self._given: Batch | None = None
        self._wake = threading.Event()
        self._ticked_at = self._sized_at = self._complained_at = self._committed_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"partition-{partition}")

    def _complain(self, error: KafkaError) -> None:
        """What the clients tell beside their answers. They go on by themselves."""
        refusal = kafka.refusal(self._config, error)
        if refusal is None and error.code() != KafkaError._ALL_BROKERS_DOWN:
            return
        now = time.monotonic()
        if now - self._complained_at > COMPLAIN_S:
            self._complained_at = now
            why = refusal or error.str()
            log.warning("waiting for Kafka", partition=self.partition, error=why)

    def start(self) -> None:
        self._thread.start()

    def committed(self) -> Position | None:
        """The position up to which everything is durable; None before the partition runs."""
        return self._table.position if self.phase is Phase.RUNNING else None

    def take_batch(self, batch: Batch) -> None:
        """The agent's answer to a delivered batch: process it now, in the partition's thread."""
        if batch is self._offered:
            self._offered, self._given = None, batch
            self._wake.set()

    def stop(self) -> None:
        """Waits for the batch in flight, then lets go of everything. A second call does nothing."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._own()
        except BaseException as error:
            self._crashed(self.partition, kafka.explained(self._config, error))
        finally:
            self._enter(Phase.STOPPED)
            self._recorder.gone(self.partition)

    def _enter(self, phase: Phase) -> None:
        self._recorder.phase(self.partition, self.phase, phase)
        self.phase = phase

    def _own(self) -> None:
        # A.
        self._producer = transactions.fenced_producer(
            self._config, self.partition, INITIALISE_TIMEOUT_S, self._stopping
        )
        if self._stopping.is_set():
            return
        self._enter(Phase.RESTORING)
        self._table = self._make_table(self.partition)
        inputs = Inputs(self._config, self._names, self.partition)
        try:
            self._take_over()
            self._begin(inputs)
            while not self._stopping.is_set():
                self._turn(inputs)
        finally:
            inputs.close()
            self._table.close()

    # Taking over.

    def _take_over(self) -> None:
        """B to D."""
        self._reach("fenced")
        table, identity = self._table, self._identity
        with CommittedReader(self._config) as reader:
            recovery = Recovery(reader, self._names, self.partition)
            recovery.check_ended()
            recovery.restore(table, identity.ledger_id, self._restoring)
            self._reach("restored")
            last = recovery.check_journal(table.position)
            if table.position is None or last is None:
                recovery.check_inputs(_nowhere(self._table))
                self._journal_genesis()
                return
            check_owner(table.position, identity.ledger_id, identity.partitions)
            recovery.check_inputs(table.position)
            table.prove(last.offset, table.position.last_hash)
        if table.partition.settings != identity.settings:
            log.warning(
                "the ledger's own settings hold, not the environment's",
                partition=self.partition,
                ledger=msgspec.to_builtins(table.partition.settings),
                environment=msgspec.to_builtins(identity.settings),
            )

    def _restoring(self, at: int, end: int) -> None:
        self._recorder.restoring(self.partition, end - at)
        log.info("restoring", partition=self.partition, at=at, end=end)
        if self._stopping.is_set():
            raise Abandoned

    def _journal_genesis(self) -> None:
        identity = self._identity
        message = legs.Configure(
            settings=identity.settings,
            genesis=Genesis(ledger_id=identity.ledger_id, partitions=identity.partitions),
        )
        input = engine.genesis(self.partition, message, outputs.encode_leg(message))
        written = Outputs(self.partition, genesis_hash(identity.ledger_id, self.partition))
        for decision in engine.apply(self._table, input):
            written.add(None, decision)
        self._commit(written, {})

    def _begin(self, inputs: Inputs) -> None:
        """E."""
        position = self._position()
        inputs.start(position.commands.next_offset, position.legs.next_offset)
        self._enter(Phase.RUNNING)
        log.info(
            "owning partition",
            partition=self.partition,
            sequence=position.partition.sequence,
            commands=position.commands.next_offset,
            legs=position.legs.next_offset,
        )

    # Running.

    def _turn(self, inputs: Inputs) -> None:
        # The brokers may still be writing the markers of the last transaction: one that begins
        # meanwhile is told to come again, and librdkafka waits 20 ms for that. And each costs them
        # the same whatever it holds: what arrives meanwhile goes with this one.
        time.sleep(max(0.0, self._committed_at + BETWEEN_S - time.monotonic()))
        batch = inputs.take(self._patience_s())
        if batch is None:
            self._recorder.lag(self.partition, inputs.lag(), 0)
            self._tell_size()
            self._tick_if_due()
            return
        self._offered = batch
        self._deliver(self, batch)
        # Faust empties its queues when it goes on after a rebalance: then it is offered again.
        while not self._wake.wait(OFFER_AGAIN_S):
            self._deliver(self, batch)
        self._wake.clear()
        given, self._given = self._given, None
        if given is not None and not self._stopping.is_set():
            self._process(given)
            age_s = time.time() - self._table.partition.time_ms / 1_000
            self._recorder.lag(self.partition, inputs.lag(), age_s)
            self._tell_size()

    def _tell_size(self) -> None:
        now = time.monotonic()
        if now - self._sized_at >= TABLE_SIZE_EVERY_S:
            self._sized_at = now
            self._recorder.table(self.partition, self._table.size_bytes())

    def _patience_s(self) -> float:
        due_ms = self._table.earliest_due_ms()
        if due_ms is None:
            return IDLE_S
        return min(IDLE_S, max(0.01, due_ms / 1_000 - time.time()))

    def _tick_if_due(self) -> None:
        """Log time is the only clock of the rules: where nothing comes, the owner lets time
        pass.
        """
        due_ms = self._table.earliest_due_ms()
        now = time.time()
        if due_ms is None or due_ms > now * 1_000 or now - self._ticked_at < TICK_PAUSE_S:
            return
        self._ticked_at = now
        self._producer.begin_transaction()
        self._producer.produce(
            self._names.legs, outputs.encode_leg(legs.Tick()), None, self.partition
        )
        transactions.commit(self._producer, self.partition)

    def _process(self, batch: Batch) -> None:
        position = self._position()
        if batch.legs_from != position.legs.next_offset:
            raise BrokenInvariant(f"legs are read from {batch.legs_from}, not {position.legs}")
        if batch.commands_from != position.commands.next_offset:
            raise BrokenInvariant(f"read from {batch.commands_from}, not {position.commands}")
        written = Outputs(self.partition, position.last_hash, self._encode_transaction)
        last: dict[str, Read] = {}
        outcomes: Counter[tuple[str, str]] = Counter()
        inputs = [self._input("legs", read) for read in batch.legs]
        inputs += [self._input("commands", read) for read in batch.commands]
        self._fetch(inputs)
        # Legs first, so that no flood of commands can starve them.
        for input, read in zip(inputs, (*batch.legs, *batch.commands), strict=True):
            for decision in engine.apply(self._table, input):
                written.add(read.key, decision)
                if decision.record.step in OUTCOMES:
                    outcomes[decision.record.step, decision.record.reason or ""] += 1
            last[input.topic] = read
            if written.full:
                self._commit(written, last)
                written = Outputs(self.partition, written.last_hash, self._encode_transaction)
        if written.bytes:
            self._commit(written, last)
        self._recorder.batch(len(inputs), outcomes)

    def _input(self, topic: Literal["commands", "legs"], read: Read) -> Input:
        value = read.value or b""
        if topic == "legs":
            return Input(topic, read.offset, read.key, value, read.time_ms, _leg(value))
        message = codecs.decode_command(value, self._schemas)
        id = (
            None
            if isinstance(message, Unreadable)
            else ids.transaction_id(message.account, commands.key(message))
        )
        return Input(topic, read.offset, read.key, value, read.time_ms, message, id)

    def _fetch(self, inputs: list[Input]) -> None:
        """All reads before deciding: in two calls, not one for each key."""
        table = self._table
        table.fetch(key for input in inputs for key in reads.keys_read(input))
        table.fetch(key for input in inputs for key in reads.keys_named(table, input))

    def _commit(self, written: Outputs, last: dict[str, Read]) -> None:
        """2 to 4. `last` is what was read last from each topic, if anything was."""
        table, producer, reach = self._table, self._producer, self._reach
        before = table.position or _nowhere(table)
        position = Position(
            table.partition,
            position_after(last["commands"]) if "commands" in last else before.commands,
            position_after(last["legs"]) if "legs" in last else before.legs,
            written.last_hash,
        )
        staged = table.staged()
        told = _Told()
        started = time.monotonic()
        reach("before_begin")
        producer.begin_transaction()
        written.produce(producer, self._names, told.journal)
        reach("mid_produce")
        outputs.produce_state(
            producer,
            self._names,
            self.partition,
            staged,
            msgspec.msgpack.encode(position),
            told.state,
        )
        reach("before_commit")
        transactions.commit(self._producer, self.partition)
        self._committed_at = time.monotonic()
        reach("after_commit")
        told.wait(producer)
        local = Local(
            told.state_offset + 1, told.state_time_ms, told.journal_offset, written.last_hash
        )
        reach("before_write")
        table.commit(staged, position, local)
        reach("after_write")
        self._recorder.committed(started)

    def _position(self) -> Position:
        position = self._table.position
        assert position is not None, "an owned partition has its genesis"
        return position


class Abandoned(Exception):
    """The partition was revoked while it was being restored."""


class _Told:
    """Where the transaction's last records lie: from their delivery reports."""

    def __init__(self) -> None:
        self.journal_offset = self.state_offset = -1
        self.state_time_ms = 0

    def journal(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.journal_offset = message.offset() or 0

    def state(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.state_offset, self.state_time_ms = message.offset() or 0, message.timestamp()[1]

    def wait(self, producer: Producer) -> None:
        """The reports of what a committed transaction holds are there; they may need to be
        fetched.
        """
        for _ in range(1_000):
            if self.state_offset >= 0 and self.journal_offset >= 0:
                return
            producer.poll(0.01)
        raise BrokenInvariant("a transaction was committed without its records")


def _nowhere(table: Table) -> Position:
    return Position(table.partition, InputPosition(), InputPosition(), "")


def _leg(value: bytes) -> Leg | Unreadable:
    try:
        leg: Leg = _decode_leg(value)
        return leg
    except ValueError as error:
        return Unreadable(Reason.MALFORMED, str(error), None)
