"""Workers that start again go on with what they have on disk: lanes go back to who has them, and
what is there is not read again; after a clean stop as after kill -9, and whoever comes first."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.state import checkpoint
from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger
from tests.testkit.worker_processes import Worker

LANES = ["0", "2"], ["1", "3"]
EACH = 500
JOINED_S = 60.0
RESTORING = re.compile(r"restoring .*at=(\d+) end=(\d+) partition=(\d+)")


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path, partitions=4) as started:
        yield started


def owned(worker: Worker) -> list[str]:
    status, body = worker.get("/ready")
    return sorted(json.loads(body)["partitions"]) if status == 200 else []


def read_again(log: str, partitions: list[str]) -> list[tuple[str, ...]]:
    """Where a worker read of these partitions' state, by its own words."""
    return [
        (at, end, partition)
        for at, end, partition in RESTORING.findall(log)
        if partition in partitions and at != end
    ]


def test_lanes_go_back_to_who_has_them_on_disk(ledger: WorkerLedger, tmp_path: Path) -> None:
    workers = [ledger.worker(), ledger.worker()]
    ledger.wait_until(lambda: sorted(map(owned, workers)) == [*LANES], JOINED_S)
    killed, stopped = sorted(workers, key=owned)
    accounts = [ledger.open(partition) for partition in range(4)]
    credit = {"kind": "credit", "amount": 1}
    sent = ledger.send_all(
        [
            ({**credit, "account": account, "id": f"{number}"}, None, None)
            for account in accounts
            for number in range(EACH)
        ]
    )
    assert {outcome.step for outcome in ledger.outcomes(sent)} == {"posted"}
    killed.kill()
    assert stopped.stop() == 0
    for partition in LANES[1]:
        copy = tmp_path / f"data-{stopped.number}" / f"partition-{partition}"
        assert checkpoint.noted(copy) > EACH
    before = {worker: len(worker.log_text()) for worker in workers}
    # The first has all lanes for a moment. Faust's own assignor would keep the last ones for it.
    killed.start()
    ledger.wait_until(lambda: owned(killed) == sorted("0123"), JOINED_S)
    stopped.start()
    ledger.wait_until(lambda: [owned(killed), owned(stopped)] == [*LANES], JOINED_S)
    for worker, lane in zip((killed, stopped), LANES, strict=True):
        said = worker.log_text()[before[worker] :]
        assert RESTORING.search(said), said
        assert read_again(said, lane) == []
    for worker in workers:
        worker.kill()
    assert ledger.settle_and_audit() == []
