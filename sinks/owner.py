"""The sink of one partition: its only writer, from the moment it is assigned until it is revoked.

Taking over, in this order:

  A. initialise the partition's transactional producer: an older sink is fenced, and every
     transaction of its is wholly committed or aborted when this returns;
  B. read how far the tables and the results are, both after A;
  C. read the journal from the lower of the two; refuse if it does not lie there.

Each batch, in this order:

  1. decode every record, and test that it follows on the one before; rows and results are in memory
     only;
  2. one Postgres transaction: move the partition's position from exactly where it was, copy and
     update rows;
  3. one Kafka transaction: the results, and how far they are.

Each of 2 and 3 takes only what lies beyond its own position. So a crash between them, or tables put
back to last night's, cost nothing: what is there is not written again. Whatever else fails is not
guessed at: the process ends, and A to C of the next sink find out what is there.
docs/failure-scenarios.md says what each failure between two steps leaves behind.
"""

import threading
import time
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import structlog

from plumbing import kafka, transactions
from plumbing.crashpoints import CrashPoints
from plumbing.failures import Failure
from plumbing.kafka import ClientConfig
from schemas.topics import Names
from sinks.inputs import Journal
from sinks.ledger import Ledger, Queries, RowsRefused
from sinks.postgres import Connections
from sinks.reading import BrokenJournal, Chain, Position, Read
from sinks.recorder import Recorder
from sinks.results import Positions, Results
from sinks.rows import BrokenRecord, Rows

log = structlog.get_logger(__name__)

# Longer than any broker makes a new owner wait for the last one's transaction to end.
INITIALISE_TIMEOUT_S = 30.0
IDLE_S = 0.5
# Where no record has an outcome, how far the results are is told only this often.
TELL_EVERY = 10_000
# An owner that has told no lag for so long waits for something.
WAITS_S = 3.0


class Phase(StrEnum):
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
    recorder: Recorder
    crash_points: CrashPoints


class Owner:
    """Lives in a thread of its own; `crashed` is told of whatever ends it."""

    def __init__(
        self, partition: int, tools: Tools, crashed: Callable[[int, BaseException], None]
    ) -> None:
        self.partition = partition
        self.phase = Phase.FENCING
        self._tools = tools
        self._crashed = crashed
        self._reach = tools.crash_points.reach
        self._stopping = threading.Event()
        # How far the tables are, once that is known; the log time of what is being written to them.
        self._tables_end: int | None = None
        self._writing_ms: int | None = None
        self._told_at = time.monotonic()
        self._telling = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"partition-{partition}")

    def start(self) -> None:
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stopping.set()

    def stop(self) -> None:
        """Waits for the batch in flight. A second call does nothing."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._own()
        except BaseException as error:
            self._crashed(self.partition, kafka.explained(self._tools.config, error))
        finally:
            with self._telling:
                self._enter(Phase.STOPPED)
                self._tools.recorder.gone(self.partition)

    def _enter(self, phase: Phase) -> None:
        self._tools.recorder.phase(self.partition, self.phase, phase)
        self.phase = phase

    def _own(self) -> None:
        # A.
        self._producer = transactions.fenced_producer(
            self._tools.config, self.partition, INITIALISE_TIMEOUT_S, self._stopping
        )
        if self._stopping.is_set():
            return
        self._enter(Phase.CATCHING_UP)
        self._tools.recorder.lag(self.partition, -1)
        journal = Journal(self._tools.config, self._tools.names, self.partition)
        try:
            self._take_over(journal)
            while not self._stopping.is_set():
                self._turn(journal)
        finally:
            journal.close()

    # Taking over.

    def _take_over(self, journal: Journal) -> None:
        """B and C."""
        self._reach("fenced")
        tools = self._tools
        self._ledger = Ledger(
            tools.connections,
            tools.queries,
            tools.ledger_id,
            self.partition,
            self._stopping,
            self._reach,
        )
        results = Positions(tools.config, tools.names, tools.ledger_id, self._stopping)
        self._tables_at = self._ledger.position()
        self._tables_end = self._tables_at.next_offset
        self._results_at = results.of(self.partition)
        self._reach("positioned")
        lower, higher = sorted((self._tables_at, self._results_at))
        if lower.next_offset == higher.next_offset and lower != higher:
            raise Failure(
                f"partition {self.partition}: the tables and the results have both read"
                f" {lower.next_offset} offsets, but of different journals"
            )
        self._chain = Chain(tools.ledger_id, self.partition, lower)
        journal.start(lower)
        log.info(
            "owning partition",
            partition=self.partition,
            tables=self._tables_at.next_offset,
            results=self._results_at.next_offset,
        )

    # Running.

    def _turn(self, journal: Journal) -> None:
        reads = journal.take(IDLE_S)
        lag = journal.lag()
        if reads:
            self._take(reads)
            self._tools.recorder.batch(self.partition, len(reads))
        if self.phase is Phase.CATCHING_UP and lag == 0:
            self._enter(Phase.RUNNING)
        with self._telling:
            self._told_at = time.monotonic()
            self._tools.recorder.lag(self.partition, lag)

    def waits(self) -> bool:
        """Whether others must tell how far behind it is; asked from their threads."""
        return self._tables_end is not None and time.monotonic() - self._told_at > WAITS_S

    def tell_waiting(self, end: int | None) -> None:
        """In place of the owner, while it waits; the journal's end where that is known."""
        with self._telling:
            if self.phase is Phase.STOPPED or not self.waits():
                return
            if end is not None:
                self._tools.recorder.lag(self.partition, max(0, end - (self._tables_end or 0)))
            if (writing_ms := self._writing_ms) is not None:
                self._tools.recorder.age(self.partition, writing_ms)

    def _take(self, reads: list[Read]) -> None:
        """All of it; where one record cannot be taken, all before that one, which ends it."""
        before = self._chain.position
        try:
            self._process(reads)
        except (BrokenJournal, BrokenRecord, RowsRefused) as error:
            if len(reads) == 1:
                if isinstance(error, BrokenJournal):
                    raise
                raise BrokenJournal(self.partition, reads[0].offset, str(error)) from error
            self._chain.position = before
            middle = len(reads) // 2
            self._take(reads[:middle])
            self._take(reads[middle:])

    def _process(self, reads: list[Read]) -> None:
        """1, then 2 and 3 for what each of them lacks."""
        chain, tables_at, results_at = self._chain, self._tables_at, self._results_at
        rows, results = Rows(self.partition), Results()
        for read in reads:
            record = chain.follow(read)
            if read.offset >= tables_at.next_offset:
                rows.add(record)
            elif record.sequence == tables_at.sequence:
                self._check(read, "the tables", tables_at)
            if read.offset >= results_at.next_offset:
                results.add(record)
            elif record.sequence == results_at.sequence:
                self._check(read, "the results", results_at)
        reached = chain.position
        if rows.records:
            self._write_rows(rows, reached)
        behind = reached.sequence - results_at.sequence
        if results or behind >= TELL_EVERY:
            self._write_results(results, reached)

    def _check(self, read: Read, what: str, at: Position) -> None:
        """What was behind arrives where the other one stands."""
        if self._chain.position != at:
            raise BrokenJournal(
                self.partition, read.offset, f"is another record than the one that {what} ended at"
            )

    def _write_rows(self, rows: Rows, reached: Position) -> None:
        """2."""
        self._reach("before_rows")
        started = time.monotonic()
        self._writing_ms = rows.last_ms
        self._ledger.write(self._tables_at, reached, rows)
        self._writing_ms = None
        self._tables_at = reached
        self._tables_end = reached.next_offset
        self._tools.recorder.rows(started, rows)
        self._reach("after_rows")

    def _write_results(self, results: Results, reached: Position) -> None:
        """3."""
        started = time.monotonic()
        self._producer.begin_transaction()
        self._reach("mid_results")
        results.produce(self._producer, self._tools.names, self.partition, reached)
        self._reach("before_results_commit")
        transactions.commit(self._producer, self.partition)
        self._results_at = reached
        self._tools.recorder.results(started, len(results))
        self._reach("after_results")
