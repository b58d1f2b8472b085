"""Holds: placed, captured in part or whole, voided, expired by log time. One line a case.

Captures to other partitions are told in `test_rules_partitions`.
"""

import pytest

from processor.rules import state_view
from schemas import journal, state_keys
from schemas import state as states
from tests.testkit import builders, stories
from tests.testkit.builders import START_MS

PLACING = [
    "a=100; hold a 100 key=h | posted | a=100,held:100,v:1 a/h=open",
    "a=100; hold a 101 | insufficient_funds | a=100",
    "a=100; hold a 60; hold a 41 | insufficient_funds; hold a 40 | posted | a=100,held:100",
    "a=0; hold a 1 | insufficient_funds",
    "a=0,limit:-5; hold a 5 | posted | a=0,held:5; hold a 1 | insufficient_funds",
    "a=M; hold a M | posted | a=M,held:M",
    "a=0,liability; hold a M | posted; hold a 1 | balance_overflow | a=0,held:M",
    "rules 1; a=0,asset; hold a 5 key=h | posted | a=0,in:5 a/h=open",
    "rules 1; a=M-5,asset; hold a 6 | balance_overflow; hold a 5 | posted | a=M-5,in:5",
    "rules 1; a=M-5,asset; hold a 5; debit a 1 | balance_overflow",
    "a=5; hold a 5 in=NGN | posted",
    "a=5; hold a 5 in=USD | currency_mismatch",
    "a=5; hold a 5 in=XYZ | currency_unknown",
    "hold a 5 | account_not_found",
    "hold system:funding:NGN 5 | system_account",
    "a=5; hold a 5 version=1 leaves=0 | posted",
    "a=5; hold a 5 leaves=1 | condition_failed | a=5",
    "a=5; hold a 5 version=2 | condition_failed",
    "a=5; hold a 5 expires=1 | posted",
    "a=5; hold a 5 expires=0 | hold_expired | a=5",
    "a=5; hold a 5 expires=-1 | hold_expired",
    "a=0; hold a 5 expires=-1 | hold_expired",
]

CAPTURING = [
    "a=100; hold a 60 key=h; capture a h | posted | a=40,v:2 funding=40 a/h=captured:60",
    "a=100; hold a 60 key=h; capture a h 60 | posted | a=40 a/h=captured:60",
    "a=100; hold a 60 key=h; capture a h 1 | posted | a=99 funding=99 a/h=captured:1",
    "a=100; hold a 60 key=h; capture a h 61 | capture_exceeds_hold | a=100,held:60 a/h=open",
    "a=100; hold a 60 key=h; capture a h M | capture_exceeds_hold",
    "a=100 b=0; hold a 60 key=h; capture a h to=b | posted | a=40 b=60 funding=100 fees=0",
    "a=100 b=0; hold a 60 key=h; capture a h 20 to=b | posted | a=80 b=20 a/h=captured:20",
    "a=100; hold a 60 key=h; hold a 40 key=i; capture a h 5 | posted | a=95,held:40 a/i=open",
    "a=100; hold a 60 key=h; capture a h; capture a h | hold_closed | a=40",
    "a=100; hold a 60 key=h; capture a h 1; capture a h 1 | hold_closed | a=99",
    "a=100; hold a 60 key=h; void a h; capture a h | hold_closed | a=100",
    "a=100; capture a h | hold_not_found",
    "a=100 b=9; hold a 60 key=h; capture b a/h | hold_not_found | a=100,held:60 b=9",
    "a=100; credit a 1 key=h; capture a h | hold_not_found",
    "capture a h | account_not_found",
    "a=100; hold a 60 key=h; capture a h to=b | account_not_found | a=100,held:60 a/h=open",
    "a=100 b=0,frozen; hold a 60 key=h; capture a h to=b | account_frozen | a=100,held:60",
    "a=100 b=0,closed; hold a 60 key=h; capture a h to=b | account_closed",
    "a=100 b=0,USD; hold a 60 key=h; capture a h to=b | currency_mismatch",
    "a=100 b=M; hold a 60 key=h; capture a h to=b | balance_overflow",
    "rules 1; a=100 b=5,asset,limit:0; hold a 60 key=h; capture a h to=b | insufficient_funds",
    "a=100; hold a 60 key=h; capture a h to=a | self_transfer | a=100,held:60",
    "a=100; hold a 60 key=h; capture a h to=system:fees:NGN | system_account",
    "a=100; hold a 60 key=h; capture a h to=system:funding:NGN | system_account",
    # The hold has set the funds aside: what has become of the rest does not matter.
    "a=100; hold a 60 key=h; debit a 40; capture a h | posted | a=0",
    "a=0,limit:-60; hold a 60 key=h; capture a h | posted | a=-60",
    "a=0,liability; hold a M key=h; capture a h | posted | a=-M",
    "rules 1; a=5,asset; hold a 5 key=h; capture a h 3 | posted | a=8,in:0 a/h=captured:3",
    "rules 1; a=M-5,asset; hold a 5 key=h; capture a h | posted | a=M",
    "a=100; hold a 60 key=h; capture a h 20 version=1 leaves=80 | posted",
    "a=100; hold a 60 key=h; capture a h 20 leaves=81 | condition_failed | a=100,held:60 a/h=open",
    "a=100; hold a 60 key=h; capture a h 20 version=2 | condition_failed",
]

VOIDING = [
    "a=100; hold a 60 key=h; void a h | posted | a=100,v:1 a/h=voided",
    "a=100; hold a 60 key=h; void a h; void a h | hold_closed",
    "a=100; hold a 60 key=h; capture a h; void a h | hold_closed | a=40",
    "a=100; void a h | hold_not_found",
    "a=100 b=0; hold a 60 key=h; void b a/h | hold_not_found | a=100,held:60",
    "void a h | account_not_found",
    "void system:funding:NGN h | system_account",
    "rules 1; a=100,asset; hold a 60 key=h; void a h | posted | a=100",
    "a=100; hold a 60 key=h; void a h leaves=100 | posted",
    "a=100; hold a 60 key=h; void a h leaves=101 | condition_failed | a=100,held:60 a/h=open",
    "a=100; hold a 60 key=h; void a h version=0 | condition_failed",
    "a=100; hold a 60 key=h; hold a 10 key=i; void a h | posted | a=100,held:10 a/i=open",
]

EXPIRING = [
    "a=9; hold a 9 key=h expires=100; wait 99; capture a h 5 | posted | a=4",
    "a=9; hold a 9 key=h expires=100; wait 100; capture a h | expired hold_expired | a=9",
    "a=9; hold a 9 key=h expires=100; wait 101; capture a h | expired hold_expired | a=9",
    "a=9; hold a 9 key=h expires=100; wait 99; void a h | posted",
    "a=9; hold a 9 key=h expires=100; wait 100; void a h | expired hold_expired | a/h=expired",
    "a=9; hold a 9 key=h expires=100; wait 99; tick 0 | ticked | a=9,held:9 a/h=open",
    "a=9; hold a 9 key=h expires=100; wait 100; tick 0 | expired ticked | a=9 a/h=expired",
    # The money is free before the record that came at that time is decided.
    "a=9; hold a 9 expires=100; wait 100; debit a 9 | expired posted | a=0",
    "a=9; hold a 9 expires=100; wait 99; debit a 9 | insufficient_funds",
    "rules 1; a=9,asset; hold a 9 expires=100; wait 100; tick 0 | expired ticked | a=9",
    "a=9; hold a 4 expires=1; hold a 5 expires=2; wait 2; close a | expired expired "
    "account_not_empty | a=9",
    # What was voided or captured does not expire.
    "a=9; hold a 9 key=h expires=100; void a h; wait 100; tick 0 | ticked | a/h=voided",
    "a=9; hold a 9 key=h expires=100; capture a h; wait 100; tick 0 | ticked | a/h=captured:9",
    "a=9; hold a 9 key=h expires=100; wait 100; tick 0; void a h | hold_expired; "
    "capture a h | hold_expired; tick 0 | ticked | a=9",
    "a=9; hold a 9 key=h; wait 604799999; tick 0 | ticked; wait 1; tick 0 | expired ticked",
    "a=9; wait 50; hold a 9 expires=50 | hold_expired; hold a 9 expires=51 | posted",
]


@pytest.mark.parametrize("story", [*PLACING, *CAPTURING, *VOIDING, *EXPIRING])
def test_story(story: str) -> None:
    stories.play(story)


def test_the_time_to_live_is_a_setting() -> None:
    stage = stories.play("a=9; wait 5; hold a 9 key=h", hold_ttl_ms=20)
    assert stage.hold("a", "h").expires_at_ms == START_MS + 25
    stage.play("configure 0 hold_ttl_ms=1 | configured; wait 19; tick 0 | ticked")
    stage.play("wait 1; tick 0 | expired ticked | a=9")


def test_a_hold_is_named_by_its_transaction() -> None:
    stage = stories.play("a=9; hold a 5 key=h expires=70")
    record = stage.last[-1].record
    assert record.transaction_id == builders.transaction("a", "h")
    a = builders.account_id("a")
    assert record.reserved == (journal.Reservation(a, "debit", 5, 5, 0),)
    assert record.hold == journal.HoldChange(
        id=builders.transaction("a", "h"),
        account=a,
        currency="NGN",
        amount=5,
        expires_at_ms=START_MS + 70,
        status="open",
    )


def test_a_capture_releases_the_whole_hold_and_then_posts() -> None:
    stage = stories.play("a=9; hold a 5 key=h; capture a h 2")
    record = stage.last[-1].record
    a = builders.account_id("a")
    assert record.released == (journal.Reservation(a, "debit", 5, 0, 0),)
    assert record.entries == (
        journal.Entry(a, "debit", 2, 7, 2),
        journal.Entry("system:funding:NGN:0", "credit", 2, "7", 2),
    )
    assert record.hold is not None
    assert (record.hold.status, record.hold.captured) == ("captured", 2)


def test_an_expiry_is_a_record_of_its_own() -> None:
    stage = stories.play("a=9; hold a 5 key=h expires=70; wait 80; credit a 1 | expired posted")
    expired, credit = (decision.record for decision in stage.last)
    assert expired.source == journal.InputSource("expiry")
    assert (expired.step, expired.time_ms) == ("expired", START_MS + 80)
    assert expired.transaction_id == builders.transaction("a", "h")
    a = builders.account_id("a")
    assert expired.released == (journal.Reservation(a, "debit", 5, 0, 0),)
    assert (expired.digest, expired.command, expired.message) == (None, None, None)
    assert credit.sequence == expired.sequence + 1


def test_what_is_due_is_indexed_only_while_the_hold_is_open() -> None:
    stage = stories.play("a=9; hold a 5 key=h expires=70")
    key = state_keys.due(START_MS + 70, builders.transaction("a", "h"))
    state = stage.places[0].state
    assert state.get(key) == states.Due("hold")
    stage.play("void a h")
    assert state.get(key) is None
    assert state_view.hold(state, builders.transaction("a", "h")) is not None
