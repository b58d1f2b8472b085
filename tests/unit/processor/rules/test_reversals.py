"""Reversals: once, whole, with the fee, and only where the money still is. One line a case."""

import pytest

from schemas import journal
from tests.testkit import builders, stories

REVERSING = [
    "a=5; credit a 4 key=t; reverse a t | posted | a=5,v:3 funding=5",
    "a=5; debit a 4 key=t; reverse a t | posted | a=5,v:3 funding=5",
    "a=1000 b=0; transfer a b 100 key=t; reverse a t | posted | a=1000 b=0 fees=0",
    "a=9 b=0; post debit a 5 credit b 4 credit fees 1 key=t; reverse a t | posted | a=9 b=0 fees=0",
    "a=9 b=0; hold a 5 key=h; capture a h 3 to=b key=t; reverse a t | posted | a=9 b=0 "
    "a/h=captured:3",
    "a=9; hold a 5 key=h; capture a h key=t; reverse a t | posted | a=9 funding=9 a/h=captured:5",
    # A capture's reversal does not reopen the hold.
    "a=9; hold a 5 key=h; capture a h key=t; reverse a t; capture a h | hold_closed",
    "a=5; credit a 4 key=t; reverse a t; reverse a t | already_reversed | a=5",
    "a=5; credit a 4 key=t; reverse a t key=r; reverse a r | not_reversible",
    "a=5; hold a 5 key=h; reverse a h | not_reversible",
    "a=5; hold a 5 key=h; void a h key=v; reverse a v | not_reversible",
    "open a wallet NGN key=o; reverse a o | not_reversible",
    "a=0; freeze a key=f; unfreeze a key=u; reverse a f | not_reversible; reverse a u | "
    "not_reversible",
    "a=0; limit a -1 key=l; reverse a l | not_reversible",
    "a=0; debit a 1 key=t | insufficient_funds; reverse a t | not_reversible",
    "a=5; reverse a t | transaction_not_found",
    "a=5 b=9; credit a 1 key=t; reverse b a/t | transaction_not_found | a=6 b=9",
    "a=500 b=0; transfer a b 1 key=t; reverse b a/t | transaction_not_found",
    "reverse a t | account_not_found",
    "reverse system:funding:NGN t | system_account",
    # The money is no longer there.
    "a=0; credit a 5 key=t; debit a 1; reverse a t | insufficient_funds | a=4; credit a 1; "
    "reverse a t | posted | a=0",
    "a=0; credit a 5 key=t; hold a 1; reverse a t | insufficient_funds | a=5,held:1",
    "a=500 b=0; transfer a b 100 key=t; debit b 1; reverse a t | insufficient_funds | b=99",
    "a=0,limit:-4; credit a 5 key=t; debit a 5; reverse a t | insufficient_funds; limit a -5; "
    "reverse a t | posted | a=-5",
    "a=5; debit a 5 key=t; credit a M; reverse a t | balance_overflow | a=M",
    "a=500 b=0; transfer a b 100 key=t; credit a M-398; reverse a t | balance_overflow",
    "a=500 b=0; transfer a b 100 key=t; credit a M-500; reverse a t | posted | a=M b=0 fees=0",
    # Fees have no limit: they are given back even where there are none.
    "a=102 b=0; transfer a b 100 key=t; post debit fees 2 credit b 2; reverse a t | posted | "
    "a=102 b=2 fees=-2",
    "a=500 b=0; transfer a b 100 key=t; freeze b; reverse a t | account_frozen",
    "a=500 b=0; transfer a b 100 key=t; freeze a; reverse a t | account_frozen; unfreeze a; "
    "reverse a t | posted",
    "a=500 b=0; transfer a b 100 key=t; debit b 100; close b; reverse a t | account_closed",
    "a=5; credit a 4 key=t; reverse a t version=2 leaves=5 | posted",
    "a=5; credit a 4 key=t; reverse a t leaves=6 | condition_failed | a=9; reverse a t | posted",
    "a=5; credit a 4 key=t; reverse a t version=3 | condition_failed",
    # Of an account that grows by debit.
    "rules 1; a=5,asset; credit a 3 key=t; reverse a t | posted | a=5",
    "rules 1; a=5,asset,limit:0; debit a 3 key=t; credit a 6; reverse a t | insufficient_funds",
    # An original that cannot be reversed at all has no entries to test.
    "a=5; credit a 4 key=t; reverse a t key=r; freeze a; reverse a r | not_reversible",
    "a=5; hold a 5 key=h; freeze a; reverse a h | not_reversible",
    # One that was reversed still has.
    "a=5; credit a 4 key=t; reverse a t; freeze a; reverse a t | account_frozen",
]

# The original or its reversal goes over partitions.
PENDING = [
    "a=500 b1=0; transfer a b1 100 key=t | pending; reverse a t | not_reversible; all; "
    "reverse a t | pending; all | prepared posted committed | a=500 b1=0 fees=0 transit=0",
    "a=500 b1=0; transfer a b1 100 key=t; all; reverse a t | pending; reverse a t | "
    "reversal_pending; all; reverse a t | already_reversed",
    # A reversal that came to nothing leaves the original to be reversed again.
    "a=500 b1=0; transfer a b1 100 key=t; all; debit b1 1; reverse a t | pending; reverse a t | "
    "reversal_pending; all | declined:insufficient_funds insufficient_funds | a=398 b1=99; "
    "credit b1 1; reverse a t | pending; all | prepared posted committed | a=500 b1=0",
    "a=500 b1=0; transfer a b1 100 key=t; all; reverse a t | pending; wait 60000; tick 0 | "
    "participant_timeout ticked; reverse a t key=r | pending | a=398,in:102; all | prepared "
    "ignored aborted prepared posted committed | a=500 b1=0",
    "a=500 b1=0; transfer a b1 100 key=t; wait 60000; tick 0 | participant_timeout ticked; "
    "reverse a t | not_reversible",
    "a=500 b1=0; transfer a b1 100 key=t; all; reverse a t key=r; all; reverse a r | "
    "not_reversible",
]


@pytest.mark.parametrize("story", REVERSING)
def test_story(story: str) -> None:
    stories.play(story)


@pytest.mark.parametrize("story", PENDING)
def test_story_of_partitions(story: str) -> None:
    play_pending(story)


def play_pending(story: str) -> None:
    """A transfer or a reversal to another partition is pending where a story does not say."""
    lines = []
    for line in story.split(";"):
        step = line.strip()
        over = step.startswith(("transfer a b1", "reverse a t"))
        lines.append(line if "|" in line or not over else f"{line} | pending")
    stories.play(";".join(lines))


def test_every_entry_is_turned_round_in_its_order() -> None:
    stage = stories.play("a=1000 b=0; transfer a b 100 key=t; reverse a t key=r")
    a, b = builders.account_id("a"), builders.account_id("b")
    record = stage.last[-1].record
    assert record.entries == (
        journal.Entry(a, "credit", 102, 1000, 3),
        journal.Entry(b, "debit", 100, 0, 2),
        journal.Entry("system:fees:NGN:0", "debit", 2, "0", 2),
    )
    assert (record.fee, record.commission_bps) == (0, 0)


def test_the_original_names_its_reversal() -> None:
    stage = stories.play("a=5; credit a 4 key=t")
    assert (stage.transaction("a", "t").reversal, stage.transaction("a", "t").reversed) == (
        None,
        False,
    )
    stage.play("reverse a t key=r")
    kept = stage.transaction("a", "t")
    assert (kept.reversal, kept.reversed) == (builders.transaction("a", "r"), True)


def test_a_pending_reversal_is_named_and_forgotten_if_it_is_rejected() -> None:
    stage = stories.play("a=500 b1=0; transfer a b1 100 key=t | pending; all; debit b1 1")
    stage.play("reverse a t key=r | pending")
    kept = stage.transaction("a", "t")
    assert (kept.reversal, kept.reversed) == (builders.transaction("a", "r"), False)
    stage.play("all")
    kept = stage.transaction("a", "t")
    assert (kept.reversal, kept.reversed) == (None, False)


def test_the_fee_of_the_time_comes_back_whatever_the_commission_is_now() -> None:
    stories.play(
        "a=1000 b=0; transfer a b 100 key=t | posted | fees=2; configure 0 commission_bps=500; "
        "reverse a t | posted | a=1000 b=0 fees=0"
    )
