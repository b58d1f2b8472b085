"""The naive model by itself, against cases worked out by hand from docs/rules.md.

What audits the rules must itself be right; nothing here knows the rules' code.
"""

import json
from typing import Any

import pytest

from schemas import ids
from schemas.reasons import Reason
from tests.model import command_validation
from tests.model.ledger import Ledger
from tests.model.values import Said, Settings

# With 8 partitions: alice 5, w1 7, wallet-0001 1.
ALICE, BOB, FAR = "alice", "w1", "wallet-0001"
HOME = {ALICE: 5, BOB: 7, FAR: 1}
START = 1_750_000_000_000


class Books:
    """A ledger of 8 partitions that takes commands in words and carries messages on request."""

    def __init__(self, partitions: int = 8, **settings: int) -> None:
        self.ledger = Ledger(partitions)
        self.now = START
        self.count = 0
        parameters = {
            "commission_bps": 150,
            "max_overdraft": 1_000,
            "hold_ttl_ms": 10_000,
            "participant_timeout_ms": 500,
            "max_pending": 2,
            "rules_version": 2,
        } | settings
        for partition in range(partitions):
            self.ledger.configure(partition, Settings(**parameters), True, 0)

    def raw(self, account: str, value: bytes, key: bytes | None = None) -> list[Said]:
        self.count += 1
        home = self.ledger.home(account)
        sent = account.encode() if key is None else key
        return self.ledger.command(home, self.count, sent, value, self.now)

    def do(self, kind: str, account: str, **fields: Any) -> Said:
        command = {"kind": kind, "account": account, "id": f"k{self.count}", **fields}
        return self.raw(account, json.dumps(command).encode())[-1]

    def open(self, account: str, type: str = "wallet", balance: int = 0, **fields: Any) -> None:
        fields = {"currency": "NGN", **fields}
        assert self.do("open_account", account, type=type, **fields).step == "posted"
        if balance:
            assert self.do("credit", account, amount=balance).step == "posted"

    def message(self, source: str, destination: str) -> Said:
        way = (self.ledger.home(source), self.ledger.home(destination))
        number = self.ledger.seen.get(way, 0) + 1
        return self.ledger.message(way[1], way[0], number, self.now)[-1]

    def totals(self, account: str) -> tuple[int, int, int, int]:
        one = self.ledger.accounts[account]
        return one.balance, one.held, one.incoming, one.version


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def alone() -> Books:
    """One partition: everything is decided in one step."""
    return Books(partitions=1)


def test_partitions_are_those_that_kafka_would_choose() -> None:
    ledger = Ledger(8)
    assert {name: ledger.home(name) for name in HOME} == HOME


def test_a_credit_comes_from_funding(alone: Books) -> None:
    alone.open(ALICE)
    said = alone.do("credit", ALICE, amount=700)
    assert said.entries == [
        ("system:funding:NGN:0", "debit", 700, 700, 1, 0, 0),
        (ALICE, "credit", 700, 700, 1, 0, 0),
    ]


def test_a_transfer_pays_its_commission_beside_the_amount(alone: Books) -> None:
    alone.open(ALICE, balance=20_000)
    alone.open(BOB)
    said = alone.do("transfer", ALICE, to=BOB, amount=10_033)
    # 10,033 at 1.5 % is 150.495, to the nearest unit 150.
    assert (said.fee, said.bps) == (150, 150)
    assert [entry[:4] for entry in said.entries] == [
        (ALICE, "debit", 10_183, 9_817),
        (BOB, "credit", 10_033, 10_033),
        ("system:fees:NGN:0", "credit", 150, 150),
    ]


@pytest.mark.parametrize(("amount", "fee"), [(33, 0), (34, 1), (99, 1), (100, 2), (166, 2)])
def test_commission_is_rounded_half_up(alone: Books, amount: int, fee: int) -> None:
    alone.open(ALICE, balance=1_000)
    alone.open(BOB)
    said = alone.do("transfer", ALICE, to=BOB, amount=amount)
    assert (said.fee, said.bps, len(said.entries)) == (fee, 150 if fee else 0, 3 if fee else 2)


def test_between_wallets_of_one_owner_there_is_no_commission(alone: Books) -> None:
    alone.open(ALICE, balance=1_000, owner="ada")
    alone.open(BOB, owner="ada")
    alone.open("till", type="liability", owner="ada")
    assert alone.do("transfer", ALICE, to=BOB, amount=500).fee == 0
    assert alone.do("transfer", ALICE, to="till", amount=100).fee == 2


def test_a_transfer_across_partitions(books: Books) -> None:
    books.open(ALICE, balance=1_015)
    books.open(BOB)
    assert books.do("transfer", ALICE, to=BOB, amount=1_000).step == "pending"
    assert books.totals(ALICE) == (1_015, 1_015, 0, 1)
    assert books.message(ALICE, BOB).step == "prepared"
    assert books.totals(BOB) == (0, 0, 1_000, 0)
    said = books.message(BOB, ALICE)
    assert (said.step, said.fee) == ("posted", 15)
    assert [entry[:4] for entry in said.entries] == [
        (ALICE, "debit", 1_015, 0),
        ("system:fees:NGN:5", "credit", 15, 15),
        ("system:transit:NGN:5", "credit", 1_000, 1_000),
    ]
    assert said.released == [(ALICE, "debit", 1_015, 0, 0)]
    said = books.message(ALICE, BOB)
    assert [entry[:4] for entry in said.entries] == [
        (BOB, "credit", 1_000, 1_000),
        ("system:transit:NGN:7", "debit", 1_000, -1_000),
    ]


@pytest.mark.parametrize("owner", ["ada", "bem"])
def test_a_sender_with_the_amount_alone_may_owe_no_commission(books: Books, owner: str) -> None:
    books.open(ALICE, balance=1_000, owner="ada")
    books.open(BOB, owner=owner)
    assert books.do("transfer", ALICE, to=BOB, amount=1_000).step == "pending"
    assert books.totals(ALICE) == (1_000, 1_000, 0, 1)
    assert books.message(ALICE, BOB).step == "prepared"
    said = books.message(BOB, ALICE)
    if owner == "ada":
        assert (said.step, said.fee, books.totals(ALICE)[:2]) == ("posted", 0, (0, 0))
    else:
        assert (said.step, said.reason) == ("rejected", Reason.INSUFFICIENT_FUNDS)
        assert books.totals(ALICE)[:2] == (1_000, 0)
        assert books.message(ALICE, BOB).step == "aborted"
        assert books.totals(BOB) == (0, 0, 0, 0)


def test_the_least_refusal_is_the_reason_whatever_came_first(books: Books) -> None:
    books.open(ALICE, balance=10)
    books.open(BOB)
    assert books.do("freeze", BOB).step == "posted"
    entries = [
        {"account": ALICE, "direction": "debit", "amount": 2},
        {"account": BOB, "direction": "credit", "amount": 1},
        {"account": FAR, "direction": "credit", "amount": 1},
    ]
    assert books.do("post", ALICE, currency="NGN", entries=entries).step == "pending"
    assert books.message(ALICE, BOB).reason is Reason.ACCOUNT_FROZEN
    assert books.message(BOB, ALICE).step == "answered"
    assert books.message(ALICE, FAR).reason is Reason.ACCOUNT_NOT_FOUND
    assert books.message(FAR, ALICE).reason is Reason.ACCOUNT_NOT_FOUND
    assert books.totals(ALICE) == (10, 0, 0, 1)


def test_a_deadline_rejects_and_late_answers_are_ignored(books: Books) -> None:
    books.open(ALICE, balance=10)
    books.open(BOB)
    books.do("transfer", ALICE, to=BOB, amount=4)
    books.now += 500
    late, ticked = books.ledger.tick(HOME[ALICE], books.now)
    assert (late.step, late.reason) == ("rejected", Reason.PARTICIPANT_TIMEOUT)
    assert late.released == [(ALICE, "debit", 4, 0, 0)]
    assert ticked.step == "ticked"
    assert books.message(ALICE, BOB).step == "prepared"
    assert books.message(BOB, ALICE).step == "ignored"
    assert books.message(ALICE, BOB).step == "aborted"
    assert books.totals(BOB) == (0, 0, 0, 0)


def test_a_message_that_comes_twice_changes_nothing(books: Books) -> None:
    books.open(ALICE, balance=10)
    books.open(BOB)
    books.do("transfer", ALICE, to=BOB, amount=4)
    books.message(ALICE, BOB)
    again = books.ledger.message(HOME[BOB], HOME[ALICE], 1, books.now)
    assert [said.step for said in again] == ["duplicate"]
    assert books.totals(BOB) == (0, 0, 4, 0)


def test_a_part_of_a_hold_is_captured_and_the_rest_released(alone: Books) -> None:
    alone.open(ALICE, balance=100)
    hold = alone.do("hold", ALICE, amount=80)
    assert alone.totals(ALICE) == (100, 80, 0, 1)
    assert alone.do("debit", ALICE, amount=21).reason is Reason.INSUFFICIENT_FUNDS
    above = alone.do("capture", ALICE, hold_id=hold.transaction, amount=81)
    assert above.reason is Reason.CAPTURE_EXCEEDS_HOLD
    said = alone.do("capture", ALICE, hold_id=hold.transaction, amount=30)
    assert said.released == [(ALICE, "debit", 80, 0, 0)]
    assert alone.totals(ALICE) == (70, 0, 0, 2)
    assert alone.do("void", ALICE, hold_id=hold.transaction).reason is Reason.HOLD_CLOSED


def test_a_hold_expires_with_the_first_record_at_its_time(alone: Books) -> None:
    alone.open(ALICE, balance=100)
    hold = alone.do("hold", ALICE, amount=80, expires_at_ms=START + 7)
    alone.now += 6
    assert alone.do("debit", ALICE, amount=21).reason is Reason.INSUFFICIENT_FUNDS
    alone.now += 1
    value = {"kind": "void", "account": ALICE, "id": "late", "hold_id": hold.transaction}
    expired, void = alone.raw(ALICE, json.dumps(value).encode())
    assert (expired.step, expired.released) == ("expired", [(ALICE, "debit", 80, 0, 0)])
    assert void.reason is Reason.HOLD_EXPIRED
    assert alone.do("hold", ALICE, amount=1, expires_at_ms=alone.now).reason is Reason.HOLD_EXPIRED


def test_a_capture_under_way_makes_its_hold_busy(books: Books) -> None:
    books.open(ALICE, balance=100)
    books.open(BOB)
    hold = books.do("hold", ALICE, amount=80, expires_at_ms=START + 5)
    assert books.do("capture", ALICE, hold_id=hold.transaction, to=BOB).step == "pending"
    assert books.do("void", ALICE, hold_id=hold.transaction).reason is Reason.HOLD_BUSY
    books.now += 600
    late, _ = books.ledger.tick(HOME[ALICE], books.now)
    assert late.reason is Reason.PARTICIPANT_TIMEOUT
    assert late.released == [(ALICE, "debit", 80, 0, 0)]
    assert late.hold is not None
    assert late.hold[4] == "expired"


def test_a_reversal_takes_everything_back_once(alone: Books) -> None:
    alone.open(ALICE, balance=1_100)
    alone.open(BOB)
    paid = alone.do("transfer", ALICE, to=BOB, amount=1_000)
    said = alone.do("reverse", ALICE, transaction_id=paid.transaction)
    assert [entry[:3] for entry in said.entries] == [
        (ALICE, "credit", 1_015),
        (BOB, "debit", 1_000),
        ("system:fees:NGN:0", "debit", 15),
    ]
    again = alone.do("reverse", ALICE, transaction_id=paid.transaction)
    assert again.reason is Reason.ALREADY_REVERSED
    back = alone.do("reverse", ALICE, transaction_id=said.transaction)
    assert back.reason is Reason.NOT_REVERSIBLE


def test_a_reversal_needs_the_money_to_be_there(alone: Books) -> None:
    alone.open(ALICE)
    credited = alone.do("credit", ALICE, amount=50)
    alone.do("debit", ALICE, amount=1)
    said = alone.do("reverse", ALICE, transaction_id=credited.transaction)
    assert said.reason is Reason.INSUFFICIENT_FUNDS


def test_one_reversal_at_a_time(books: Books) -> None:
    books.open(ALICE, balance=100)
    books.open(BOB)
    paid = books.do("transfer", ALICE, to=BOB, amount=20)
    for source, destination in ((ALICE, BOB), (BOB, ALICE), (ALICE, BOB)):
        books.message(source, destination)
    assert books.do("reverse", ALICE, transaction_id=paid.transaction).step == "pending"
    second = books.do("reverse", ALICE, transaction_id=paid.transaction)
    assert second.reason is Reason.REVERSAL_PENDING


def test_outcomes_are_frozen_and_replays_tell_them(alone: Books) -> None:
    alone.open(ALICE)
    debit = {"kind": "debit", "account": ALICE, "id": "d", "amount": 5}
    (first,) = alone.raw(ALICE, json.dumps(debit).encode())
    assert first.reason is Reason.INSUFFICIENT_FUNDS
    alone.do("credit", ALICE, amount=5)
    same = {"idempotency_key": "d", "id": "label", "trace": "t", "reference": None, **debit}
    same["id"] = "label"
    (again,) = alone.raw(ALICE, json.dumps(same).encode())
    assert (again.step, again.first_status) == ("replayed", "rejected")
    assert again.reason is Reason.INSUFFICIENT_FUNDS
    (other,) = alone.raw(ALICE, json.dumps({**debit, "amount": 6}).encode())
    assert other.reason is Reason.IDEMPOTENCY_KEY_REUSED
    assert alone.totals(ALICE) == (5, 0, 0, 1)


def test_an_asset_grows_by_debit(alone: Books) -> None:
    alone.open("till", type="asset")
    entries = [
        {"account": "till", "direction": "debit", "amount": 40},
        {"account": "system:funding:NGN", "direction": "credit", "amount": 40},
    ]
    alone.do("post", "till", currency="NGN", entries=entries)
    assert alone.totals("till") == (40, 0, 0, 1)
    for kind in ("credit", "debit", "hold"):
        said = alone.do(kind, "till", amount=1)
        assert said.reason is Reason.ACCOUNT_TYPE_NOT_ALLOWED
    assert alone.do("close", "till").reason is Reason.ACCOUNT_NOT_EMPTY


def test_limits(alone: Books) -> None:
    alone.open(ALICE, min_balance=-1_000)
    assert alone.do("debit", ALICE, amount=1_001).reason is Reason.INSUFFICIENT_FUNDS
    assert alone.do("debit", ALICE, amount=1_000).step == "posted"
    assert alone.do("set_limit", ALICE, min_balance=-999).reason is Reason.INSUFFICIENT_FUNDS
    assert alone.do("set_limit", ALICE, min_balance=1).reason is Reason.LIMIT_OUT_OF_BOUNDS
    assert alone.do("set_limit", ALICE, min_balance=-1_001).reason is Reason.LIMIT_OUT_OF_BOUNDS
    assert alone.do("set_limit", ALICE).reason is Reason.LIMIT_OUT_OF_BOUNDS


def test_changes(alone: Books) -> None:
    alone.open(ALICE, metadata={"a": "1", "b": "2"})

    def change(**given: Any) -> Reason | None:
        return alone.do("change_account", ALICE, **given).reason

    assert change(metadata={"a": "", "c": "3"}, min_balance=-5) is None
    assert alone.ledger.accounts[ALICE].metadata == {"b": "2", "c": "3"}
    assert alone.ledger.accounts[ALICE].min_balance == -5
    assert change(no_limit=True) is Reason.LIMIT_OUT_OF_BOUNDS
    assert change(min_balance=0, no_limit=True) is Reason.LIMIT_OUT_OF_BOUNDS
    assert change(metadata={"d": "x" * 4_092}) is Reason.METADATA_TOO_LARGE
    assert change(metadata={"d": "x" * 4_091}, no_limit=False) is None
    assert alone.ledger.accounts[ALICE].min_balance == -5


def test_conditions_are_tested_after_the_money(alone: Books) -> None:
    alone.open(ALICE, balance=100)
    failed = alone.do("debit", ALICE, amount=50, min_available_after=51)
    assert failed.reason is Reason.CONDITION_FAILED
    assert alone.do("debit", ALICE, amount=50, expected_version=2).reason is Reason.CONDITION_FAILED
    said = alone.do("debit", ALICE, amount=500, expected_version=2)
    assert said.reason is Reason.INSUFFICIENT_FUNDS
    kept = alone.do("debit", ALICE, amount=50, expected_version=1, min_available_after=50)
    assert kept.step == "posted"


def test_pending_transactions_are_bounded(books: Books) -> None:
    books.open(ALICE, balance=100)
    steps = [books.do("transfer", ALICE, to=BOB, amount=1) for _ in range(3)]
    assert [said.reason for said in steps] == [None, None, Reason.TOO_MANY_PENDING]


def test_a_post_means_the_coordinators_own_shards(books: Books) -> None:
    books.open(ALICE)
    entries = [
        {"account": "system:fees:NGN", "direction": "debit", "amount": 9},
        {"account": ALICE, "direction": "credit", "amount": 9},
    ]
    said = books.do("post", ALICE, currency="NGN", entries=entries)
    assert [entry[:4] for entry in said.entries] == [
        ("system:fees:NGN:5", "debit", 9, -9),
        (ALICE, "credit", 9, 9),
    ]


def test_a_thousand_are_taken_at_once(alone: Books) -> None:
    alone.open(ALICE, balance=2_000)
    held = [alone.do("hold", ALICE, amount=1, expires_at_ms=START + 9) for _ in range(1_002)]
    alone.now += 9
    last = max(str(said.transaction) for said in held)
    void = {"kind": "void", "account": ALICE, "id": "v", "hold_id": last}
    said = alone.raw(ALICE, json.dumps(void).encode())
    assert len(said) == 1_001
    assert said[-1].reason is Reason.HOLD_EXPIRED
    assert [one.step for one in alone.ledger.tick(0, alone.now)] == ["expired", "expired", "ticked"]


WELL = {"kind": "transfer", "account": ALICE, "id": "1", "to": BOB, "amount": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"reference": None}, None),
        ({"description": "x" * 65_536}, Reason.TOO_LARGE),
        ({"kind": "mint"}, Reason.MALFORMED),
        ({"to": None}, Reason.MALFORMED),
        ({"id": None}, Reason.MALFORMED),
        ({"account": "a" * 65}, Reason.MALFORMED),
        ({"reference": "\0"}, Reason.MALFORMED),
        ({"reference": "\ud800"}, Reason.MALFORMED),
        ({"metadata": {"a": {"b": "c"}}}, Reason.MALFORMED),
        ({"metadata": {"a": "x" * 4_096}}, Reason.MALFORMED),
        ({"surprise": 1, "reference": ""}, Reason.MALFORMED),
        ({"surprise": 1, "amount": 0}, Reason.UNKNOWN_FIELD),
        ({"amount": 0, "effective_at_ms": 1}, Reason.AMOUNT_INVALID),
        ({"amount": None}, Reason.MALFORMED),
        ({"amount": True}, Reason.AMOUNT_INVALID),
        ({"amount": 1.0}, Reason.AMOUNT_INVALID),
        ({"amount": "1"}, Reason.AMOUNT_INVALID),
        ({"amount": 2**53}, Reason.AMOUNT_INVALID),
        ({"amount": 2**53 - 1}, None),
        ({"effective_at_ms": 1}, Reason.TIME_OUT_OF_RANGE),
        ({"effective_at_ms": True}, Reason.MALFORMED),
    ],
)
def test_the_door(change: dict[str, Any], reason: Reason | None) -> None:
    read = command_validation.read(json.dumps({**WELL, **change}).encode())
    assert (read if isinstance(read, Reason) else None) is reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"{", Reason.MALFORMED),
        (b"[1]", Reason.MALFORMED),
        (b"\xef\xbb\xbf{}", Reason.MALFORMED),
        (b'{"kind":"credit","account":"a","id":"1","amount":NaN}', Reason.MALFORMED),
        (b'{"kind":"freeze","account":"a","id":"1","id":"1"}', Reason.MALFORMED),
        (b"[" * 60_000, Reason.MALFORMED),
        (b"\x00\x00", Reason.MALFORMED),
        (b"\x00\x00\x00\x00\x01x", Reason.SCHEMA_UNKNOWN),
        (b"\xc3\x01" + b"\x00" * 9, Reason.SCHEMA_UNKNOWN),
    ],
)
def test_bytes_at_the_door(value: bytes, reason: Reason) -> None:
    assert command_validation.read(value) is reason


def test_misrouted(books: Books) -> None:
    value = json.dumps(WELL).encode()
    assert books.raw(ALICE, value, key=b"w1")[-1].reason is Reason.MISROUTED
    assert books.raw(BOB, value, key=ALICE.encode())[-1].reason is Reason.MISROUTED
    entries = [
        {"account": BOB, "direction": "debit", "amount": 1},
        {"account": ALICE, "direction": "credit", "amount": 1},
    ]
    assert books.do("post", BOB, currency="NGN", entries=entries).reason is Reason.MISROUTED
    assert ids.transaction_id(BOB, "k0") not in books.ledger.transactions
