"""A processor with more before it than one batch, or than one transaction holds: it dies with the
rest undecided, part of it read.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbing import metrics
from processor.lanes.batch_reader import MAX_RECORDS
from processor.lanes.lane_reader import READ_AHEAD_MIN_BACKLOG
from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger
from tests.testkit.programs import KILLED
from tests.testkit.worker_processes import Worker

# More than three batches: much waits while each of them commits.
CREDITS = 3 * MAX_RECORDS + 2 * READ_AHEAD_MIN_BACKLOG
LARGE_CREDITS = 10_000
DECIDED_S = 120.0


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path, 1) as started:
        yield started


def test_a_worker_that_dies_with_a_backlog_has_decided_each_command_once(
    ledger: WorkerLedger,
) -> None:
    worker, account = behind(ledger, CREDITS, {})
    # Each has one batch behind it, and has read of the next one.
    die_at_each_step(worker)
    assert unanswered(ledger) >= 2 * READ_AHEAD_MIN_BACKLOG
    worker.start()
    ledger.wait_until(ledger.audit.settled, DECIDED_S)
    assert ledger.settle_and_audit() == []
    assert ledger.audit.books[0].accounts[account].balance == CREDITS


def test_a_batch_too_large_for_one_transaction_is_decided_once_where_it_dies_between_two_parts(
    ledger: WorkerLedger,
) -> None:
    # What is read at once holds 2,000 of these, one transaction what follows from 1,400.
    worker, account = behind(ledger, LARGE_CREDITS, {"metadata": {"note": "x" * 4_000}})
    die_at_each_step(worker)
    assert unanswered(ledger) > LARGE_CREDITS / 2
    worker.start()
    ledger.wait_until(ledger.audit.settled, DECIDED_S)
    samples = worker.numbers()
    transactions = samples[f"{metrics.TRANSACTION_SECONDS.name}_count"]
    assert transactions > samples[f"{metrics.BATCH_RECORDS.name}_count"]
    assert ledger.settle_and_audit() == []
    assert ledger.audit.books[0].accounts[account].balance == LARGE_CREDITS


def behind(ledger: WorkerLedger, count: int, more: dict[str, object]) -> tuple[Worker, str]:
    """A worker that is stopped, and the account that has so many credits before it since."""
    worker = ledger.ready(data="own")
    account = ledger.open(0)
    ledger.wait_until(ledger.audit.settled, DECIDED_S)
    assert worker.stop() == 0
    credit = {"kind": "credit", "account": account, "amount": 1, **more}
    ledger.send_all([({**credit, "id": f"c{n}"}, None, None) for n in range(count)])
    return worker, account


def die_at_each_step(worker: Worker) -> None:
    for step in ("after_commit", "before_write", "after_write"):
        assert worker.start(CRASH_AT=step).wait(DECIDED_S) == KILLED, worker.tail()


def unanswered(ledger: WorkerLedger) -> int:
    ledger.audit.update()
    return ledger.audit.without_outcome()
