"""A worker that loses its brokers within a batch restarts, logs that it waits for them, and decides
the batch again.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.embedded import kafka
from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger
from tests.testkit import environment as stages

AWAY_S = 120.0


@pytest.fixture
def ledger(
    mortal_kafka: kafka.Cluster, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[WorkerLedger]:
    prefix = f"{request.node.name.partition('[')[0]}-"
    with ledgers.worker_ledger(mortal_kafka.bootstrap, prefix, tmp_path, 2) as started:
        yield started


def test_a_worker_that_loses_its_broker_within_a_batch_restarts(
    ledger: WorkerLedger, mortal_kafka: kafka.Cluster
) -> None:
    """The client gives records up after ten seconds, and with them their transaction."""
    first = ledger.ready(data="own")
    payer, payee = ledger.open(0, 100), ledger.open(1)
    ledger.wait_until(ledger.audit.settled, AWAY_S)
    assert first.stop() == 0
    first.start(CRASH_AT="freeze:mid_produce")
    ledgers.wait_until_ready(first)
    transfer = {"kind": "transfer", "account": payer, "to": payee, "amount": 30, "id": "t"}
    credit = {"kind": "credit", "account": payer, "amount": 1, "id": "c"}
    sent = [ledger.send(transfer), ledger.send(credit)]
    ledger.wait_until(first.frozen, AWAY_S)
    mortal_kafka.processes[1].kill()
    first.send(signal.SIGCONT)
    ledger.wait_until(lambda: "restarting" in first.log_text(), AWAY_S)
    mortal_kafka.start_broker(1)
    mortal_kafka.wait_until_serving(stages.NEVER_STOPPED)
    # The restarted process has the same settings: it freezes once more.
    ledger.wait_until(first.frozen, AWAY_S)
    first.send(signal.SIGCONT)
    assert [outcome.step for outcome in ledger.outcomes(sent, AWAY_S)] == ["posted", "posted"]
    # The same process, all the way.
    assert first.stop() == 0, first.tail()
    assert ledger.settle_and_audit() == []
    balances = [ledger.audit.books[n].accounts[a].balance for n, a in enumerate((payer, payee))]
    assert balances == [71, 30]
