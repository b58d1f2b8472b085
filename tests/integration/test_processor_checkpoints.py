"""The local copy is believed only where it is this partition's of this ledger: else it is wiped and
restored, and nothing of it is left."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger

MINE = {"LEDGER_ID": "mine"}


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path) as started:
        yield started


def decided(ledger: WorkerLedger, commands: int) -> None:
    """Something more in each partition."""
    sent = []
    for partition in range(ledger.partitions):
        account = ledger.open(partition)
        credit = {"kind": "credit", "account": account, "amount": 1}
        sent += ledger.send_all([({**credit, "id": f"{n}"}, None, None) for n in range(commands)])
    assert {outcome.step for outcome in ledger.outcomes(sent)} == {"posted"}


def test_copies_that_were_only_restored_and_lie_in_each_others_place(
    ledger: WorkerLedger, tmp_path: Path
) -> None:
    first = ledger.ready(data="first", **MINE)
    decided(ledger, 3)
    assert first.stop() == 0
    # This one knows of the journal only what `state` tells.
    restored = ledger.ready(data="restored", **MINE)
    assert restored.stop() == 0
    first.start()
    ledgers.wait_until_ready(first)
    decided(ledger, 3)
    assert first.stop() == 0
    zero, one = (tmp_path / "restored" / f"partition-{number}" for number in (0, 1))
    zero.rename(tmp_path / "away")
    one.rename(zero)
    (tmp_path / "away").rename(one)
    restored.start()
    ledgers.wait_until_ready(restored)
    decided(ledger, 3)
    # What is wrong locally shows where it decides: each account is asked for all that it has.
    sent = [
        ledger.send({"kind": "debit", "account": id, "amount": account.balance, "id": "all of it"})
        for books in ledger.audit.books
        for id, account in books.accounts.items()
    ]
    assert {outcome.step for outcome in ledger.outcomes(sent)} == {"posted"}
    assert ledger.settle_and_audit() == []


def test_a_copy_of_another_ledger_that_has_gone_further(
    ledger: WorkerLedger, tmp_path: Path
) -> None:
    with ledgers.worker_ledger(
        ledger.bootstrap, f"{ledger.prefix}other-", tmp_path / "other"
    ) as other:
        worker = other.ready(data="data", LEDGER_ID="other")
        decided(other, 100)
        assert worker.stop() == 0
        other.delete_topics()
    mine = ledger.ready(data="mine", **MINE)
    decided(ledger, 2)
    assert mine.stop() == 0
    shutil.rmtree(tmp_path / "mine")
    shutil.copytree(tmp_path / "other" / "data", tmp_path / "mine")
    mine.start()
    ledgers.wait_until_ready(mine)
    decided(ledger, 2)
    assert ledger.settle_and_audit() == []


def test_a_damaged_block_of_a_copy(ledger: WorkerLedger, tmp_path: Path) -> None:
    """The worker gives the copy up and recovers by itself, also where no other one is there."""
    worker = ledger.ready(data="damaged", **MINE)
    accounts = [ledger.open(partition) for partition in range(ledger.partitions)]
    credits = [
        {"kind": "credit", "account": account, "amount": 1, "id": f"{number}"}
        for account in accounts
        for number in range(300)
    ]
    sent = ledger.send_all([(credit, None, None) for credit in credits])
    assert {outcome.step for outcome in ledger.outcomes(sent)} == {"posted"}
    assert worker.stop() == 0
    # What RocksDB has in its own log goes to files at the next start.
    worker.start()
    ledgers.wait_until_ready(worker)
    assert worker.stop() == 0
    for number in range(ledger.partitions):
        files = (tmp_path / "damaged" / f"partition-{number}").glob("*.sst")
        largest = max(files, key=lambda file: file.stat().st_size)
        content = bytearray(largest.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 50] = bytes(byte ^ 0xFF for byte in content[middle:][:50])
        largest.write_bytes(content)

    worker.start()
    again = ledger.send_all([(credit, None, None) for credit in credits])
    assert {outcome.step for outcome in ledger.outcomes(again, 90)} == {"replayed"}
    assert "local copy damaged" in worker.log_text()
    decided(ledger, 3)
    assert ledger.settle_and_audit() == []
