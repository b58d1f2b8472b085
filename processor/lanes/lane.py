"""The owner of a lane: the single writer of its partitions, from assignment to revocation.
docs/decisions/0018-a-processor-owns-lanes.md says why there are lanes.

It takes the lane over in this order:

  A. Initialise the lane's transactional producer. This fences older owners; when it returns, their
     transactions are committed or aborted.

Then, for each partition:

  B. Check that no older transaction is open, and restore the local copy to the stable end of
     `state`, which is read after A.
  C. Check that state, inputs and journal agree; refuse otherwise.
  D. Journal the genesis, if the partition has none.
  E. Read on from the position in the state.

Each batch has records of any of the lane's partitions, and this order:

  1. Decide every record, in the order of its partition. Outputs and overlays stay in memory.
  2. Begin the Kafka transaction and produce journal, transactions, coordination messages, dead
     letters, changed state and, last in each partition, its position.
  3. Commit the Kafka transaction. The lane's reader may read and decode meanwhile; that changes
     nothing.
  4. Write each partition's overlay and position to its RocksDB, and forget the overlay.

No failure is guessed about: the process ends, and A to E of the next owner find out what Kafka
holds. docs/failure-scenarios.md says what each failure between two steps leaves behind.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import NamedTuple

import msgspec
import structlog
from confluent_kafka import KafkaError, KafkaException

from plumbing import memory
from plumbing.failures import Failure
from plumbing.kafka import auth_errors, transactional_producer
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedReader
from plumbing.worker.crash_points import CrashPoints
from plumbing.worker.lane_thread import LaneThread, StopRequested
from processor.lanes import batch_output
from processor.lanes.admission import Admission
from processor.lanes.batch_reader import Batch, BatchReader
from processor.lanes.broker_clock import WorkerClock
from processor.lanes.lane_reader import LaneReader, OpenBatch
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

# Each try; a revoked lane waits at most this long for its thread.
INITIALISE_TIMEOUT_S = 5.0
IDLE_S = 0.5
WARNING_INTERVAL_S = 5.0
TRANSACTION_GAP_S = 0.004
TICK_INTERVAL_S = 1.0
# After kill -9, the note of how far a local copy is, which the group reads, is at most this old.
CHECKPOINT_NOTE_INTERVAL_S = 30.0
# RocksDB computes its own size; asking costs more than a batch may.
STORE_SIZE_INTERVAL_S = 5.0


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
    """The lane's writer thread. `send_event` sends an open batch into Faust, whose agent delivers
    it to this thread. `on_failure` gets whatever ends the thread, and ends the process."""

    def __init__(
        self,
        lane: int,
        partitions: Sequence[int],
        identity: LedgerIdentity,
        config: ClientConfig,
        names: Names,
        open_store: Callable[[int], StateStore],
        schemas: AvroSchemas,
        metrics: ProcessorMetrics,
        crash_points: CrashPoints,
        send_event: Callable[[OpenBatch], object],
        on_failure: Callable[[int, BaseException], None],
        encode_transaction: Encode,
        clock: WorkerClock,
    ) -> None:
        super().__init__(lane, {**config, "error_cb": self._log_outage}, on_failure)
        self.partitions = partitions
        self.phase = LanePhase.FENCING
        self._identity = identity
        self._names = names
        self._open_store = open_store
        self._schemas = schemas
        self._metrics = metrics
        self._reach = crash_points.reach
        self._send_event = send_event
        self._encode_transaction = encode_transaction
        self._clock = clock
        self._admission = Admission(config, names, clock)
        self._inbox: SimpleQueue[OpenBatch | None] = SimpleQueue()
        # Set if one of the partitions cannot be owned.
        self._abandoning = threading.Event()
        self._writers: dict[int, PartitionWriter] = {}
        # The partitions that the last batch had records of.
        self._busy: set[int] = set()
        self._warned_at = self._committed_at = self._noted_at = 0.0

    def _log_outage(self, error: KafkaError) -> None:
        """Errors that the clients report beside their answers. They retry by themselves."""
        refusal = auth_errors.refusal(self._config, error)
        if refusal is None and error.code() != KafkaError._ALL_BROKERS_DOWN:
            return
        now = time.monotonic()
        if now - self._warned_at > WARNING_INTERVAL_S:
            self._warned_at = now
            log.warning("waiting for Kafka", lane=self._lane, error=refusal or error.str())

    def committed(self) -> dict[int, PartitionPosition]:
        """The positions up to which everything is durable; none before the lane runs."""
        if self.phase is not LanePhase.RUNNING:
            return {}
        return {number: writer.position for number, writer in self._writers.items()}

    def open_batch(self) -> OpenBatch | None:
        """The batch on its way through Faust, or waiting for the writer."""
        return self._reader.open_batch if self.phase is LanePhase.RUNNING else None

    def request_stop(self) -> None:
        super().request_stop()
        self._inbox.put(None)

    def _released(self) -> None:
        self._enter(LanePhase.STOPPED)
        for partition in self.partitions:
            self._metrics.gone(partition)

    def _enter(self, phase: LanePhase) -> None:
        for partition in self.partitions:
            self._metrics.phase(partition, self.phase, phase)
        self.phase = phase

    def _own(self) -> None:
        # A. Initialise the lane's transactional producer
        self._producer = transactional_producer.fenced_producer(
            self._config, self._lane, INITIALISE_TIMEOUT_S, self._stopping
        )
        if self._stopping.is_set():
            return
        self._enter(LanePhase.RESTORING)
        self._reach("fenced")
        with ExitStack() as closing:
            self._batches = BatchReader(self._config, self._names, self._schemas)
            closing.callback(self._batches.close)
            self._reader = LaneReader(
                self._lane,
                self._config,
                self._batches,
                self._inbox,
                self._send_event,
                self._on_failure,
            )
            for number in self.partitions:
                store = self._open_store(number)
                closing.callback(store.close)
                self._writers[number] = PartitionWriter(number, store, self._encode_transaction)
            self._take_over()
            # E. Read on from the position in the state
            positions = {number: writer.position for number, writer in self._writers.items()}
            self._batches.start(positions)
            self._enter_running(positions)
            self._reader.start()
            closing.callback(self._reader.stop)
            while not self._stopping.is_set():
                self._run_once()
            self._note_checkpoints()

    # Taking over.

    def _take_over(self) -> None:
        """The partitions side by side, as a restore may take long. If one of them cannot be owned,
        the others are not waited for."""
        writers = self._writers.values()
        with ThreadPoolExecutor(len(writers), f"lane-{self._lane}-restore") as pool:
            errors = [error for error in pool.map(self._recovered, writers) if error is not None]
        memory.trim_heap()
        if errors:
            raise next(
                (error for error in errors if not isinstance(error, StopRequested)), errors[0]
            )
        # D. Journal the genesis
        identity = self._identity
        genesis = Genesis(ledger_id=identity.ledger_id, partitions=identity.partitions)
        fresh = [writer for writer in writers if writer.store.position is None]
        for writer in fresh:
            writer.decide_genesis(genesis, identity.settings)
        if fresh:
            self._commit(fresh)

    def _recovered(self, writer: PartitionWriter) -> BaseException | None:
        try:
            self._recover(writer)
        except BaseException as error:
            # Neither a stop nor Kafka: it may be the local copy, and another worker has none.
            if not isinstance(error, StopRequested | Failure | KafkaException):
                checkpoint.forget(writer.store.path)
            self._abandoning.set()
            return error
        return None

    def _recover(self, writer: PartitionWriter) -> None:
        store, number, identity = writer.store, writer.number, self._identity
        with CommittedReader(self._config) as reader:
            # B. Restore the local copy to the stable end of `state`
            recovery = Recovery(reader, self._names, number)
            recovery.check_no_open_transactions()
            recovery.restore(
                store, identity.ledger_id, lambda at, end: self._restoring(number, at, end)
            )
            self._reach("restored")
            # C. Check that state, inputs and journal agree
            last = recovery.check_journal(store.position)
            if store.position is None or last is None:
                recovery.check_inputs(nowhere(store))
                return
            check_owner(store.position, identity.ledger_id, identity.partitions)
            recovery.check_inputs(store.position)
            store.prove(last.offset, store.position.last_hash)
        settings = store.partition.settings
        if settings is not None and _chosen(settings) != _chosen(identity.settings):
            log.warning(
                "the ledger's own settings hold, not the environment's",
                partition=number,
                ledger=msgspec.to_builtins(store.partition.settings),
                environment=msgspec.to_builtins(identity.settings),
            )

    def _restoring(self, partition: int, at: int, end: int) -> None:
        self._metrics.restoring(partition, end - at)
        log.info("restoring", partition=partition, at=at, end=end)
        if self._stopping.is_set() or self._abandoning.is_set():
            raise StopRequested

    # Running.

    def _enter_running(self, positions: Mapping[int, PartitionPosition]) -> None:
        # The local copies are complete now; one that is being restored is not noted.
        self._note_checkpoints()
        self._enter(LanePhase.RUNNING)
        for number, position in positions.items():
            log.info(
                "owning partition",
                partition=number,
                sequence=position.partition.sequence,
                commands=position.commands.next_offset,
                coordination=position.coordination.next_offset,
            )

    def _run_once(self) -> None:
        self._pause_between_transactions()
        self._clock.check_moved()
        if not self._tick():
            self._process_next()
            self._report_metrics()

    def _pause_between_transactions(self) -> None:
        """The brokers may still be writing the markers of the last transaction. They reject one
        that begins meanwhile, and librdkafka retries after 20 ms. Each transaction costs them the
        same, whatever it holds: what arrives in the pause becomes part of the next one."""
        time.sleep(max(0.0, self._committed_at + TRANSACTION_GAP_S - time.monotonic()))

    def _process_next(self) -> None:
        """The next batch that Faust delivers, if one comes before something is due."""
        self._busy = set()
        try:
            delivered = self._inbox.get(timeout=self._seconds_until_due())
        except Empty:
            return
        if delivered is None or self._stopping.is_set():
            return
        batches = self._reader.close_batch()
        self._busy = {batch.partition for batch in batches}
        if batches:
            self._process(batches)

    def _report_metrics(self) -> None:
        now, now_ms = time.monotonic(), time.time() * 1_000
        for number, writer in self._writers.items():
            # A partition that has decided nothing yet has no time.
            time_ms = writer.store.partition.time_ms or now_ms
            self._metrics.lag(number, self._batches.lag(number), (now_ms - time_ms) / 1_000)
            if now - writer.sized_at >= STORE_SIZE_INTERVAL_S:
                writer.sized_at = now
                self._metrics.store_bytes(number, writer.store.size_bytes())
        if now - self._noted_at >= CHECKPOINT_NOTE_INTERVAL_S:
            self._note_checkpoints()

    def _note_checkpoints(self) -> None:
        self._noted_at = time.monotonic()
        for writer in self._writers.values():
            checkpoint.note(writer.store.path, writer.store.local.changelog_next_offset)

    def _seconds_until_due(self) -> float:
        due = (writer.store.earliest_due_ms() for writer in self._writers.values())
        earliest_ms = min((ms for ms in due if ms is not None), default=None)
        if earliest_ms is None:
            return IDLE_S
        return min(IDLE_S, max(0.01, earliest_ms / 1_000 - time.time()))

    def _tick(self) -> bool:
        """Writes a tick to each partition in which something is due and nothing arrives: log time
        is the only clock of the rules. Whether it wrote one."""
        now = time.time()
        late = []
        for number, writer in self._writers.items():
            due_ms = writer.store.earliest_due_ms()
            due = due_ms is not None and due_ms <= now * 1_000
            # A record that has arrived brings its own time.
            quiet = number not in self._busy and self._batches.lag(number) == 0
            if due and quiet and now - writer.ticked_at >= TICK_INTERVAL_S:
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
        # 1. Decide every record
        outcomes = Outcomes()
        writers = [self._writers[batch.partition] for batch in batches]
        for writer, batch in zip(writers, batches, strict=True):
            for _ in writer.decide(batch, outcomes, self._admission):
                # One partition has decided as much as a transaction may hold.
                self._commit([writer for writer in writers if writer.writes])
        if rest := [writer for writer in writers if writer.writes]:
            self._commit(rest)
        records = sum(len(batch.messages) + len(batch.commands) for batch in batches)
        self._metrics.batch(records, outcomes)

    def _commit(self, writers: list[PartitionWriter]) -> None:
        producer, names, reach = self._producer, self._names, self._reach
        started = time.monotonic()
        reach("before_begin")
        # 2. Begin the Kafka transaction and produce
        producer.begin_transaction()
        for writer in writers:
            writer.produce_records(producer, names)
        reach("mid_produce")
        for writer in writers:
            writer.produce_state(producer, names)
        reach("before_commit")
        # 3. Commit the Kafka transaction
        self._reader.begin_reading_ahead()
        self._end_transaction()
        self._reader.end_reading_ahead()
        reach("after_commit")
        # 4. Write each partition's overlay and position to its RocksDB
        for writer in writers:
            reach("before_write")
            writer.write(producer)
            reach("after_write")
        self._metrics.committed(started)

    def _end_transaction(self) -> None:
        transactional_producer.commit(self._producer, self._lane)
        self._committed_at = time.monotonic()


def _chosen(settings: LedgerParameters) -> LedgerParameters:
    """What the environment sets: an operator raises versions and levels, whatever it says."""
    return msgspec.structs.replace(settings, rules_version=RULES_VERSION, format_level=FORMAT_LEVEL)
