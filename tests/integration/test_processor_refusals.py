"""What a processor refuses to own, each with exit code 1 and a line that says why: topics that are
not the ledger's, logs that were cut, folders that are taken."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger
from tests.testkit.waiting import eventually


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path) as started:
        yield started


def decided(ledger: WorkerLedger, commands: int = 3) -> None:
    """A ledger that has decided something in its partition 0 and was stopped."""
    worker = ledger.ready(data="first", LEDGER_ID="mine")
    account = ledger.open(0)
    for number in range(commands):
        at = ledger.send({"kind": "credit", "account": account, "amount": 5, "id": f"c{number}"})
    assert ledger.outcome(at).step == "posted"
    assert worker.stop() == 0


def cut(ledger: WorkerLedger, topic: str, offset: int) -> None:
    """Deletes what lies below the offset in partition 0, as an operator may."""
    to = TopicPartition(topic, 0, offset)
    ledger.admin.delete_records([to])[to].result(20)


def test_topics_with_another_number_of_partitions(ledger: WorkerLedger) -> None:
    said = ledger.refused(PARTITIONS="3")
    assert f"topic {ledger.names.commands}: has 2 partitions, must have 3 (PARTITIONS)" in said


def test_another_ledger_and_a_folder_that_is_taken(ledger: WorkerLedger) -> None:
    worker = ledger.ready(data="taken", LEDGER_ID="mine")
    said = ledger.refused(data="taken", LEDGER_ID="mine")
    assert "another processor runs on the data folder" in said
    assert worker.stop() == 0
    for data in ("taken", "fresh"):
        said = ledger.refused(data=data, LEDGER_ID="yours")
        assert "these topics hold the ledger 'mine', not 'yours'" in said


def test_a_log_of_commands_that_was_cut_and_one_that_grew_again(ledger: WorkerLedger) -> None:
    decided(ledger)
    commands = ledger.names.commands
    ledger.recreate_topic(commands)
    said = ledger.refused(data="first", LEDGER_ID="mine")
    assert f"partition 0 of `{commands}` has offsets 0 to 0; the ledger's position is 4" in said
    for number in range(6):
        ledger.send(b"another %d" % number, b"x", 0)
    for data in ("first", "lost"):
        said = ledger.refused(data=data, LEDGER_ID="mine")
        assert f"partition 0 of `{commands}` has another record at 3 than was read" in said
    cut(ledger, commands, 5)
    said = ledger.refused(data="first", LEDGER_ID="mine")
    assert f"partition 0 of `{commands}` has offsets 5 to 6; the ledger's position is 4" in said


def test_a_journal_that_is_not_the_one_that_was_written(ledger: WorkerLedger) -> None:
    decided(ledger)
    ledger.recreate_topic(ledger.names.journal)
    said = ledger.refused(data="lost", LEDGER_ID="mine")
    assert f"`{ledger.names.journal}` does not end where the state does" in said


def test_a_state_that_is_gone(ledger: WorkerLedger) -> None:
    """With the local copy and without: what was decided is never decided again."""
    decided(ledger)
    ledger.recreate_topic(ledger.names.state)
    said = ledger.refused(data="first", LEDGER_ID="mine")
    assert f"the local copy has read `{ledger.names.state}` up to" in said
    said = ledger.refused(data="lost", LEDGER_ID="mine")
    assert "journal" in said


def test_what_was_read_may_be_deleted(ledger: WorkerLedger) -> None:
    decided(ledger)
    cut(ledger, ledger.names.commands, 4)
    worker = ledger.ready(data="first", LEDGER_ID="mine")
    account = ledger.account_in(0)
    at = ledger.send({"kind": "close", "account": account, "id": "x"})
    assert ledger.outcome(at).reason == "account_not_found"
    assert worker.stop() == 0


def test_partitions_that_appear_later(ledger: WorkerLedger) -> None:
    from confluent_kafka.cimpl import NewPartitions

    decided(ledger)
    more = NewPartitions(ledger.names.commands, 3)
    (created,) = ledger.admin.create_partitions([more]).values()
    created.result(20)
    eventually(
        lambda: (
            len(ledger.admin.list_topics(timeout=10).topics[ledger.names.commands].partitions) == 3
        )
    )
    said = ledger.refused(data="first", LEDGER_ID="mine")
    assert f"topic {ledger.names.commands}: has 3 partitions, must have 2 (PARTITIONS)" in said
