"""Whatever bytes lie in `commands`, and however large the batch that they came in: each gets its
outcome, and what comes after it is decided too."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import Position, WorkerLedger
from tests.simulation import hostile
from tests.simulation.generator import Record
from tests.testkit import wire_producer

KIB = 1024
MIB = 1024 * KIB
HANGING_MS = 3_000


@pytest.fixture(scope="module")
def prefix(kafka: str) -> str:
    return f"inputs-{random.SystemRandom().randrange(10**9)}-"


@pytest.fixture(scope="module")
def ledger(
    kafka: str, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerLedger]:
    """One ledger and one worker for all of these: none of them may stop it."""
    with ledgers.worker_ledger(kafka, prefix, tmp_path_factory.mktemp("inputs")) as started:
        started.ready()
        yield started
        started.delete_topics()


def padded(command: dict[str, Any], size: int) -> bytes:
    """The same command in so many bytes."""
    value = json.dumps(command).encode()
    return value + b" " * (size - len(value))


def bulky(ledger: WorkerLedger) -> Producer:
    """A producer whose batches are as large as they may be before they are compressed."""
    return Producer(
        {
            **ledger.client,
            "compression.type": "zstd",
            "message.max.bytes": 1_000_000_000,
            "batch.size": 1_000_000_000,
            "batch.num.messages": 1_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
            "linger.ms": 2_000,
        }
    )


def test_a_command_of_64_kib_is_decided_and_one_byte_more_is_too_large(
    ledger: WorkerLedger,
) -> None:
    account = ledger.open(0)
    command = {"kind": "credit", "account": account, "amount": 1, "id": "largest"}
    largest = ledger.send(padded(command, 64 * KIB), account.encode(), 0)
    larger = ledger.send(padded({**command, "id": "larger"}, 64 * KIB + 1), account.encode(), 0)
    value = padded({**command, "id": "most"}, MIB)
    most = ledger.send(value, account.encode(), 0, producer=bulky(ledger))
    assert ledger.outcome(largest).step == "posted"
    assert ledger.outcome(larger).reason == "too_large"
    assert ledger.outcome(most).reason == "too_large"


def test_150_mb_in_one_batch(ledger: WorkerLedger) -> None:
    """As one record; as many records that are each decided; and as keys, which are no one's."""
    account = ledger.open(0)
    key = account.encode()
    command = {"kind": "credit", "account": account, "amount": 1}
    one = ledger.send(
        padded({**command, "id": "whole"}, 150_000_000), key, 0, producer=bulky(ledger)
    )
    many = ledger.send_all(
        [
            (padded({**command, "id": f"part {number}"}, 64 * KIB), key, 0)
            for number in range(150_000_000 // (64 * KIB))
        ],
        producer=bulky(ledger),
    )
    after = ledger.send({**command, "id": "after"})
    assert ledger.outcome(after, 60).step == "posted"
    assert ledger.outcome(one).reason == "too_large"
    assert {outcome.step for outcome in ledger.outcomes(many)} == {"posted"}


def test_keys_as_large_as_batches_may_be(ledger: WorkerLedger) -> None:
    """A key is as long as its producer likes; nothing that is written about it may be."""
    account = ledger.open(0)
    command = {"kind": "credit", "account": account, "amount": 1}
    one = ledger.send({**command, "id": "vast"}, b"k" * 8 * MIB, 0, producer=bulky(ledger))
    many = ledger.send_all(
        [({**command, "id": f"v{number}"}, b"k" * 900 * KIB, 0) for number in range(200)],
        producer=bulky(ledger),
    )
    after = ledger.send({**command, "id": "after the keys"})
    assert ledger.outcome(after, 60).step == "posted"
    assert {outcome.reason for outcome in ledger.outcomes([one, *many])} == {"misrouted"}


def test_the_largest_posts_there_are_many_in_one_batch(ledger: WorkerLedger) -> None:
    """A hundred entries over all partitions, metadata and texts full."""
    accounts = sorted(ledger.account_in(number % 2) for number in range(100))
    opening = {"kind": "open_account", "type": "liability", "currency": "NGN", "id": "open"}
    ledger.send_all([({**opening, "account": account}, None, None) for account in accounts])
    post = {
        "kind": "post",
        "account": accounts[0],
        "currency": "NGN",
        "metadata": {"m" * 96: "\u00e9" * 2_000},
        "reference": "\u00e9" * 200,
        "description": "\u00e9" * 1_000,
        "actor": "\u00e9" * 200,
        "trace": "\u00e9" * 200,
        "external_id": "\u00e9" * 200,
        "entries": [
            {"account": account, "direction": ("debit", "credit")[number % 2], "amount": 2**45}
            for number, account in enumerate(accounts)
        ],
    }
    sent = ledger.send_all(
        [({**post, "id": f"{number:0200}"}, None, None) for number in range(60)],
        producer=bulky(ledger),
    )
    assert {outcome.step for outcome in ledger.outcomes(sent, 40)} == {"posted"}


def test_every_hostile_input_has_its_outcome(ledger: WorkerLedger) -> None:
    account = ledger.open(1, amount=1_000)
    dice = random.Random(5)
    spoiled = []
    for number, spoil in enumerate(hostile.SPOILERS * 10):
        command = {"kind": "debit", "account": account, "amount": 1, "id": f"h{number}"}
        command["idempotency_key"] = f"hostile {number}"
        value = json.dumps(command).encode()
        record = spoil(dice, Record(1, account.encode(), value), command)
        spoiled.append((record.value, record.key, record.partition))
    assert len(spoiled) > 900
    sent = ledger.send_all(spoiled)
    good = ledger.send({"kind": "debit", "account": account, "amount": 1, "id": "good"})
    assert ledger.outcome(good).step in ("posted", "rejected")
    assert {outcome.step for outcome in ledger.outcomes(sent)} >= {"refused", "rejected", "posted"}


def test_a_command_that_came_by_another_way_changes_nothing(ledger: WorkerLedger) -> None:
    account, other = ledger.open(0), ledger.open(0)
    command = {"kind": "credit", "account": account, "amount": 1, "id": "m"}
    entries = [
        {"account": name, "direction": side, "amount": 1}
        for name, side in ((account, "debit"), (other, "credit"))
    ]
    post = {"kind": "post", "currency": "NGN", "entries": entries, "id": "p"}
    ways: list[tuple[dict[str, Any], bytes | None, int]] = [
        (command, other.encode(), 0),
        (command, b"nobody", 0),
        (command, account.encode(), 1),
        ({**post, "account": max(account, other)}, None, 0),
    ]
    outcomes = ledger.outcomes(ledger.send_all(ways))
    assert [outcome.reason for outcome in outcomes] == ["misrouted"] * len(ways)
    # None of them owns the key: the first that comes the right way does.
    assert ledger.outcome(ledger.send(command)).step == "posted"


def test_aborted_transactions_have_no_outcome_and_hanging_ones_delay_by_their_time_out(
    ledger: WorkerLedger,
) -> None:
    account = ledger.open(0)
    command = {"kind": "credit", "account": account, "amount": 1}
    options = {"transactional.id": ledger.names.commands, "transaction.timeout.ms": HANGING_MS}
    producer = Producer({**ledger.client, **options})
    producer.init_transactions(20)
    producer.begin_transaction()
    aborted = ledger.send({**command, "id": "aborted"}, producer=producer)
    producer.abort_transaction(20)
    producer.begin_transaction()
    committed = ledger.send({**command, "id": "committed"}, producer=producer)
    producer.commit_transaction(20)
    producer.begin_transaction()
    hanging = ledger.send({**command, "id": "hanging"}, producer=producer)
    after = ledger.send({**command, "id": "after the hanging one"})
    assert ledger.outcome(committed).step == "posted"
    assert after.offset not in ledger.audit.books[0].outcomes
    # The broker looks for transactions that are over time every ten seconds, or more often.
    assert ledger.outcome(after, HANGING_MS / 1_000 + 12).step == "posted"
    assert not {aborted.offset, hanging.offset} & ledger.audit.books[0].outcomes.keys()


def test_records_that_claim_one_offset_have_an_outcome_each(ledger: WorkerLedger) -> None:
    """And those that claim one that is long past, or far ahead: the broker numbers them itself."""
    account = ledger.open(0)
    command = {"kind": "credit", "account": account, "amount": 1}
    batches = [(0, 0), (0, 1, 0, 1), (3, 2, 1, 0), (0, 2**30), (0,)]
    before = ledger.send({**command, "id": "before"})
    for number, claimed in enumerate(batches):
        records = [
            (offset, account.encode(), json.dumps({**command, "id": f"{number}.{place}"}).encode())
            for place, offset in enumerate(claimed)
        ]
        assert wire_producer.produce(ledger.bootstrap, ledger.names.commands, 0, records) == 0
    after = ledger.send({**command, "id": "after"})
    count = sum(map(len, batches))
    assert after.offset == before.offset + count + 1
    sent = [Position(0, before.offset + 1 + number) for number in range(count)]
    assert {outcome.step for outcome in ledger.outcomes([before, *sent, after])} == {"posted"}


def test_after_all_that_the_books_are_whole(ledger: WorkerLedger) -> None:
    assert ledger.settle_and_audit() == []
