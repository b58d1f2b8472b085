"""Publishes the results of one lane in Kafka transactions, in a thread beside the lane's own. A
batch's results are sent while its rows are written, and committed after them.

Keeps two rules. No result can be seen before its rows are there. No transaction stays open while
Postgres is away: readers of the topic would wait, and in the end the brokers would abort it and
fence its producer. It knows no table.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor

import structlog
from confluent_kafka import Producer

from plumbing.kafka import transactional_producer
from schemas.topics import Names
from sinks.journal_chain import JournalPosition
from sinks.worker import results
from sinks.worker.results import Results

log = structlog.get_logger(__name__)

# The brokers may still be writing the markers of the last transaction. They reject a transaction
# that begins meanwhile, and librdkafka retries only after 20 ms.
TRANSACTION_GAP_S = 0.004
# The time to send results, and then to wait for their rows: together well below
# transactions.TIMEOUT_MS.
MAX_OPEN_S = 2.0


class StagedResults:
    """The results of one batch in an open transaction. The caller ends it by `commit` or
    `abort`."""

    def __init__(self, rows_are_there: Future[bool], ended: Future[None]) -> None:
        self._rows_are_there = rows_are_there
        self._ended = ended

    def commit(self) -> None:
        """The rows are there. When it returns, the results are too. If it raises, it is unknown
        whether they are."""
        self._rows_are_there.set_result(True)
        self._ended.result()

    def abort(self) -> None:
        """The rows are not there: no reader sees these results. If the abort itself fails, the
        brokers reject the next transaction of this producer."""
        self._rows_are_there.set_result(False)
        futures.wait([self._ended])
        if (error := self._ended.exception()) is not None:
            log.warning("results could not be aborted", error=repr(error))


class ResultPublisher:
    """One per lane, made after take-over: the producer is initialised."""

    def __init__(
        self, producer: Producer, names: Names, lane: int, reach: Callable[[str], None]
    ) -> None:
        self._producer = producer
        self._names = names
        self._lane = lane
        self._reach = reach
        self._ended_at = 0.0
        self._thread = ThreadPoolExecutor(1, f"lane-{lane}-results")

    def stage(
        self, batch: Sequence[Results], positions: Mapping[int, JournalPosition]
    ) -> StagedResults:
        """Returns at once. The last staged results must be committed or aborted."""
        rows_are_there: Future[bool] = Future()
        ended = self._thread.submit(self._publish, batch, positions, rows_are_there)
        return StagedResults(rows_are_there, ended)

    def close(self) -> None:
        self._thread.shutdown()

    def _publish(
        self,
        batch: Sequence[Results],
        positions: Mapping[int, JournalPosition],
        rows_are_there: Future[bool],
    ) -> None:
        time.sleep(max(0.0, self._ended_at + TRANSACTION_GAP_S - time.monotonic()))
        self._send(batch, positions)
        self._reach("results_sent")
        try:
            is_wanted, is_open = rows_are_there.result(MAX_OPEN_S), True
        except TimeoutError:
            log.warning("results wait for their rows", lane=self._lane)
            transactional_producer.abort(self._producer, self._lane)
            is_wanted, is_open = rows_are_there.result(), False
        if is_wanted:
            if not is_open:
                self._send(batch, positions)
            self._reach("before_results_commit")
            transactional_producer.commit(self._producer, self._lane)
        elif is_open:
            transactional_producer.abort(self._producer, self._lane)
        self._ended_at = time.monotonic()

    def _send(self, batch: Sequence[Results], positions: Mapping[int, JournalPosition]) -> None:
        self._producer.begin_transaction()
        self._reach("mid_results")
        for partition_results in batch:
            partition_results.produce(self._producer, self._names)
        results.produce_positions(self._producer, self._names, self._lane, positions)
        # The commit reports whatever is not sent by then, or failed.
        self._producer.flush(MAX_OPEN_S)
