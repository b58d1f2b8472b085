"""The owner of a lane: the single writer of its partitions, from the moment it is assigned until it
is revoked. docs/decisions/0018-a-processor-owns-lanes.md says why there are lanes.

Taking over, in this order:

  A. initialise the lane's transactional producer: an older owner is fenced, and every transaction
     of its is wholly committed or aborted when this returns;

and then, of each partition:

  B. see that they are, and bring the local copy to the stable end of `state`, asked for after A;
  C. check that state, inputs and journal go together; refuse otherwise;
  D. journal the genesis, if the partition has none;
  E. read on from the position that the state holds.

Each batch, of records of any of the lane's partitions, in this order:

  1. decide every record, those of a partition in order; outputs and overlays are in memory only;
  2. begin the Kafka transaction, produce journal, transactions, coordination messages, dead
     letters, changed state
     and, last of each partition, its position;
  3. commit it; what waits meanwhile may be read and decoded, which changes nothing;
  4. write each partition's overlay and position to its RocksDB at once, and forget the overlay.

Whatever fails is not guessed at: the process ends, and A to E of the next owner find out what Kafka
holds. docs/failure-scenarios.md says what each failure between two steps leaves behind.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import StrEnum
from typing import NamedTuple

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException

from plumbing import memory
from plumbing.failures import Failure
from plumbing.kafka import clients, transactional_producer
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedReader
from plumbing.worker.crash_points import CrashPoints
from plumbing.worker.lane_thread import LaneThread, StopRequested
from processor.lanes import batch_output
from processor.lanes.admission import Admission
from processor.lanes.batch_reader import Batch, BatchReader
from processor.lanes.broker_clock import WorkerClock
from processor.lanes.partition_writer import Outcomes, PartitionWriter, nowhere
from processor.lanes.transaction_encoding import Encode
from processor.metrics import ProcessorMetrics
from processor.state import checkpoint
from processor.state.recovery import Recovery, check_owner
from processor.state.store import StateStore
from schemas import coordination
from schemas.encoding.codecs import AvroSchemas
from schemas.ledger_parameters import FORMAT_LEVEL, RULES_VERSION, Genesis, LedgerParameters
from schemas.state import PartitionPosition
from schemas.topics import Names

log = structlog.get_logger(__name__)

# Tried again until it succeeds; a revoked owner waits no longer than this for its thread.
INITIALISE_TIMEOUT_S = 5.0
IDLE_S = 0.5
COMPLAIN_S = 5.0
BETWEEN_S = 0.004
# Where less waits, a commit is not worth another thread.
MUCH = 500
# So long a commit that has ended may have to wait until what is read meanwhile is decoded, too.
AHEAD_S = 0.002
OFFER_AGAIN_S = 1.0
TICK_PAUSE_S = 1.0
# After kill -9 the group is told of a copy that it is so old at most.
NOTE_COPIES_EVERY_S = 30.0
# RocksDB counts its own size; asking costs more than a batch may.
TABLE_SIZE_EVERY_S = 5.0


class LanePhase(StrEnum):
    FENCING = "fencing"
    RESTORING = "restoring"
    RUNNING = "running"
    STOPPED = "stopped"


class LedgerIdentity(NamedTuple):
    """Which ledger a processor works for, and what a fresh partition of it begins with."""

    ledger_id: str
    partitions: int
    settings: LedgerParameters


class LaneProcessor(LaneThread):
    """Lives in a thread of its own. `deliver` hands what was read to the Faust agent, which answers
    by calling `take_batches`; `on_failure` gets whatever ends the thread, and ends the
    process."""

    def __init__(
        self,
        lane: int,
        partitions: Sequence[int],
        identity: LedgerIdentity,
        config: ClientConfig,
        names: Names,
        make_table: Callable[[int], StateStore],
        schemas: AvroSchemas,
        recorder: ProcessorMetrics,
        crash_points: CrashPoints,
        deliver: Callable[["LaneProcessor", list[Batch]], None],
        on_failure: Callable[[int, BaseException], None],
        encode_transaction: Encode,
        clock: WorkerClock,
    ) -> None:
        super().__init__(lane, {**config, "error_cb": self._complain}, on_failure)
        self.partitions = partitions
        self.phase = LanePhase.FENCING
        self._identity = identity
        self._names = names
        self._make_table = make_table
        self._schemas = schemas
        self._recorder = recorder
        self._reach = crash_points.reach
        self._deliver = deliver
        self._encode_transaction = encode_transaction
        self._clock = clock
        self._admission = Admission(config, names, clock)
        # One of the partitions cannot be owned.
        self._abandoning = threading.Event()
        self._writers: dict[int, PartitionWriter] = {}
        # The partitions of which something came last.
        self._busy: set[int] = set()
        self._offered: list[Batch] | None = None
        self._given: list[Batch] | None = None
        self._wake = threading.Event()
        self._complained_at = self._committed_at = self._noted_at = 0.0

    def _complain(self, error: KafkaError) -> None:
        """What the clients tell beside their answers. They go on by themselves."""
        refusal = clients.refusal(self._config, error)
        if refusal is None and error.code() != KafkaError._ALL_BROKERS_DOWN:
            return
        now = time.monotonic()
        if now - self._complained_at > COMPLAIN_S:
            self._complained_at = now
            log.warning("waiting for Kafka", lane=self._lane, error=refusal or error.str())

    def committed(self) -> dict[int, PartitionPosition]:
        """The positions up to which everything is durable; none before the lane runs."""
        if self.phase is not LanePhase.RUNNING:
            return {}
        return {number: writer.position for number, writer in self._writers.items()}

    def take_batches(self, batches: list[Batch]) -> None:
        """The agent's answer to what was delivered: process it now, in the lane's thread."""
        if batches is self._offered:
            self._offered, self._given = None, batches
            self._wake.set()

    def request_stop(self) -> None:
        super().request_stop()
        self._wake.set()

    def _released(self) -> None:
        self._enter(LanePhase.STOPPED)
        for partition in self.partitions:
            self._recorder.gone(partition)

    def _enter(self, phase: LanePhase) -> None:
        for partition in self.partitions:
            self._recorder.phase(partition, self.phase, phase)
        self.phase = phase

    def _own(self) -> None:
        # A.
        self._producer = transactional_producer.fenced_producer(
            self._config, self._lane, INITIALISE_TIMEOUT_S, self._stopping
        )
        if self._stopping.is_set():
            return
        self._enter(LanePhase.RESTORING)
        self._reach("fenced")
        with ExitStack() as closing:
            self._aside = ThreadPoolExecutor(1, f"lane-{self._lane}-commit")
            # Whatever else fails ends the process at once: a commit under way is not waited for.
            closing.callback(self._aside.shutdown, wait=False)
            self._inputs = BatchReader(self._config, self._names, self._schemas)
            closing.callback(self._inputs.close)
            for number in self.partitions:
                table = self._make_table(number)
                closing.callback(table.close)
                self._writers[number] = PartitionWriter(number, table, self._encode_transaction)
            self._take_over()
            self._begin()
            while not self._stopping.is_set():
                self._turn()
            self._note_copies()

    # Taking over.

    def _take_over(self) -> None:
        """B to D. The partitions side by side, as a restore may be long; where one of them cannot
        be owned, the others are not waited for."""
        writers = self._writers.values()
        with ThreadPoolExecutor(len(writers), f"lane-{self._lane}-restore") as pool:
            errors = [error for error in pool.map(self._recovered, writers) if error is not None]
        memory.give_back()
        if errors:
            raise next((each for each in errors if not isinstance(each, StopRequested)), errors[0])
        identity = self._identity
        genesis = Genesis(ledger_id=identity.ledger_id, partitions=identity.partitions)
        fresh = [writer for writer in writers if writer.table.position is None]
        for writer in fresh:
            writer.decide_genesis(genesis, identity.settings)
        if fresh:
            self._commit(fresh)

    def _recovered(self, writer: PartitionWriter) -> BaseException | None:
        try:
            self._recover(writer)
        except BaseException as error:
            # Not the group's doing, nor Kafka's: it may be the copy, and another one has none.
            if not isinstance(error, StopRequested | Failure | KafkaException):
                checkpoint.forget(writer.table.path)
            self._abandoning.set()
            return error
        return None

    def _recover(self, writer: PartitionWriter) -> None:
        """B and C."""
        table, number, identity = writer.table, writer.number, self._identity
        with CommittedReader(self._config) as reader:
            recovery = Recovery(reader, self._names, number)
            recovery.check_ended()
            recovery.restore(
                table, identity.ledger_id, lambda at, end: self._restoring(number, at, end)
            )
            self._reach("restored")
            last = recovery.check_journal(table.position)
            if table.position is None or last is None:
                recovery.check_inputs(nowhere(table))
                return
            check_owner(table.position, identity.ledger_id, identity.partitions)
            recovery.check_inputs(table.position)
            table.prove(last.offset, table.position.last_hash)
        settings = table.partition.settings
        if settings is not None and _chosen(settings) != _chosen(identity.settings):
            log.warning(
                "the ledger's own settings hold, not the environment's",
                partition=number,
                ledger=msgspec.to_builtins(table.partition.settings),
                environment=msgspec.to_builtins(identity.settings),
            )

    def _restoring(self, partition: int, at: int, end: int) -> None:
        self._recorder.restoring(partition, end - at)
        log.info("restoring", partition=partition, at=at, end=end)
        if self._stopping.is_set() or self._abandoning.is_set():
            raise StopRequested

    def _begin(self) -> None:
        """E."""
        positions = {number: writer.position for number, writer in self._writers.items()}
        self._inputs.start(positions)
        # Whole now; what is being restored is not noted.
        self._note_copies()
        self._enter(LanePhase.RUNNING)
        for number, position in positions.items():
            log.info(
                "owning partition",
                partition=number,
                sequence=position.partition.sequence,
                commands=position.commands.next_offset,
                coordination=position.coordination.next_offset,
            )

    # Running.

    def _turn(self) -> None:
        # The brokers may still be writing the markers of the last transaction: one that begins
        # meanwhile is told to come again, and librdkafka waits 20 ms for that. And each costs them
        # the same whatever it holds: what arrives meanwhile goes with this one.
        time.sleep(max(0.0, self._committed_at + BETWEEN_S - time.monotonic()))
        self._clock.check_moved()
        if self._tick():
            return
        batches = self._inputs.take(self._patience_s())
        self._busy = {batch.partition for batch in batches}
        if batches:
            self._offer(batches)
        given, self._given = self._given, None
        if given is not None and not self._stopping.is_set():
            self._process(given)
        self._tell()

    def _offer(self, batches: list[Batch]) -> None:
        self._offered = batches
        self._deliver(self, batches)
        # Faust empties its queues when it goes on after a rebalance: then it is offered again.
        while not self._wake.wait(OFFER_AGAIN_S):
            self._deliver(self, batches)
        self._wake.clear()

    def _tell(self) -> None:
        now, now_ms = time.monotonic(), time.time() * 1_000
        for number, writer in self._writers.items():
            # A partition that has decided nothing yet has no time.
            time_ms = writer.table.partition.time_ms or now_ms
            self._recorder.lag(number, self._inputs.lag(number), (now_ms - time_ms) / 1_000)
            if now - writer.sized_at >= TABLE_SIZE_EVERY_S:
                writer.sized_at = now
                self._recorder.table(number, writer.table.size_bytes())
        if now - self._noted_at >= NOTE_COPIES_EVERY_S:
            self._note_copies()

    def _note_copies(self) -> None:
        self._noted_at = time.monotonic()
        for writer in self._writers.values():
            checkpoint.note(writer.table.path, writer.table.local.changelog_next_offset)

    def _patience_s(self) -> float:
        due = (writer.table.earliest_due_ms() for writer in self._writers.values())
        earliest_ms = min((ms for ms in due if ms is not None), default=None)
        if earliest_ms is None:
            return IDLE_S
        return min(IDLE_S, max(0.01, earliest_ms / 1_000 - time.time()))

    def _tick(self) -> bool:
        """Log time is the only clock of the rules: where nothing comes, the owner lets time pass.
        Whether it did."""
        now = time.time()
        late = []
        for number, writer in self._writers.items():
            due_ms = writer.table.earliest_due_ms()
            due = due_ms is not None and due_ms <= now * 1_000
            # What has come already brings its own time.
            quiet = number not in self._busy and self._inputs.lag(number) == 0
            if due and quiet and now - writer.ticked_at >= TICK_PAUSE_S:
                late.append(writer)
        if not late:
            return False
        self._producer.begin_transaction()
        for writer in late:
            writer.ticked_at = now
            tick = batch_output.encode_message(coordination.Tick())
            self._producer.produce(self._names.coordination, tick, None, writer.number)
        self._end_transaction()
        return True

    def _process(self, batches: list[Batch]) -> None:
        """1, and what follows as soon as one partition has decided enough."""
        outcomes = Outcomes()
        writers = [self._writers[batch.partition] for batch in batches]
        for writer, batch in zip(writers, batches, strict=True):
            for _ in writer.decide(batch, outcomes, self._admission):
                self._commit([each for each in writers if each.writes])
        if rest := [each for each in writers if each.writes]:
            self._commit(rest)
        records = sum(len(batch.messages) + len(batch.commands) for batch in batches)
        self._recorder.batch(records, outcomes)

    def _commit(self, writers: list[PartitionWriter]) -> None:
        """2 to 4."""
        producer, names, reach = self._producer, self._names, self._reach
        started = time.monotonic()
        reach("before_begin")
        producer.begin_transaction()
        for writer in writers:
            writer.produce_records(producer, names)
        reach("mid_produce")
        for writer in writers:
            writer.produce_state(producer, names)
        reach("before_commit")
        self._commit_transaction()
        reach("after_commit")
        for writer in writers:
            reach("before_write")
            writer.write(producer)
            reach("after_write")
        self._recorder.committed(started)

    def _commit_transaction(self) -> None:
        """Where much waits, the next batch is read while the brokers write this one."""
        if self._inputs.backlog() < MUCH:
            self._end_transaction()
            return
        ended = self._aside.submit(self._end_transaction)
        while not ended.done() and self._inputs.read_ahead(AHEAD_S):
            pass
        ended.result()

    def _end_transaction(self) -> None:
        transactional_producer.commit(self._producer, self._lane)
        self._committed_at = time.monotonic()


def _chosen(settings: LedgerParameters) -> LedgerParameters:
    """What the environment names: an operator raises versions and levels, whatever it says."""
    return msgspec.structs.replace(settings, rules_version=RULES_VERSION, format_level=FORMAT_LEVEL)
