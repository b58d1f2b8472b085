"""The sink of one lane: the only writer of its partitions' rows and results, from assignment to
revocation. docs/decisions/0017-a-sink-writes-lanes.md says why there are lanes.

Taking over:

  A. Fence the older sink: initialise the lane's transactional producer. When it returns, every
     transaction of the older sink is committed or aborted.
  B. Read the positions of the tables and the results, for each partition.
  C. Read each journal from the lower position. Refuse if the journal does not have that offset.

Each batch, with records of any of the lane's partitions:

  1. Decode and fold the records: each must follow the one before. Rows and results are in memory.
  2. Stage the results: begin a Kafka transaction, send results and their positions. Nobody can read
     them yet. The result publisher does so in its own thread; step 3 does not wait for it.
  3. Write the rows in one Postgres transaction: move each partition's position from exactly where
     it was, copy new rows, update existing ones.
  4. Commit the results, after step 3 is committed.

If step 3 takes long, step 2 is aborted and repeated after it. Steps 3 and 4 skip what their own
position already covers. So a crash between them, or tables restored from a dump, costs nothing. No
other failure is guessed at: the process ends, and steps A to C of the next sink find out what is
there. docs/failure-scenarios.md lists what each crash leaves behind;
docs/decisions/0019-results-are-sent-beside-their-rows.md says why step 2 comes before step 3.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import structlog

from plumbing.failures import Failure
from plumbing.kafka import transactional_producer
from plumbing.kafka.clients import ClientConfig
from plumbing.worker.crash_points import CrashPoints
from plumbing.worker.lane_thread import LaneThread
from schemas.topics import Names
from sinks.journal_chain import BrokenJournal, JournalChain, JournalPosition, ReadJournalRecord
from sinks.postgres.ledger_writer import LedgerWriter, PartitionBatch, RowsRefused
from sinks.postgres.projection import BrokenRecord, Rows
from sinks.postgres.write_connection import Connections
from sinks.worker.journal_consumer import JournalConsumer, PartitionRecord, records_between
from sinks.worker.metrics import SinkMetrics
from sinks.worker.result_publisher import ResultPublisher, StagedResults
from sinks.worker.results import ResultPositionReader, Results

log = structlog.get_logger(__name__)

# Longer than any broker makes a new producer wait for the last one's transaction to end.
INITIALISE_TIMEOUT_S = 30.0
IDLE_S = 0.5
# If no record is an outcome, positions of results are published only this often.
RECORDS_PER_POSITION = 10_000
# A lane that has reported no lag for so long is blocked.
BLOCKED_AFTER_S = 3.0


class SinkPhase(StrEnum):
    FENCING = "fencing"
    CATCHING_UP = "catching up"
    RUNNING = "running"
    STOPPED = "stopped"


class LaneResources(NamedTuple):
    """What the lanes of one process share."""

    ledger_id: str
    config: ClientConfig
    names: Names
    connections: Connections
    metrics: SinkMetrics
    crash_points: CrashPoints
    # One lane decodes at a time: two at once would both finish as late as the second, and Postgres
    # would wait for both.
    decoding: threading.Lock


class _PartitionProgress:
    """How far one of the lane's partitions is."""

    def __init__(
        self, number: int, ledger_id: str, tables_at: JournalPosition, results_at: JournalPosition
    ):
        self.number = number
        self.tables_at = tables_at
        self.results_at = results_at
        self.lower, higher = sorted((tables_at, results_at))
        if self.lower.next_offset == higher.next_offset and self.lower != higher:
            raise Failure(
                f"partition {number}: the tables and the results are both at offset"
                f" {higher.next_offset}, but of different journals"
            )
        self.chain = JournalChain(ledger_id, number, self.lower)


class _BatchBuilder:
    """Folds the records that a batch has of one partition."""

    def __init__(self, progress: _PartitionProgress) -> None:
        self.progress = progress
        self.rows = Rows(progress.number)
        self.results = Results(progress.number)

    def add(self, journal_record: ReadJournalRecord) -> None:
        # 1. Decode and fold the records
        progress = self.progress
        record = progress.chain.follow(journal_record)
        if journal_record.offset >= progress.tables_at.next_offset:
            self.rows.add(record)
        elif record.sequence == progress.tables_at.sequence:
            self._check(journal_record, "the tables", progress.tables_at)
        if journal_record.offset >= progress.results_at.next_offset:
            self.results.add(record)
        elif record.sequence == progress.results_at.sequence:
            self._check(journal_record, "the results", progress.results_at)

    def _check(
        self, journal_record: ReadJournalRecord, what: str, position: JournalPosition
    ) -> None:
        """The one that is behind has reached the position of the other."""
        progress = self.progress
        if progress.chain.position != position:
            raise BrokenJournal(
                progress.number,
                journal_record.offset,
                f"is not the record that {what} ended at",
            )

    @property
    def partition_batch(self) -> PartitionBatch:
        progress = self.progress
        return PartitionBatch(progress.tables_at, progress.chain.position, self.rows)

    @property
    def must_publish(self) -> bool:
        """Whether results are due, or their position."""
        behind = self.progress.chain.position.sequence - self.progress.results_at.sequence
        return bool(self.results) or behind >= RECORDS_PER_POSITION


class SinkLane(LaneThread):
    """Runs in a thread of its own; `on_failure` gets any error that ends it."""

    def __init__(
        self,
        lane: int,
        partitions: Sequence[int],
        resources: LaneResources,
        on_failure: Callable[[int, BaseException], None],
    ) -> None:
        super().__init__(lane, resources.config, on_failure)
        self.partitions = partitions
        self.phase = SinkPhase.FENCING
        self._resources = resources
        self._metrics = resources.metrics
        self._reach = resources.crash_points.reach
        self._partitions: dict[int, _PartitionProgress] = {}
        # Partitions that hold all their journal had at take-over. The journal's present end is no
        # goal: while records keep coming it is never reached.
        self._caught_up: set[int] = set()
        # By partition: the log time of the batch that is being written to the tables.
        self._writing_ms: dict[int, int] = {}
        self._reported_at = time.monotonic()
        self._reporting = threading.Lock()

    def _released(self) -> None:
        with self._reporting:
            self._enter(SinkPhase.STOPPED)
            for partition in self.partitions:
                self._metrics.released(partition)

    def _enter(self, phase: SinkPhase) -> None:
        for partition in self.partitions:
            self._metrics.phase(partition, self.phase, phase)
        self.phase = phase

    def _own(self) -> None:
        resources = self._resources
        # A. Fence the older sink
        self._producer = transactional_producer.fenced_producer(
            resources.config, self._lane, INITIALISE_TIMEOUT_S, self._stopping
        )
        if self._stopping.is_set():
            return
        self._enter(SinkPhase.CATCHING_UP)
        for partition in self.partitions:
            self._metrics.lag(partition, -1)
        journals = JournalConsumer(resources.config, resources.names)
        self._publisher = ResultPublisher(self._producer, resources.names, self._lane, self._reach)
        try:
            self._take_over(journals)
            while not self._stopping.is_set():
                self._run_once(journals)
        finally:
            self._publisher.close()
            journals.close()

    # Taking over

    def _take_over(self, journals: JournalConsumer) -> None:
        self._reach("fenced")
        # B. Read the positions of the tables and the results
        resources = self._resources
        self._ledger = LedgerWriter(
            resources.connections,
            resources.ledger_id,
            self._stopping,
            self._reach,
        )
        reader = ResultPositionReader(
            resources.config, resources.names, resources.ledger_id, self._stopping
        )
        tables_at = {number: self._ledger.position(number) for number in self.partitions}
        results_at = reader.read(self._lane, self.partitions)
        self._reach("positioned")
        partitions = {
            number: _PartitionProgress(
                number, resources.ledger_id, tables_at[number], results_at[number]
            )
            for number in self.partitions
        }
        # C. Read each journal from the lower position
        journals.start({number: progress.lower for number, progress in partitions.items()})
        self._partitions = partitions
        for progress in partitions.values():
            log.info(
                "owning partition",
                partition=progress.number,
                tables=progress.tables_at.next_offset,
                results=progress.results_at.next_offset,
            )

    # Running

    def _run_once(self, journals: JournalConsumer) -> None:
        records = journals.take(IDLE_S)
        lags = {partition: journals.lag(partition) for partition in self.partitions}
        if records:
            self._process(records)
            self._metrics.batch(len(records))
        if self.phase is SinkPhase.CATCHING_UP:
            self._caught_up.update(filter(journals.caught_up, self.partitions))
            if len(self._caught_up) == len(self.partitions):
                self._enter(SinkPhase.RUNNING)
        with self._reporting:
            self._reported_at = time.monotonic()
            for partition, lag in lags.items():
                self._metrics.lag(partition, lag)

    def is_blocked(self) -> bool:
        """Whether the lag monitor must report for this lane. Called from other threads."""
        return bool(self._partitions) and time.monotonic() - self._reported_at > BLOCKED_AFTER_S

    def report_while_blocked(self, ends: Mapping[int, int | None]) -> None:
        """Called by the lag monitor. `ends`: the journals' end offsets, None if not known."""
        with self._reporting:
            if self.phase is SinkPhase.STOPPED or not self.is_blocked():
                return
            writing = self._writing_ms
            for number, progress in self._partitions.items():
                end = ends.get(number)
                if end is not None:
                    behind = records_between(progress.tables_at.next_offset, end)
                    self._metrics.lag(number, behind)
                    if behind and writing:
                        # Records that came after the batch are as old as their first sight.
                        writing.setdefault(number, time.time_ns() // 1_000_000)
            for number, writing_ms in writing.items():
                self._metrics.age(number, writing_ms)

    def _process(self, records: list[PartitionRecord]) -> None:
        """Halves a batch that fails, so that everything before the broken record is written. The
        broken record ends the lane."""
        before = {number: progress.chain.position for number, progress in self._partitions.items()}
        try:
            self._process_batch(records)
        except (BrokenJournal, BrokenRecord, RowsRefused) as error:
            if len(records) == 1:
                if isinstance(error, BrokenJournal):
                    raise
                partition, journal_record = records[0]
                raise BrokenJournal(partition, journal_record.offset, str(error)) from error
            for number, position in before.items():
                self._partitions[number].chain.position = position
            middle = len(records) // 2
            self._process(records[:middle])
            self._process(records[middle:])

    def _process_batch(self, records: list[PartitionRecord]) -> None:
        # 1. Decode and fold the records
        builders: dict[int, _BatchBuilder] = {}
        with self._resources.decoding:
            for partition, journal_record in records:
                builder = builders.get(partition)
                if builder is None:
                    builder = builders[partition] = _BatchBuilder(self._partitions[partition])
                builder.add(journal_record)
        with_rows = [builder for builder in builders.values() if builder.rows.records]
        if not any(builder.must_publish for builder in builders.values()):
            self._write_rows(with_rows)
            return
        # Every partition of the lane, so that no partition's last position is far from the end of
        # the topic.
        positions = {
            number: max(progress.results_at, progress.chain.position)
            for number, progress in self._partitions.items()
        }
        batch = [builder.results for builder in builders.values()]
        # 2. Stage the results
        staged = self._publisher.stage(batch, positions)
        try:
            self._write_rows(with_rows)
        except BaseException:
            staged.abort()
            raise
        self._commit_results(staged, positions, sum(map(len, batch)))

    def _write_rows(self, builders: list[_BatchBuilder]) -> None:
        # 3. Write the rows
        if not builders:
            return
        self._reach("before_rows")
        started = time.monotonic()
        now_ms = time.time_ns() // 1_000_000
        # A genesis has no time: it counts as new.
        self._writing_ms = {
            builder.progress.number: builder.rows.last_ms or now_ms for builder in builders
        }
        self._ledger.write([builder.partition_batch for builder in builders])
        self._writing_ms = {}
        for builder in builders:
            builder.progress.tables_at = builder.progress.chain.position
            self._metrics.rows(builder.rows)
        self._metrics.rows_took(started)
        self._reach("after_rows")

    def _commit_results(
        self, staged: StagedResults, positions: Mapping[int, JournalPosition], count: int
    ) -> None:
        # 4. Commit the results
        started = time.monotonic()
        staged.commit()
        for number, position in positions.items():
            self._partitions[number].results_at = position
        self._metrics.results(started, count)
        self._reach("after_results")
