"""What readers of `transactions` are told: one record for each entry of an ordinary account."""

from schemas.published_records import TransactionRecord
from tests.testkit import builders, stories
from tests.testkit.stories import Stage

AT = "2025-06-15T15:06:40.000000Z"


def _record_of(stage: Stage, name: str) -> TransactionRecord:
    (found,) = [t for t in stage.published if t.account_id == builders.account_id(name)]
    return found


def test_a_credit() -> None:
    stage = stories.play("a=5,owner:ada; hold a 2; credit a 4 key=k ref=r text=words meta=x:y")
    assert stage.published == [
        TransactionRecord(
            user_id="ada",
            entry="credit",
            amount=4,
            balance=9,
            timestamp=AT,
            account_id=builders.account_id("a"),
            currency="NGN",
            transaction_id=builders.transaction("a", "k"),
            kind="credit",
            held=2,
            available=7,
            version=2,
            counterparty=None,
            fee=0,
            reference="r",
            description="words",
            metadata={"x": "y"},
            partition=0,
            sequence=stage.last[-1].record.sequence,
        )
    ]


def test_a_debit() -> None:
    stage = stories.play("a=5,USD; debit a 4 key=k")
    record = _record_of(stage, "a")
    assert (record.entry, record.kind, record.currency) == ("debit", "debit", "USD")
    assert (record.amount, record.balance, record.available, record.version) == (4, 1, 1, 2)
    assert (record.user_id, record.counterparty, record.fee) == (None, None, 0)
    assert (record.reference, record.description, record.metadata) == (None, None, {})


def test_a_transfer_tells_each_of_the_other_and_the_payer_of_the_fee() -> None:
    stage = stories.play("a=1000,owner:o b=9,owner:p; hold b 4; transfer a b 100 key=t ref=r")
    sender, receiver = _record_of(stage, "a"), _record_of(stage, "b")
    assert len(stage.published) == 2, "system accounts are nobody's"
    assert (sender.entry, sender.amount, sender.balance, sender.fee) == ("debit", 102, 898, 2)
    assert (receiver.entry, receiver.amount, receiver.fee) == ("credit", 100, 0)
    assert (sender.held, sender.available) == (0, 898)
    assert (receiver.balance, receiver.held, receiver.available) == (109, 4, 105)
    assert (sender.user_id, receiver.user_id) == ("o", "p")
    assert sender.counterparty == receiver.account_id
    assert receiver.counterparty == sender.account_id
    assert sender.transaction_id == receiver.transaction_id == builders.transaction("a", "t")
    assert (sender.reference, receiver.reference) == ("r", "r")


def test_a_transfer_to_another_partition_tells_each_when_it_has_posted() -> None:
    stage = stories.play(
        "a=1000,owner:o b1=5,owner:p; wait 7; transfer a b1 100 key=t ref=r text=w meta=x:y | "
        "pending"
    )
    assert stage.published == []
    stage.play("deliver 1 | prepared")
    assert stage.published == []
    stage.play("wait 10; deliver 0 | posted")
    sender = _record_of(stage, "a")
    assert len(stage.published) == 1
    assert (sender.amount, sender.fee, sender.held, sender.available) == (102, 2, 0, 898)
    assert sender.counterparty == builders.account_id("b1")
    assert (sender.kind, sender.user_id) == ("transfer", "o")
    stage.play("wait 100; deliver 1 | committed")
    receiver = _record_of(stage, "b1")
    assert receiver == TransactionRecord(
        user_id="p",
        entry="credit",
        amount=100,
        balance=105,
        timestamp="2025-06-15T15:06:40.117000Z",
        account_id=builders.account_id("b1"),
        currency="NGN",
        transaction_id=builders.transaction("a", "t"),
        kind="transfer",
        held=0,
        available=105,
        version=2,
        counterparty=builders.account_id("a"),
        fee=0,
        reference="r",
        description="w",
        metadata={"x": "y"},
        partition=1,
        sequence=stage.last[-1].record.sequence,
    )
    assert sender.timestamp == "2025-06-15T15:06:40.017000Z"


def test_without_commission_there_is_no_fee() -> None:
    stage = stories.play("a=100,owner:o b1=0,owner:o; transfer a b1 100 | pending")
    stage.play("deliver 1; deliver 0 | posted")
    assert (_record_of(stage, "a").fee, _record_of(stage, "a").amount) == (0, 100)


def test_a_post_of_two_names_the_other_and_of_more_names_nobody() -> None:
    two = stories.play("a=9 b=0; post debit a 5 credit b 5")
    assert _record_of(two, "a").counterparty == builders.account_id("b")
    three = stories.play("a=9 b=0 c=0; post debit a 5 credit b 3 credit c 2")
    assert [t.counterparty for t in three.published] == [None, None, None]
    with_fees = stories.play("a=9 b=0; post debit a 5 credit b 3 credit fees 2")
    assert [t.counterparty for t in with_fees.published] == [
        builders.account_id("b"),
        builders.account_id("a"),
    ]
    alone = stories.play("a=9; post debit a 5 credit fees 5")
    assert [t.counterparty for t in alone.published] == [None]


def test_a_post_in_partitions_names_nobody_to_the_participants_either() -> None:
    stage = stories.play("a=9 b1=0 c2=0; post debit a 5 credit b1 3 credit c2 2 | pending")
    stage.play("deliver 1; deliver 0; deliver 2; deliver 0 | posted")
    assert _record_of(stage, "a").counterparty is None
    stage.play("deliver 1 | committed")
    assert _record_of(stage, "b1").counterparty is None


def test_a_post_of_two_in_partitions_names_the_other() -> None:
    stage = stories.play("a=0 b1=9; post credit a 5 debit b1 5 | pending; deliver 1; deliver 0")
    assert _record_of(stage, "a").counterparty == builders.account_id("b1")
    stage.play("deliver 1 | committed")
    assert _record_of(stage, "b1").counterparty == builders.account_id("a")
    assert (_record_of(stage, "b1").entry, _record_of(stage, "b1").kind) == ("debit", "post")


def test_a_capture() -> None:
    stage = stories.play("a=9 b=0; hold a 5 key=h")
    assert stage.published == [], "a hold moves nothing"
    stage.play("capture a h 3 to=b key=c")
    record = _record_of(stage, "a")
    assert (record.kind, record.amount, record.balance, record.held, record.available) == (
        "capture",
        3,
        6,
        0,
        6,
    )
    assert (record.counterparty, record.fee) == (builders.account_id("b"), 0)
    to_funding = stories.play("a=9; hold a 5 key=h; capture a h")
    assert _record_of(to_funding, "a").counterparty is None


def test_a_reversal() -> None:
    stage = stories.play("a=1000 b=0; transfer a b 100 key=t; reverse a t key=r ref=back")
    back, out = _record_of(stage, "a"), _record_of(stage, "b")
    assert (back.kind, back.entry, back.amount, back.balance) == ("reverse", "credit", 102, 1000)
    assert (out.entry, out.amount, out.balance) == ("debit", 100, 0)
    assert (back.fee, back.reference) == (0, "back")
    assert back.counterparty == builders.account_id("b")
    assert back.transaction_id == builders.transaction("a", "r")


def test_what_moves_no_money_publishes_nothing() -> None:
    for step in (
        "open b wallet NGN",
        "hold a 5",
        "freeze a",
        "limit a -5",
        "debit a 10 | insufficient_funds",
        "credit a 1 key=k | replayed",
        "transfer a b1 1 | pending",
    ):
        assert stories.play(f"a=5; credit a 1 key=k; {step}").published == []


def test_an_account_that_grows_by_debit() -> None:
    stage = stories.play("a=5,asset; post credit a 2 debit funding 2")
    assert (_record_of(stage, "a").entry, _record_of(stage, "a").balance) == ("credit", 3)


def test_names_that_readers_know_stand_at_the_top() -> None:
    stage = stories.play("a=5,owner:ada; credit a 4")
    record = stories.encode(stage.published[0]).decode()
    assert record.startswith(
        '{"user_id":"ada","entry":"credit","amount":4,"balance":9,"timestamp":"2025-06-15T'
    )
