"""A processor with more before it than one batch: it reads the next one while one commits, and dies
then.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.inputs import MAX_RECORDS
from processor.owner import MUCH
from tests.crash import ledger as ledgers
from tests.crash.ledger import Ledger
from tests.programs import KILLED

# More than three batches: much waits while each of them commits.
CREDITS = 3 * MAX_RECORDS + 2 * MUCH
DECIDED_S = 120.0


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Ledger]:
    with ledgers.made(kafka, topic_prefix, tmp_path, 1) as made:
        yield made


def test_a_worker_that_dies_with_a_backlog_has_decided_each_command_once(ledger: Ledger) -> None:
    worker = ledger.ready(data="own")
    account = ledger.open(0)
    ledger.until(ledger.audit.settled, DECIDED_S)
    assert worker.stop() == 0
    credit = {"kind": "credit", "account": account, "amount": 1}
    ledger.send_all([({**credit, "id": f"c{n}"}, None, None) for n in range(CREDITS)])
    # Each has one batch behind it, and has read of the next one.
    for step in ("after_commit", "before_write", "after_write"):
        assert worker.start(CRASH_AT=step).wait(DECIDED_S) == KILLED, worker.tail()
    ledger.audit.update()
    assert ledger.audit.unanswered() >= 2 * MUCH
    worker.start()
    ledger.until(ledger.audit.settled, DECIDED_S)
    assert ledger.whole() == []
    assert ledger.audit.books[0].accounts[account].balance == CREDITS
