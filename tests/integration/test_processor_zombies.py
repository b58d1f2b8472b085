"""A processor that freezes at a named step, and wakes when its partition belongs to another one:
what it had not committed it does not commit, and what it had is there once.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger

TAKEN_OVER_S = 60.0
CRASHED = 70


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path, 1) as started:
        yield started


@pytest.mark.parametrize("step", ["mid_produce", "before_commit"])
def test_what_was_not_committed_is_decided_by_the_next_owner_alone(
    ledger: WorkerLedger, step: str
) -> None:
    account = freeze_at(ledger, step)
    zombie, credit = ledger.workers[0], ledger.send(credit_of(account, "frozen"))
    ledger.wait_until(zombie.frozen, TAKEN_OVER_S)
    ledger.ready()
    assert ledger.outcome(credit, TAKEN_OVER_S).step == "posted"
    zombie.send(signal.SIGCONT)
    # If its client gives the batch up first, it restarts.
    ledger.wait_until(
        lambda: zombie.exit_code() == CRASHED or "restarting" in zombie.log_text(), TAKEN_OVER_S
    )
    zombie.kill()
    assert ledger.outcome(ledger.send(credit_of(account, "after"))).step == "posted"
    assert ledger.settle_and_audit() == []
    assert ledger.audit.books[0].accounts[account].balance == 2


def test_what_was_committed_is_not_decided_again(ledger: WorkerLedger) -> None:
    """It still writes its batch to its own disk, rightly; then it hears that it was left out, or
    its next commit fails."""
    account = freeze_at(ledger, "after_commit")
    zombie, credit = ledger.workers[0], ledger.send(credit_of(account, "frozen"))
    ledger.wait_until(zombie.frozen, TAKEN_OVER_S)
    other = ledger.ready()
    assert ledger.outcome(ledger.send(credit_of(account, "after")), TAKEN_OVER_S).step == "posted"
    zombie.send(signal.SIGCONT)
    assert ledger.outcome(credit).step == "posted"
    ledger.wait_until(lambda: zombie.exit_code() == CRASHED or zombie.ready(), TAKEN_OVER_S)
    if not zombie.running():
        zombie.start()
        ledgers.wait_until_ready(zombie)
    # And it may own the partition again, on its old disk.
    assert other.stop() == 0
    assert ledger.outcome(ledger.send(credit_of(account, "last")), TAKEN_OVER_S).step == "posted"
    assert ledger.settle_and_audit() == []
    assert ledger.audit.books[0].accounts[account].balance == 3


def freeze_at(ledger: WorkerLedger, step: str) -> str:
    """A worker that has opened an account and will freeze in its next batch; the account."""
    first = ledger.ready(data="own")
    account = ledger.open(0)
    ledger.wait_until(ledger.audit.settled, TAKEN_OVER_S)
    assert first.stop() == 0
    first.start(CRASH_AT=f"freeze:{step}")
    ledgers.wait_until_ready(first)
    return account


def credit_of(account: str, id: str) -> dict[str, object]:
    return {"kind": "credit", "account": account, "amount": 1, "id": id}
