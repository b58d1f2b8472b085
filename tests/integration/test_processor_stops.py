"""How a processor ends, and what it does while nothing arrives: holds expire, partitions change
hands at once, and a full disk is reported and loses nothing."""

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger
from tests.testkit.worker_processes import Worker

# Far longer than any of these tests may take: nothing here may wait for a session to end.
LONG_SESSION = {"SESSION_TIMEOUT_MS": "60000"}
HANDED_OVER_S = 25.0
FILE_LIMIT_BYTES = 64 * 1024


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path) as started:
        yield started


def owned(worker: Worker) -> set[str]:
    status, body = worker.get("/ready")
    return set(json.loads(body)["partitions"]) if status == 200 else set()


def test_a_hold_expires_while_nothing_arrives(ledger: WorkerLedger) -> None:
    ledger.ready()
    account = ledger.open(0, amount=100)
    expires = int(time.time() * 1_000) + 1_500
    hold = {"kind": "hold", "account": account, "amount": 70, "id": "h", "expires_at_ms": expires}
    assert ledger.outcome(ledger.send(hold)).step == "posted"
    books = ledger.audit.books[0]
    assert books.accounts[account].held == 70

    def expired() -> bool:
        ledger.audit.update()
        return books.steps["expired"] == 1

    ledger.wait_until(expired, 10)
    late_ms = books.time_ms - expires
    assert 0 <= late_ms < 3_000
    assert books.accounts[account].held == 0
    # One tick was enough, and it came by `coordination`.
    assert books.steps["ticked"] == 1
    debit = {"kind": "debit", "account": account, "amount": 100, "id": "all of it"}
    assert ledger.outcome(ledger.send(debit)).step == "posted"
    assert ledger.settle_and_audit() == []


def test_a_clean_stop_hands_the_partitions_over_at_once(ledger: WorkerLedger) -> None:
    one = ledger.ready(**LONG_SESSION)
    other = ledger.worker(**LONG_SESSION)
    ledger.wait_until(
        lambda: owned(one) | owned(other) == {"0", "1"} and owned(one) and owned(other), 40
    )
    account = ledger.open(0)
    began = time.monotonic()
    assert one.stop() == 0
    ledger.wait_until(lambda: owned(other) == {"0", "1"}, HANDED_OVER_S)
    at = ledger.send({"kind": "credit", "account": account, "amount": 1, "id": "c"})
    assert ledger.outcome(at).step == "posted"
    assert time.monotonic() - began < HANDED_OVER_S
    # And back again, when it comes back.
    one.start()
    ledger.wait_until(lambda: owned(one) and owned(other), HANDED_OVER_S + 10)
    assert ledger.settle_and_audit() == []


def test_a_full_disk_is_reported_and_loses_nothing(
    ledger: WorkerLedger,
) -> None:
    """The limit on a file's size stands in for a full disk: writes fail in the same way."""
    worker = ledger.ready(data="full", LOG_LEVEL="WARNING")
    limit = (FILE_LIMIT_BYTES, resource.RLIM_INFINITY)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, limit)
    sent = []
    for number in range(40):
        account = ledger.account_in(number % 2)
        opening = {"kind": "open_account", "type": "wallet", "currency": "NGN", "id": "open"}
        sent.append(ledger.send({**opening, "account": account, "metadata": {"n": "n" * 4_000}}))
        if worker.exit_code() is not None:
            break
    assert worker.wait(20) == 1, worker.tail()
    said = worker.log_text()
    assert "disk" in said or "space" in said, said
    assert "Traceback" not in said
    ledger.ready(data="full")
    assert {outcome.step for outcome in ledger.outcomes(sent)} == {"posted"}
    assert ledger.settle_and_audit() == []
