"""The sink of one lane: the only writer of its partitions' rows and results, from the moment it is
assigned until it is revoked. docs/decisions/0017-a-sink-writes-lanes.md says why there are lanes.

Taking over, in this order:

  A. initialise the lane's transactional producer: an older sink is fenced, and every transaction of
     its is wholly committed or aborted when this returns;
  B. read how far the tables and the results of each partition are, all after A;
  C. read each journal from the lower of the two; refuse if it does not lie there.

Each batch, of records of any of the lane's partitions, in this order:

  1. decode every record, and test that it follows on the one before; rows and results are in memory
     only;
  2. begin a Kafka transaction and send it the results, and how far they are: nobody can read them
     yet. The teller does so in a thread of its own, and 3 does not wait for it;
  3. one Postgres transaction: move each partition's position from exactly where it was, copy and
     update rows;
  4. commit the Kafka transaction, when 3 is committed.

Where 3 takes long, 2 is undone, and done once more after it. Each of 3 and 4 takes only what lies
beyond its own position. So a crash between them, or tables put back to last night's, cost nothing:
what is there is not written again. Whatever else fails is not guessed at: the process ends, and A
to C of the next sink find out what is there. docs/failure-scenarios.md says what each failure
between two steps leaves behind, docs/decisions/0019-results-are-sent-beside-their-rows.md why 2
comes before 3.
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
from sinks.journal_chain import BrokenJournal, Chain, JournalPosition, ReadJournalRecord
from sinks.postgres.ledger_writer import LedgerWriter, PartitionBatch, Queries, RowsRefused
from sinks.postgres.projection import BrokenRecord, Rows
from sinks.postgres.write_connection import Connections
from sinks.worker.journal_consumer import JournalConsumer, Taken, records_between
from sinks.worker.metrics import SinkMetrics
from sinks.worker.result_publisher import ResultPublisher, StagedResults
from sinks.worker.results import Positions, Results

log = structlog.get_logger(__name__)

# Longer than any broker makes a new owner wait for the last one's transaction to end.
INITIALISE_TIMEOUT_S = 30.0
IDLE_S = 0.5
# Where no record has an outcome, how far the results are is told only this often.
TELL_EVERY = 10_000
# An owner that has told no lag for so long waits for something.
WAITS_S = 3.0


class SinkPhase(StrEnum):
    FENCING = "fencing"
    CATCHING_UP = "catching up"
    RUNNING = "running"
    STOPPED = "stopped"


class Tools(NamedTuple):
    """What the owners of one process share."""

    ledger_id: str
    config: ClientConfig
    names: Names
    connections: Connections
    queries: Queries
    recorder: SinkMetrics
    crash_points: CrashPoints
    # Whose turn it is to decode: two at once would both be as late as the second one, and Postgres
    # would wait for both.
    turn: threading.Lock


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
                f"partition {number}: the tables and the results have both read"
                f" {higher.next_offset} offsets, but of different journals"
            )
        self.chain = Chain(ledger_id, number, self.lower)


class _Share:
    """What a batch has of one partition, as it is being read."""

    def __init__(self, of: _PartitionProgress) -> None:
        self.of = of
        self.rows = Rows(of.number)
        self.results = Results(of.number)

    def add(self, read: ReadJournalRecord) -> None:
        """1."""
        of = self.of
        record = of.chain.follow(read)
        if read.offset >= of.tables_at.next_offset:
            self.rows.add(record)
        elif record.sequence == of.tables_at.sequence:
            self._check(read, "the tables", of.tables_at)
        if read.offset >= of.results_at.next_offset:
            self.results.add(record)
        elif record.sequence == of.results_at.sequence:
            self._check(read, "the results", of.results_at)

    def _check(self, read: ReadJournalRecord, what: str, at: JournalPosition) -> None:
        """What was behind arrives where the other one stands."""
        if self.of.chain.position != at:
            raise BrokenJournal(
                self.of.number, read.offset, f"is another record than the one that {what} ended at"
            )

    @property
    def part(self) -> PartitionBatch:
        return PartitionBatch(self.of.tables_at, self.of.chain.position, self.rows)

    @property
    def tells(self) -> bool:
        """Whether results are due, or how far they are."""
        behind = self.of.chain.position.sequence - self.of.results_at.sequence
        return bool(self.results) or behind >= TELL_EVERY


class SinkLane(LaneThread):
    """Lives in a thread of its own; `on_failure` gets whatever ends it."""

    def __init__(
        self,
        lane: int,
        partitions: Sequence[int],
        tools: Tools,
        on_failure: Callable[[int, BaseException], None],
    ) -> None:
        super().__init__(lane, tools.config, on_failure)
        self.partitions = partitions
        self.phase = SinkPhase.FENCING
        self._tools = tools
        self._reach = tools.crash_points.reach
        self._partitions: dict[int, _PartitionProgress] = {}
        # Those that hold all that their journal had when the lane was taken over. Waiting for its
        # end as it is now would never end where records keep coming.
        self._caught_up: set[int] = set()
        # The log time of what is being written to the tables, by partition.
        self._writing_ms: dict[int, int] = {}
        self._told_at = time.monotonic()
        self._telling = threading.Lock()

    def _released(self) -> None:
        with self._telling:
            self._enter(SinkPhase.STOPPED)
            for partition in self.partitions:
                self._tools.recorder.gone(partition)

    def _enter(self, phase: SinkPhase) -> None:
        for partition in self.partitions:
            self._tools.recorder.phase(partition, self.phase, phase)
        self.phase = phase

    def _own(self) -> None:
        # A.
        self._producer = transactional_producer.fenced_producer(
            self._tools.config, self._lane, INITIALISE_TIMEOUT_S, self._stopping
        )
        if self._stopping.is_set():
            return
        self._enter(SinkPhase.CATCHING_UP)
        for partition in self.partitions:
            self._tools.recorder.lag(partition, -1)
        journals = JournalConsumer(self._tools.config, self._tools.names)
        self._teller = ResultPublisher(self._producer, self._tools.names, self._lane, self._reach)
        try:
            self._take_over(journals)
            while not self._stopping.is_set():
                self._turn(journals)
        finally:
            self._teller.close()
            journals.close()

    # Taking over.

    def _take_over(self, journals: JournalConsumer) -> None:
        """B and C."""
        self._reach("fenced")
        tools = self._tools
        self._ledger = LedgerWriter(
            tools.connections, tools.queries, tools.ledger_id, self._stopping, self._reach
        )
        told = Positions(tools.config, tools.names, tools.ledger_id, self._stopping)
        tables_at = {number: self._ledger.position(number) for number in self.partitions}
        results_at = told.of(self._lane, self.partitions)
        self._reach("positioned")
        found = {
            number: _PartitionProgress(
                number, tools.ledger_id, tables_at[number], results_at[number]
            )
            for number in self.partitions
        }
        journals.start({number: each.lower for number, each in found.items()})
        self._partitions = found
        for each in found.values():
            log.info(
                "owning partition",
                partition=each.number,
                tables=each.tables_at.next_offset,
                results=each.results_at.next_offset,
            )

    # Running.

    def _turn(self, journals: JournalConsumer) -> None:
        taken = journals.take(IDLE_S)
        lags = {partition: journals.lag(partition) for partition in self.partitions}
        if taken:
            self._take(taken)
            self._tools.recorder.batch(len(taken))
        if self.phase is SinkPhase.CATCHING_UP:
            self._caught_up.update(filter(journals.caught_up, self.partitions))
            if len(self._caught_up) == len(self.partitions):
                self._enter(SinkPhase.RUNNING)
        with self._telling:
            self._told_at = time.monotonic()
            for partition, lag in lags.items():
                self._tools.recorder.lag(partition, lag)

    def waits(self) -> bool:
        """Whether others must tell how far behind it is; asked from their threads."""
        return bool(self._partitions) and time.monotonic() - self._told_at > WAITS_S

    def tell_waiting(self, ends: Mapping[int, int | None]) -> None:
        """In place of the owner, while it waits; the journals' ends where they are known."""
        with self._telling:
            if self.phase is SinkPhase.STOPPED or not self.waits():
                return
            writing = self._writing_ms
            for number, each in self._partitions.items():
                end = ends.get(number)
                if end is not None:
                    behind = records_between(each.tables_at.next_offset, end)
                    self._tools.recorder.lag(number, behind)
                    if behind and writing:
                        # What came after the batch was taken is as old as its first sight.
                        writing.setdefault(number, time.time_ns() // 1_000_000)
            for number, writing_ms in writing.items():
                self._tools.recorder.age(number, writing_ms)

    def _take(self, taken: list[Taken]) -> None:
        """All of it; where one record cannot be taken, all before that one, which ends it."""
        before = {number: each.chain.position for number, each in self._partitions.items()}
        try:
            self._process(taken)
        except (BrokenJournal, BrokenRecord, RowsRefused) as error:
            if len(taken) == 1:
                if isinstance(error, BrokenJournal):
                    raise
                partition, read = taken[0]
                raise BrokenJournal(partition, read.offset, str(error)) from error
            for number, position in before.items():
                self._partitions[number].chain.position = position
            middle = len(taken) // 2
            self._take(taken[:middle])
            self._take(taken[middle:])

    def _process(self, taken: list[Taken]) -> None:
        """1, then 2 to 4 for what the tables and the results lack."""
        shares: dict[int, _Share] = {}
        with self._tools.turn:
            for partition, read in taken:
                share = shares.get(partition)
                if share is None:
                    share = shares[partition] = _Share(self._partitions[partition])
                share.add(read)
        with_rows = [share for share in shares.values() if share.rows.records]
        if not any(share.tells for share in shares.values()):
            self._write_rows(with_rows)
            return
        # Of each partition of the lane, so that the last of each is never far from the topic's end.
        reached = {
            number: max(each.results_at, each.chain.position)
            for number, each in self._partitions.items()
        }
        batch = [share.results for share in shares.values()]
        # 2.
        telling = self._teller.begin(batch, reached)
        try:
            self._write_rows(with_rows)
        except BaseException:
            telling.drop()
            raise
        self._commit_results(telling, reached, sum(map(len, batch)))

    def _write_rows(self, shares: list[_Share]) -> None:
        """3."""
        if not shares:
            return
        self._reach("before_rows")
        started = time.monotonic()
        now_ms = time.time_ns() // 1_000_000
        # A genesis has no time: what is being written is as old as this.
        self._writing_ms = {share.of.number: share.rows.last_ms or now_ms for share in shares}
        self._ledger.write([share.part for share in shares])
        self._writing_ms = {}
        for share in shares:
            share.of.tables_at = share.of.chain.position
            self._tools.recorder.rows(share.rows)
        self._tools.recorder.rows_took(started)
        self._reach("after_rows")

    def _commit_results(
        self, telling: StagedResults, reached: Mapping[int, JournalPosition], count: int
    ) -> None:
        """4."""
        started = time.monotonic()
        telling.commit()
        for number, position in reached.items():
            self._partitions[number].results_at = position
        self._tools.recorder.results(started, count)
        self._reach("after_results")
