"""Posts: 2 to 100 balanced entries at once. One line a case; `funding` and `fees` are NGN's."""

import pytest

from schemas import ids
from tests.testkit import builders, stories
from tests.testkit.builders import Body

POSTS = [
    "a=9 b=0; post debit a 5 credit b 5 | posted | a=4,v:2 b=5,v:1",
    "a=9 b=0; post credit b 5 debit a 5 | posted | a=4 b=5",
    "a=0 b=0; post debit a 5 credit b 5 | insufficient_funds | a=0 b=0",
    "a=9 b=0; post debit a 10 credit b 10 | insufficient_funds",
    "a=9 b=0; post debit a 9 credit b 9 | posted | a=0 b=9 fees=0",
    "a=9 b=9 c=0 d=0; post debit a 5 debit b 4 credit c 2 credit d 7 | posted | a=4 b=5 c=2 d=7",
    "a=9; post debit a 5 credit funding 5 | posted | a=4 funding=4",
    "a=9; post debit funding 5 credit a 5 | posted | a=14 funding=14",
    "a=9; post debit a 5 credit fees 5 | posted | a=4 fees=5",
    # System accounts have no bound and no limit: fees may go below nothing.
    "a=9; post debit fees 5 credit a 5 | posted | a=14 fees=-5",
    "a=0; post debit fees 3 debit funding 2 credit a 5 | posted | a=5 fees=-3 funding=2",
    "a=9 b=0; post debit a 5 | too_few_entries",
    "a=9 b=0; post debit a 5 credit b 4 | unbalanced",
    "a=9 b=0; post debit a 5 debit b 5 | unbalanced",
    "a=9 b=0; post debit a 5 credit a 5 | duplicate_account",
    "a=9 b=0; post debit a 5 credit b 3 credit b 2 | duplicate_account",
    "a=9; post debit a 5 credit fees 2 credit fees 3 | duplicate_account",
    "a=9 b=0; post debit a 5 credit b 5 in=USD | currency_mismatch",
    "a=9 b=0; post debit a 5 credit b 5 in=QQQ | currency_unknown",
    "a=9 b=0,USD; post debit a 5 credit b 5 | currency_mismatch",
    "a=9,USD b=0,USD; post debit a 5 credit b 5 in=USD | posted | a=4 b=5",
    # A post's currency is its own, and so is that of the system accounts that it names.
    "a=9,USD; post debit a 5 credit fees 5 in=USD | currency_mismatch | fees=0 fees=0,USD",
    "a=9,USD; post debit a 5 credit system:fees:USD 5 in=USD | posted | a=4 fees=5,USD",
    "a=9; post debit a 5 credit system:fees:USD 5 | currency_mismatch | a=9",
    "a=9; post debit a 5 credit system:transit:NGN 5 | system_account",
    "a=9; post debit a 5 credit system:funding:NGN:0 5 | system_account",
    "a=9; post debit a 5 credit system:fees 5 | system_account",
    "a=9; post debit a 5 credit system:fees: 5 | system_account",
    "a=9; post debit a 5 credit system:fees:ABC 5 | system_account",
    "a=9; post debit a 5 credit system:FEES:NGN 5 | system_account",
    "a=9; post debit a 5 credit system:other:NGN 5 | system_account",
    "a=9; post debit a 5 credit system: 5 | system_account",
    "a=9; post debit a 5 credit b 5 | account_not_found",
    "b=9; post debit b 5 credit a 5 | account_not_found",
    "a=9 b=0,frozen; post debit a 5 credit b 5 | account_frozen",
    "a=9 b=0,closed; post debit a 5 credit b 5 | account_closed",
    "a=9 b=M; post debit a 5 credit b 5 | balance_overflow",
    "a=9 b=M c=0; post debit a 10 credit b 1 credit c 9 | insufficient_funds",
    # Debits that add up to more than an amount can be.
    "a=0,liability b=0,liability c=0 d=0; post debit a M debit b 1 credit c M credit d 1 "
    "| balance_overflow | a=0 b=0 c=0 d=0",
    "a=0,liability b=0,liability c=0 d=0; post debit a M-1 debit b 1 credit c M-1 credit d 1 "
    "| posted | a=-M+1 b=-1 c=M-1 d=1",
    "a=0,asset b=0; post debit a 5 credit b 5 | posted | a=5 b=5",
    "a=5,asset b=0,expense; post credit a 5 debit b 5 | posted | a=0 b=5",
    "a=9 b=0; post debit a 5 credit b 5 version=1 leaves=4 | posted",
    "a=9 b=0; post debit a 5 credit b 5 leaves=5 | condition_failed | a=9",
    "a=9 b=0; post debit b 5 credit a 5 version=1 | insufficient_funds",
    "a=0 b=9; post debit b 5 credit a 5 version=0 leaves=5 | posted | a=5 b=4",
    "a=0 b=9; post debit b 5 credit a 5 version=1 | condition_failed",
    "a=9 b=0; hold a 5; post debit a 5 credit b 5 | insufficient_funds",
    "a=9 b=0; hold a 5; post debit a 4 credit b 4 | posted | a=5,held:5",
]

MISROUTED = [
    "post | misrouted",
    "post debit funding 5 credit fees 5 | misrouted",
    "post debit funding 5 | misrouted",
]


@pytest.mark.parametrize("story", [*POSTS, *MISROUTED])
def test_story(story: str) -> None:
    stories.play(story)


def _of_many(count: int, *, rest: str = "funding") -> str:
    """A post from `count` - 1 accounts to the last."""
    names = [f"a{letter}{other}x" for letter in "bcdefghijk" for other in "bcdefghijkl"]
    credits = " ".join(f"credit {name} 1" for name in names[: count - 1])
    return f"post debit {rest} {count - 1} {credits}"


def _opened(count: int) -> stories.Stage:
    stage = stories.Stage()
    for letter in "bcdefghijk":
        for other in "bcdefghijkl":
            if count > 0:
                stage.play(f"a{letter}{other}x=0")
                count -= 1
    return stage


def test_a_hundred_entries_are_the_most() -> None:
    stage = _opened(99)
    stage.play(f"{_of_many(100)} | posted | funding=99 abbx=1 abcx=1")
    assert len(stage.last[-1].record.entries) == 100
    stage.play(f"{_of_many(101)} | too_many_entries")


def test_too_many_entries_come_before_faults_in_the_entries() -> None:
    stories.play(f"{_of_many(101)} credit abbx 5 | too_many_entries")


def test_entries_keep_the_order_of_the_post() -> None:
    stage = stories.play("a=0 b=9 c=0; post credit c 3 debit b 9 credit fees 1 credit a 5 | posted")
    assert [entry.account for entry in stage.last[-1].record.entries] == [
        builders.account_id("c"),
        builders.account_id("b"),
        "system:fees:NGN:0",
        builders.account_id("a"),
    ]


def _spoiled(step: str, **changes: object) -> Body:
    return builders.command(step) | changes


def test_only_the_least_ordinary_account_coordinates() -> None:
    """By code points, whatever the order of the entries: `Z` comes before `a`, `-` before both."""
    stage = stories.play("a=9 b=9")
    a, b = builders.account_id("a"), builders.account_id("b")
    step = "post debit b 5 credit a 5"
    assert builders.command(step)["account"] == a
    refusal = stage.send(_spoiled(step, account=b))[-1].record
    assert (refusal.step, refusal.reason) == ("refused", "misrouted")
    assert stage.send(_spoiled(step))[-1].record.step == "posted"


def test_an_account_that_is_no_entry_does_not_coordinate() -> None:
    stage = stories.play("a=9 b=9 c=9")
    decisions = stage.send(_spoiled("post debit c 5 credit b 5", account=builders.account_id("a")))
    assert decisions[-1].record.reason == "misrouted"


def test_the_coordinator_s_shard_is_what_a_system_name_means() -> None:
    stage = stories.play("b1=9; post debit b1 5 credit fees 5 | posted | b1=4 fees1=5 fees=0")
    kept = stage.last[-1].record.entries[1].account
    assert kept == ids.system_shard(ids.FEES, "NGN", 1)
