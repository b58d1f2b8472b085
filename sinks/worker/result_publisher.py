"""The results' Kafka transactions of one lane, in a thread beside its owner's: what a batch will
tell is sent while its rows are written, and committed once they are.

Keeps two rules: no result can be seen before its rows are there, and no transaction stays open
while Postgres is waited for. Readers of the topic would wait as well, and in the end the brokers
would abort it and refuse its producer. It knows no table.
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

# The brokers may still be writing the markers of the last transaction: one that begins meanwhile is
# told to come again, and librdkafka waits 20 ms for that.
BETWEEN_S = 0.004
# How long results may take to be sent, and then wait for their rows: together well below
# transactions.TIMEOUT_MS.
OPEN_S = 2.0


class StagedResults:
    """What one batch tells: being sent, until somebody says what became of its rows."""

    def __init__(self, rows_are_there: Future[bool], ended: Future[None]) -> None:
        self._rows_are_there = rows_are_there
        self._ended = ended

    def commit(self) -> None:
        """The rows are there; so are the results when it returns. Any error that it raises leaves
        unknown whether they are."""
        self._rows_are_there.set_result(True)
        self._ended.result()

    def drop(self) -> None:
        """The rows are not there: nobody will see these results. Where that cannot be told to the
        brokers, they refuse whatever is told next."""
        self._rows_are_there.set_result(False)
        futures.wait([self._ended])
        if (error := self._ended.exception()) is not None:
            log.warning("results could not be taken back", error=repr(error))


class ResultPublisher:
    """Of a lane that was taken over: the producer is initialised."""

    def __init__(
        self, producer: Producer, names: Names, lane: int, reach: Callable[[str], None]
    ) -> None:
        self._producer = producer
        self._names = names
        self._lane = lane
        self._reach = reach
        self._ended_at = 0.0
        self._thread = ThreadPoolExecutor(1, f"lane-{lane}-results")

    def begin(
        self, batch: Sequence[Results], reached: Mapping[int, JournalPosition]
    ) -> StagedResults:
        """Does not wait. Not while another telling is neither committed nor dropped."""
        rows_are_there: Future[bool] = Future()
        ended = self._thread.submit(self._tell, batch, reached, rows_are_there)
        return StagedResults(rows_are_there, ended)

    def close(self) -> None:
        self._thread.shutdown()

    def _tell(
        self,
        batch: Sequence[Results],
        reached: Mapping[int, JournalPosition],
        rows_are_there: Future[bool],
    ) -> None:
        time.sleep(max(0.0, self._ended_at + BETWEEN_S - time.monotonic()))
        self._send(batch, reached)
        self._reach("results_sent")
        try:
            is_wanted, is_open = rows_are_there.result(OPEN_S), True
        except TimeoutError:
            log.warning("results wait for their rows", lane=self._lane)
            transactional_producer.abort(self._producer, self._lane)
            is_wanted, is_open = rows_are_there.result(), False
        if is_wanted:
            if not is_open:
                self._send(batch, reached)
            self._reach("before_results_commit")
            transactional_producer.commit(self._producer, self._lane)
        elif is_open:
            transactional_producer.abort(self._producer, self._lane)
        self._ended_at = time.monotonic()

    def _send(self, batch: Sequence[Results], reached: Mapping[int, JournalPosition]) -> None:
        self._producer.begin_transaction()
        self._reach("mid_results")
        for each in batch:
            each.produce(self._producer, self._names)
        results.tell(self._producer, self._names, self._lane, reached)
        # What is not sent by then, or could not be, is the commit's affair.
        self._producer.flush(OPEN_S)
