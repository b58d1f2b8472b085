"""Transactions over several partitions, step by step: what is reserved, posted, in transit and
given back. A story is a block; a digit in an account's name is its partition.
"""

import pytest

from schemas import coordination, journal
from tests.testkit import builders, stories
from tests.testkit.builders import START_MS

TRANSFERS = {
    "a transfer": """
        a=1000 b1=5
        transfer a b1 100 | pending   | a=1000,held:102,v:1 b1=5 transit=0
        deliver 1         | prepared  | b1=5,in:100,v:1
        deliver 0         | posted    | a=898,v:2 fees=2 transit=100 transit1=0
        deliver 1         | committed | b1=105,v:2 fees=2 fees1=0 transit=100 transit1=-100
    """,
    "the fee goes to the sender's partition": """
        a=0 b1=1000
        transfer b1 a 100 | pending | b1=1000,held:102
        all | prepared posted committed | b1=898 a=100 fees=0 fees1=2 transit=-100 transit1=100
    """,
    "no such receiver": """
        a=1000
        transfer a b1 100 | pending                    | a=1000,held:102
        deliver 1         | declined:account_not_found |
        deliver 0         | account_not_found          | a=1000,v:1 fees=0 transit=0
        all
    """,
    "a frozen receiver": """
        a=1000 b1=0,frozen
        transfer a b1 100 | pending
        all | declined:account_frozen account_frozen | a=1000 b1=0,frozen
    """,
    "a closed receiver": """
        a=1000 b1=0,closed
        transfer a b1 100 | pending
        all | declined:account_closed account_closed | a=1000 b1=0,closed
    """,
    "a receiver of another currency": """
        a=1000 b1=0,USD
        transfer a b1 100 | pending
        all | declined:currency_mismatch currency_mismatch | a=1000
    """,
    "a receiver that is full": """
        a=1000 b1=M
        transfer a b1 1 | pending
        all | declined:balance_overflow balance_overflow | a=1000 b1=M
    """,
    "a receiver that is full with what is on its way": """
        a=1000 b1=M-5 c2=1000
        transfer a b1 4  | pending
        transfer c2 b1 2 | pending
        deliver 1        | prepared
        deliver 1        | declined:balance_overflow | b1=M-5,in:4
        all | posted committed balance_overflow | b1=M-1 a=996 c2=1000
    """,
    "the sender's own troubles are told at once": """
        a=101 b1=0 c=1000,frozen d=1000,USD
        transfer a b1 100        | insufficient_funds
        transfer c b1 100        | account_frozen
        transfer d b1 100 in=NGN | currency_mismatch
        all | | a=101 b1=0
    """,
    "frozen since: what is decided goes on": """
        a=1000 b1=0
        transfer a b1 100 | pending
        deliver 1 | prepared
        freeze a; freeze b1
        all | posted committed | a=898,frozen b1=100,frozen
    """,
    "frozen since, and given back": """
        a=1000 b1=0,closed
        transfer a b1 100 | pending
        freeze a
        all | declined:account_closed account_closed | a=1000,frozen
    """,
    "to an account that an entry lowers": """
        rules 1; a=1000 b1=50,asset,limit:0
        transfer a b1 50 | pending | a=1000,held:51
        deliver 1 | prepared | b1=50,held:50
        credit b1 1 | insufficient_funds
        all | posted committed | b1=0 a=949
    """,
    "what is reserved is not spent twice": """
        a=102 b1=0 c2=0
        transfer a b1 100 | pending | a=102,held:102
        transfer a c2 1   | insufficient_funds
        debit a 1         | insufficient_funds
        hold a 1          | insufficient_funds
        all | prepared posted committed | a=0 b1=100 c2=0
    """,
    "what is on its way cannot be spent yet": """
        a=102 b1=0
        transfer a b1 100 | pending
        deliver 1  | prepared | b1=0,in:100
        debit b1 1 | insufficient_funds
        deliver 0  | posted
        debit b1 1 | insufficient_funds
        deliver 1  | committed
        debit b1 100 | posted | b1=0
    """,
    "there and back at once with just enough for both": """
        a=102 b1=102
        transfer a b1 100 | pending  | a=102,held:102
        transfer b1 a 100 | pending  | b1=102,held:102
        deliver 1         | prepared | b1=102,held:102,in:100
        deliver 0 from 1  | prepared | a=102,held:102,in:100
        deliver 0 from 1  | posted   | a=0,in:100 transit=100
        deliver 1         | posted   | b1=0,in:100 transit1=100
        all | committed committed | a=100 b1=100 fees=2 fees1=2 transit=0 transit1=0
    """,
    "there and back at once with enough for neither": """
        a=101 b1=101
        transfer a b1 100 | insufficient_funds
        transfer b1 a 100 | insufficient_funds | a=101 b1=101
    """,
    "the money of one way does not pay for the other": """
        a=102 b1=0
        transfer a b1 100 | pending
        deliver 1 | prepared
        transfer b1 a 50 | insufficient_funds
        all | posted committed
        transfer b1 a 50 | pending
        all | prepared posted committed | a=50 b1=49 fees1=1
    """,
}

FEES = {
    "another owner pays": """
        a=200,owner:o b1=0,owner:p
        transfer a b1 100 | pending | a=200,held:102
        all | prepared posted committed | a=98 b1=100 fees=2
    """,
    "the same owner does not": """
        a=200,owner:o b1=0,owner:o
        transfer a b1 100 | pending | a=200,held:102
        all | prepared posted committed | a=100 b1=100 fees=0 transit=100 transit1=-100
    """,
    "the same owner with the bare amount": """
        a=100,owner:o b1=0,owner:o
        transfer a b1 100 | pending | a=100,held:100
        all | prepared posted committed | a=0 b1=100 fees=0
    """,
    "another owner with the bare amount": """
        a=100,owner:o b1=0,owner:p
        transfer a b1 100 | pending | a=100,held:100
        all | prepared insufficient_funds aborted | a=100 b1=0 fees=0
    """,
    "the bare amount, and a receiver that refuses": """
        a=100,owner:o b1=0,frozen
        transfer a b1 100 | pending | a=100,held:100
        all | declined:account_frozen account_frozen | a=100
    """,
    "the bare amount at the deadline": """
        a=100,owner:o b1=0,owner:o
        transfer a b1 100 | pending | a=100,held:100
        wait 60000
        tick 0 | participant_timeout ticked | a=100
        all | prepared ignored aborted | b1=0
    """,
    "between: the amount and a part of the fee": """
        a=101,owner:o b1=0,owner:o
        transfer a b1 100 | pending | a=101,held:100
        all | prepared posted committed | a=1 b1=100 fees=0
    """,
    "less than the amount": """
        a=99,owner:o b1=0,owner:o
        transfer a b1 100 | insufficient_funds | a=99
    """,
    "no owner, no waiver": """
        a=100 b1=0
        transfer a b1 100 | insufficient_funds
        credit a 2; transfer a b1 100 | pending
        all | prepared posted committed | a=0 fees=2
    """,
    "a sender that is no wallet": """
        a=0,liability,owner:o,limit:-100 b1=0,owner:o
        transfer a b1 100 | insufficient_funds
        limit a -102; transfer a b1 100 | pending
        all | prepared posted committed | a=-102 fees=2
    """,
    "a receiver that is no wallet": """
        a=200,owner:o b1=0,liability,owner:o
        transfer a b1 100 | pending
        all | prepared posted committed | a=98 b1=100 fees=2
    """,
    "what else is wrong with the sender is told": """
        a=100,owner:o,frozen b1=0,owner:o
        transfer a b1 100 | account_frozen
    """,
    "conditions see what was reserved": """
        a=100,owner:o b1=0,owner:o
        transfer a b1 100 leaves=1 | condition_failed
        transfer a b1 100 leaves=0 | pending | a=100,held:100
    """,
    "a fee that rounds to nothing": """
        a=33,owner:o b1=0,owner:p
        transfer a b1 33 | pending | a=33,held:33
        all | prepared posted committed | a=0 b1=33 fees=0
    """,
    "a reversal of one without fee": """
        a=100,owner:o b1=0,owner:o
        transfer a b1 100 key=t | pending
        all
        reverse a t | pending | a=0,in:100
        deliver 1 | prepared | b1=100,held:100
        all | posted committed | a=100 b1=0 fees=0 transit=0
    """,
    "a reversal brings the fee back": """
        a=102,owner:o b1=0,owner:p
        transfer a b1 100 key=t | pending
        all
        reverse a t | pending | a=0,in:102 fees=2
        all | prepared posted committed | a=102 b1=0 fees=0 transit=0 transit1=0
    """,
}

POSTS = {
    "in three partitions": """
        a=9 b1=9 c2=0
        post debit a 5 debit b1 4 credit c2 9 | pending | a=9,held:5
        deliver 1 | prepared | b1=9,held:4
        deliver 0 | answered | a=9,held:5
        deliver 2 | prepared | c2=0,in:9
        deliver 0 | posted   | a=4 transit=5
        all | committed committed | b1=5 c2=9 transit=5 transit1=4 transit2=-9
    """,
    "one of two refuses first": """
        a=9 b1=3 c2=0
        post debit a 5 debit b1 4 credit c2 9 | pending
        deliver 1 | declined:insufficient_funds | b1=3
        deliver 0 | answered | a=9,held:5
        deliver 2 | prepared | c2=0,in:9
        deliver 0 | insufficient_funds | a=9
        all | aborted | a=9 b1=3 c2=0 transit=0
    """,
    "one of two refuses last": """
        a=9 b1=9
        post debit a 5 debit b1 4 credit c2 9 | pending
        deliver 1 | prepared
        deliver 0 | answered
        deliver 2 | declined:account_not_found
        deliver 0 | account_not_found
        all | aborted | a=9 b1=9
    """,
    "both refuse": """
        a=9 b1=3
        post debit a 5 debit b1 4 credit c2 9 | pending
        all | declined:insufficient_funds answered declined:account_not_found account_not_found
    """,
    "two entries in one other partition": """
        a=9 b1=9 c1=0
        post debit a 5 credit b1 2 credit c1 3 | pending
        deliver 1 | prepared | b1=9,in:2 c1=0,in:3
        all | posted committed | a=4 b1=11 c1=3 transit=5 transit1=-5
    """,
    "one of two entries there is refused": """
        a=9 b1=9 c1=0,frozen
        post debit a 5 credit b1 2 credit c1 3 | pending
        all | declined:account_frozen account_frozen | a=9 b1=9 c1=0,frozen
    """,
    "partitions that balance by themselves need no transit": """
        a=9 b=0 c1=9 d1=0
        post debit a 5 credit b 5 debit c1 4 credit d1 4 | pending | a=9,held:5 b=0,in:5
        deliver 1 | prepared | c1=9,held:4 d1=0,in:4
        all | posted committed | a=4 b=5 c1=5 d1=4 transit=0 transit1=0
    """,
    "system accounts are the coordinator's and are not reserved": """
        a=9 b1=9
        post debit a 5 debit b1 4 credit fees 6 credit funding 3 | pending | fees=0 funding=9
        all | prepared posted committed | a=4 b1=5 fees=6 fees1=0 funding=6 transit=-4 transit1=4
    """,
    "an incoming entry of one's own is reserved": """
        a=0 b1=M
        post credit a 5 debit b1 5 | pending | a=0,in:5
        credit a M-4 | balance_overflow
        debit a 1    | insufficient_funds
        all | prepared posted committed | a=5 b1=M-5 transit=-5 transit1=5
    """,
    "a participant spends what is reserved no more than a coordinator": """
        a=0 b1=9
        post credit a 9 debit b1 9 | pending
        deliver 1 | prepared | b1=9,held:9
        debit b1 1 | insufficient_funds
        hold b1 1  | insufficient_funds
        limit b1 -1; debit b1 1 | posted | b1=8,held:9
        all | posted committed | a=9 b1=-1
    """,
}

CAPTURES = {
    "of a part": """
        a=100 b1=0
        hold a 60 key=h
        capture a h 20 to=b1 key=c | pending | a=100,held:60,v:1 a/h=capturing:20
        deliver 1 | prepared | b1=0,in:20
        deliver 0 | posted | a=80,v:2 transit=20 a/h=captured:20
        deliver 1 | committed | b1=20
    """,
    "busy meanwhile": """
        a=100 b1=0
        hold a 60 key=h
        capture a h 20 to=b1 | pending
        capture a h       | hold_busy
        capture a h to=b1 | hold_busy
        void a h          | hold_busy
        all | prepared posted committed | a=80
        void a h          | hold_closed
    """,
    "refused: the hold is open again": """
        a=100
        hold a 60 key=h
        capture a h 20 to=b1 | pending
        all | declined:account_not_found account_not_found | a=100,held:60 a/h=open
        capture a h 30 | posted | a=70 a/h=captured:30
    """,
    "refused a millisecond before the hold is due": """
        a=100
        hold a 60 key=h expires=50
        capture a h 20 to=b1 | pending
        wait 49
        all | declined:account_not_found account_not_found | a=100,held:60 a/h=open
        wait 1
        tick 0 | expired ticked | a=100 a/h=expired
    """,
    "refused when the hold is due": """
        a=100
        hold a 60 key=h expires=50
        capture a h 20 to=b1 | pending
        wait 50
        all | declined:account_not_found account_not_found | a=100 a/h=expired
        tick 0 | ticked
    """,
    "a hold that is being captured does not expire": """
        a=100 b1=0
        hold a 60 key=h expires=50
        capture a h 20 to=b1 | pending
        wait 500
        tick 0 | ticked | a=100,held:60 a/h=capturing:20
        all | prepared posted committed | a=80 b1=20 a/h=captured:20
    """,
    "the deadline, before the hold is due": """
        a=100 b1=0
        hold a 60 key=h
        capture a h 20 to=b1 | pending
        wait 60000
        tick 0 | participant_timeout ticked | a=100,held:60 a/h=open
        all | prepared ignored aborted | b1=0
    """,
    "the deadline, when the hold is due": """
        a=100 b1=0
        hold a 60 key=h expires=60000
        capture a h 20 to=b1 | pending
        wait 60000
        tick 0 | participant_timeout ticked | a=100 a/h=expired
        all | prepared ignored aborted | b1=0
    """,
    "the rest may have been spent": """
        a=100 b1=0
        hold a 60 key=h
        debit a 40
        capture a h to=b1 | pending
        all | prepared posted committed | a=0 b1=60
    """,
    "conditions see no change in its first step": """
        a=100 b1=0
        hold a 60 key=h
        capture a h 20 to=b1 leaves=41 | condition_failed | a/h=open
        capture a h 20 to=b1 leaves=40 version=1 | pending
    """,
    "of an account that grows by debit": """
        rules 1; a=5,asset b1=0
        hold a 60 key=h | posted | a=5,in:60
        capture a h 20 to=b1 | pending | a=5,in:60
        all | prepared posted committed | a=25 b1=20
    """,
    "reversed": """
        a=100 b1=0
        hold a 60 key=h
        capture a h 20 to=b1 key=c | pending
        all
        reverse a c | pending | a=80,in:20
        all | prepared posted committed | a=100 b1=0 a/h=captured:20 transit=0
    """,
}

DEADLINES = {
    "a millisecond before": """
        a=1000 b1=0
        transfer a b1 100 | pending
        deliver 1 | prepared
        wait 59999
        all | posted committed | a=898
    """,
    "the answer comes at the deadline": """
        a=1000 b1=0
        transfer a b1 100 | pending
        deliver 1 | prepared
        wait 60000
        deliver 0 | participant_timeout ignored | a=1000
        all | aborted | b1=0 transit=0
    """,
    "the question comes late": """
        a=1000 b1=0
        transfer a b1 100 | pending
        wait 60000
        credit a 1 | participant_timeout posted | a=1001
        deliver 1 | prepared | b1=0,in:100
        deliver 1 | aborted  | b1=0
        deliver 0 | ignored  | a=1001
    """,
    "a late refusal is ignored too": """
        a=1000
        transfer a b1 100 | pending
        wait 60000
        tick 0 | participant_timeout ticked | a=1000
        all | declined:account_not_found ignored ignored
    """,
    "what was refused already is not told to abort": """
        a=9 b1=3 c2=0
        post debit a 5 debit b1 4 credit c2 9 | pending
        deliver 1 | declined:insufficient_funds
        deliver 0 | answered
        wait 60000
        tick 0 | participant_timeout ticked | a=9
        all | prepared ignored aborted | c2=0
    """,
    "a participant waits for its coordinator however long": """
        a=1000 b1=0
        transfer a b1 100 | pending
        deliver 1 | prepared
        deliver 0 | posted
        wait 99999999
        tick 1 | ticked | b1=0,in:100
        deliver 1 | committed | b1=100
    """,
    "before it was due nothing happens": """
        a=1000 b1=0
        transfer a b1 100 | pending
        wait 59999
        tick 0 | ticked | a=1000,held:102
        wait 1
        tick 0 | participant_timeout ticked | a=1000
    """,
    "a transaction that was decided is not due": """
        a=1000 b1=0
        transfer a b1 100 | pending
        all
        wait 60000
        tick 0 | ticked | a=898
    """,
}

CONDITIONS = {
    "after reserving": """
        a=200 b1=0
        transfer a b1 100 leaves=99 | condition_failed | a=200
        transfer a b1 100 leaves=98 | pending
    """,
    "are tested once": """
        a=200 b1=0
        transfer a b1 100 leaves=98 version=1 | pending
        debit a 98
        all | prepared posted committed | a=0
    """,
    "of an incoming entry of one's own": """
        a=0 b1=9
        post credit a 5 debit b1 5 leaves=1 | condition_failed
        post credit a 5 debit b1 5 leaves=0 version=0 | pending
    """,
}

ALL = {**TRANSFERS, **FEES, **POSTS, **CAPTURES, **DEADLINES, **CONDITIONS}
assert len(ALL) == sum(map(len, (TRANSFERS, FEES, POSTS, CAPTURES, DEADLINES, CONDITIONS)))


@pytest.mark.parametrize("name", ALL)
def test_story(name: str) -> None:
    stories.play(ALL[name])


def test_the_bare_amount_where_the_fee_would_leave_the_greatest_amount() -> None:
    """Not for want of funds: amount and fee together are more than an entry can be."""
    story = """
        a=M,owner:o,limit:-M b1=0,owner:{}
        transfer a b1 M | pending | a=M,held:M
        all | {}
    """
    same, other = "prepared posted committed", "prepared insufficient_funds aborted"
    stories.play(story.format("o", f"{same} | a=0 b1=M"), max_overdraft=builders.MAX)
    stories.play(story.format("p", f"{other} | a=M b1=0"), max_overdraft=builders.MAX)


def test_too_many_are_pending() -> None:
    stories.play(
        """
        a=1000 b1=0 c=0
        transfer a b1 1 | pending
        transfer a b1 1 | pending
        transfer a b1 1 | too_many_pending | a=1000,held:2
        transfer a c 1  | posted
        all | prepared posted prepared posted committed committed
        transfer a b1 1 | pending
        wait 60000
        tick 0 | participant_timeout ticked
        transfer a b1 1 | pending
        transfer a b1 1 | pending
        transfer a b1 1 | too_many_pending
        """,
        max_pending=2,
    )


def test_a_refusal_frees_a_place_too() -> None:
    stories.play(
        """
        a=1000
        transfer a b1 1 | pending
        transfer a b1 1 | too_many_pending
        all | declined:account_not_found account_not_found
        transfer a b1 1 | pending
        """,
        max_pending=1,
    )


def test_pending_transactions_keep_their_own_settings() -> None:
    """Commission and deadline are those of the command's step, whatever is configured since."""
    stage = stories.play(
        """
        a=1000 b1=0
        transfer a b1 100 key=t | pending | a=1000,held:102
        configure 0 commission_bps=1000 participant_timeout_ms=1 | configured
        wait 100
        transfer a b1 100 key=u | pending | a=1000,held:212
        all | prepared posted prepared posted committed committed | a=788 fees=12 b1=200
        """
    )
    assert stage.transaction("a", "t").commission_bps == 150
    assert stage.transaction("a", "u").commission_bps == 1000
    stage.play(
        """
        transfer a b1 100 | pending
        configure 0 participant_timeout_ms=60000 | configured
        wait 1
        tick 0 | participant_timeout ticked
        """
    )


def test_a_replay_while_pending_is_bound_to_the_first() -> None:
    stage = stories.play("a=1000 b1=0; transfer a b1 100 key=t | pending")
    stage.play("transfer a b1 100 key=t | replayed | a=1000,held:102")
    replay = stage.last[-1].record
    assert (replay.first_status, replay.reason, replay.sent) == ("pending", None, ())
    stage.play("transfer a b1 101 key=t | idempotency_key_reused")
    stage.play("all; transfer a b1 100 key=t | replayed")
    assert stage.last[-1].record.first_status == "posted"


def test_a_replay_of_what_was_rejected_later_tells_the_reason() -> None:
    stage = stories.play("a=1000; transfer a b1 100 key=t | pending; all")
    stage.play("transfer a b1 100 key=t | replayed | a=1000")
    replay = stage.last[-1].record
    assert (replay.first_status, replay.reason) == ("rejected", "account_not_found")


def test_the_step_that_asks() -> None:
    stage = stories.play("a=1000,owner:o b1=0; transfer a b1 100 key=t | pending")
    a, b = builders.account_id("a"), builders.account_id("b1")
    record = stage.last[-1].record
    assert record.reserved == (journal.Reservation(a, "debit", 102, 102, 0),)
    assert (record.entries, record.released) == ((), ())
    assert record.sent == (journal.SentNumber(1, 1),)
    pending = record.pending
    assert pending is not None
    assert (pending.participants, pending.waiting, pending.refusals) == ((1,), (1,), ())
    assert (pending.deadline_ms, pending.currency) == (START_MS + 60_000, "NGN")
    assert (pending.fee, pending.commission_bps, pending.fee_reserved) == (2, 150, True)
    assert stage.last[-1].messages == (
        (
            1,
            coordination.Prepare(
                source=0,
                number=1,
                transaction_id=builders.transaction("a", "t"),
                kind="transfer",
                currency="NGN",
                account=a,
                entries=(coordination.CoordinatedEntry(1, b, "credit", 100),),
                owner="o",
            ),
        ),
    )


def test_the_step_that_decides_names_its_command() -> None:
    stage = stories.play("a=1000 b1=0; transfer a b1 100 key=t | pending")
    pending_record = stage.last[-1].record
    stage.play("deliver 1; deliver 0 | posted")
    decided = stage.last[-1].record
    assert decided.source == journal.InputSource("coordination", 0)
    assert decided.command_offset == pending_record.source.offset
    assert (decided.command, decided.body_hash) == (
        pending_record.command,
        pending_record.body_hash,
    )
    assert isinstance(decided.message, coordination.Prepared)
    a, fees, transit = builders.account_id("a"), "system:fees:NGN:0", "system:transit:NGN:0"
    assert decided.released == (journal.Reservation(a, "debit", 102, 0, 0),)
    assert decided.entries == (
        journal.Entry(a, "debit", 102, 898, 2),
        journal.Entry(fees, "credit", 2, "2", 1),
        journal.Entry(transit, "credit", 100, "100", 1),
    )
    assert (decided.fee, decided.commission_bps) == (2, 150)


def test_the_steps_of_a_participant() -> None:
    stage = stories.play("a=1000 b1=5; transfer a b1 100 key=t | pending; deliver 1 | prepared")
    b = builders.account_id("b1")
    record = stage.last[-1].record
    assert record.reserved == (journal.Reservation(b, "credit", 100, 0, 100),)
    assert (record.entries, record.sent) == ((), (journal.SentNumber(0, 1),))
    stage.play("deliver 0; deliver 1 | committed")
    record = stage.last[-1].record
    assert record.released == (journal.Reservation(b, "credit", 100, 0, 0),)
    assert record.entries == (
        journal.Entry(b, "credit", 100, 105, 2),
        journal.Entry("system:transit:NGN:1", "debit", 100, "-100", 1),
    )


def test_a_refusal_names_the_least_reason_and_entry() -> None:
    stage = stories.play(
        "a=9 b1=9 c1=0,frozen d1=0,frozen; "
        "post debit a 5 credit b1 2 credit d1 1 credit c1 2 | pending; deliver 1"
    )
    (sent,) = stage.last[-1].messages
    assert isinstance(sent[1], coordination.Refused)
    assert (sent[1].reason, sent[1].index) == ("account_frozen", 2)


def test_messages_are_numbered_per_destination() -> None:
    stage = stories.play(
        "a=9 b1=0 c2=0; post debit a 5 credit c2 3 credit b1 2 | pending; "
        "deliver 2; deliver 0; deliver 1; deliver 0 | posted"
    )
    sent = [(to, type(message).__name__) for to, message in stage.last[-1].messages]
    assert sent == [(1, "Commit"), (2, "Commit")]
    assert stage.last[-1].record.sent == (journal.SentNumber(1, 2), journal.SentNumber(2, 2))


def test_nothing_is_left_of_a_transaction_but_its_outcome() -> None:
    stage = stories.play("a=1000 b1=0; transfer a b1 100 key=t | pending; all")
    for place in stage.places[:2]:
        assert {key[:1] for key in place.state.values()} <= {b"a", b"s", b"t"}
        assert place.state.partition.pending == 0
    kept = stage.transaction("a", "t")
    assert (kept.command, kept.pending, kept.status) == (None, None, "posted")
