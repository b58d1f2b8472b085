"""The audit must find what these tests plant: an audit that finds nothing proves little."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas import state_keys
from tests.crash import worker_ledger as ledgers
from tests.crash.audit import Audit
from tests.crash.worker_ledger import WorkerLedger


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path) as ledger:
        yield ledger


def differences(ledger: WorkerLedger) -> str:
    with Audit(ledger.client, ledger.names, ledger.partitions) as audit:
        return "\n".join(audit.verify())


def test_what_is_planted_is_found(ledger: WorkerLedger) -> None:
    worker = ledger.ready()
    one, other = ledger.open(0, amount=500), ledger.open(1, amount=500)
    ledger.wait_until(ledger.audit.settled, 30)
    transfer = {"kind": "transfer", "account": one, "to": other, "amount": 100, "id": "t"}
    unread = ledger.send(b"nothing that anybody can read", b"x", 0)
    outcomes = ledger.outcomes([ledger.send(transfer), unread])
    assert [outcome.step for outcome in outcomes] == ["posted", "refused"]
    assert ledger.settle_and_audit() == []
    assert worker.exit_code() == 0

    producer, names = Producer({**ledger.client, "acks": "all"}), ledger.names

    def plant(topic: str, value: bytes, key: bytes | None = None) -> str:
        producer.produce(topic, value, key, 0)
        assert producer.flush(10) == 0
        return differences(ledger)

    account: list[object] = ["wallet", "NGN", "open", None, 0, 10**6, 0, 0, 2, {}]
    found = plant(names.state, msgspec.msgpack.encode(account), state_keys.account(one))
    assert f"state 0, account: {one}" in found

    entry = {
        "sequence": 4,
        "transaction_id": "none",
        "account_id": one,
        "entry": "credit",
        "amount": 1,
        "balance": 1,
        "version": 1,
        "held": 0,
        "available": 1,
        "currency": "NGN",
        "user_id": None,
    }
    assert "transactions 0 has 1 too many" in plant(names.transactions, json.dumps(entry).encode())

    letter = {"partition": 0, "offset": unread.offset, "reason": "malformed", "digest": "none"}
    found = plant(names.commands_dead, json.dumps(letter).encode())
    assert f"commands 0:{unread.offset}, refused malformed: 2 dead letters" in found
    assert "reason, digest" in found

    assert "has no outcome" in plant(names.commands, b"never decided")
    assert "has no record" in plant(names.coordination, b'{"message": "tick"}')

    books = ledger.audit.books[0]
    forged = {
        "previous_hash": books.hash,
        "partition": 0,
        "sequence": books.sequence,
        "time_ms": books.time_ms,
        "source": {"topic": "commands", "offset": unread.offset},
        "step": "posted",
        "transaction_id": "none",
        "entries": [
            {"account": one, "direction": "debit", "amount": 9, "balance": -7, "version": 9}
        ],
    }
    found = plant(names.journal, json.dumps(forged).encode())
    for what in (
        "sequence is",
        f"command {unread.offset} has a second outcome",
        "debits less credits is 9",
        f"balance of {one} is -7",
        f"version of {one} is 9",
    ):
        assert what in found, what
    assert "previous_hash is" in plant(names.journal, json.dumps(forged).encode())


def test_messages_that_are_trimmed_while_it_reads_are_no_difference(ledger: WorkerLedger) -> None:
    ledger.ready()
    one, other = ledger.open(0, amount=500), ledger.open(1, amount=500)
    ledger.wait_until(ledger.audit.settled, 30)
    for turn in range(3):
        transfer = {"kind": "transfer", "account": one, "to": other, "amount": 1}
        ledger.outcome(ledger.send({**transfer, "id": f"t{turn}"}))
    ledger.wait_until(ledger.audit.settled, 30)
    between = [sorted(messages)[1:-1] for messages in ledger.audit.messages]
    assert between[0] and between[1]

    firsts = [
        TopicPartition(ledger.names.coordination, number, offsets[-1] + 1)
        for number, offsets in enumerate(between)
        if offsets
    ]
    admin = AdminClient(ledger.client)

    def without(*, trimmed: bool) -> str:
        """The differences for an audit that has only the first and last coordination messages."""
        with Audit(ledger.client, ledger.names, ledger.partitions) as audit:
            audit.update()
            for messages, offsets in zip(audit.messages, between, strict=True):
                for offset in offsets:
                    del messages[offset]
            for each in admin.delete_records(firsts).values() if trimmed else ():
                each.result(30)
            return "\n".join(audit.verify())

    assert "number is" in without(trimmed=False)
    assert without(trimmed=True) == ""
    assert ledger.settle_and_audit() == []
