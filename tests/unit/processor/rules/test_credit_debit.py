"""Credit and debit: money enters and leaves by the partition's funding account. One line a case."""

import pytest

from tests.testkit import builders, stories

CREDITS = [
    "a=0; credit a 50 | posted | a=50,v:1 funding=50",
    "a=0; credit a 1 | posted | a=1",
    "a=0; credit a M | posted | a=M funding=M",
    "a=1; credit a M | balance_overflow | a=1,v:1 funding=1",
    "a=M; credit a 1 | balance_overflow | a=M",
    "a=M-1; credit a 1 | posted | a=M",
    "a=-1,limit:-1; credit a M | posted | a=M-1",
    "a=5; credit a 5; credit a 5 | posted | a=15,v:3 funding=15",
    "a=0; credit a 5 in=NGN | posted",
    "a=0; credit a 5 in=USD | currency_mismatch",
    "a=0,USD; credit a 5 | posted | a=5 funding=5,USD funding=0",
    "a=0; credit a 5 in=XYZ | currency_unknown",
    "a=0; credit a 5 in=ngn | currency_unknown",
    "credit a 5 | account_not_found",
    "credit system:funding:NGN 5 | system_account",
    "credit system:anything 5 | system_account",
    "rules 1; a=0,asset; credit a 5 | posted | a=-5 funding=5",
    "rules 1; a=-M,asset; credit a 1 | balance_overflow | a=-M",
    "a=5; hold a 5; credit a 3 | posted | a=8,held:5",
    # A hold on what it covers is still counted in the balance.
    "a=M; hold a M; credit a 1 | balance_overflow",
    # What another partition is about to pay is counted against the maximum, but is not available.
    "a=0 b1=9; transfer b1 a 1 | pending; deliver 0 | prepared | a=0,in:1; credit a M | "
    "balance_overflow; credit a M-1 | posted | a=M-1,in:1",
    "a=0 b1=9; transfer b1 a 5 | pending; deliver 0 | prepared; debit a 1 | insufficient_funds",
]

DEBITS = [
    "a=100; debit a 100 | posted | a=0,v:2 funding=0",
    "a=100; debit a 101 | insufficient_funds | a=100",
    "a=100; debit a 99 | posted | a=1",
    "a=0; debit a 1 | insufficient_funds",
    "a=M; debit a M | posted | a=0",
    "a=5; debit a M | insufficient_funds",
    "a=0,limit:-50; debit a 50 | posted | a=-50; debit a 1 | insufficient_funds",
    "a=0,liability; debit a M | posted | a=-M funding=-M; debit a 1 | balance_overflow",
    "a=1,liability; debit a M | posted | a=-M+1",
    "a=0,liability; hold a M; debit a 1 | balance_overflow | a=0,held:M",
    "rules 1; a=0,asset; debit a 5 | posted | a=5 funding=-5",
    "rules 1; a=M,expense; debit a 1 | balance_overflow",
    "a=100; hold a 60; debit a 41 | insufficient_funds; debit a 40 | posted | a=60,held:60",
    "a=5; debit a 5 in=USD | currency_mismatch",
    "a=5,JPY; debit a 5 in=JPY | posted | a=0 funding=0,JPY",
    "a=5; debit a 5 in=ZZZ | currency_unknown",
    "debit a 5 | account_not_found",
    "debit system:fees:NGN 5 | system_account",
    "a=500 b1=0; transfer a b1 100 | pending | a=500,held:102; debit a 399 | insufficient_funds; "
    "debit a 398 | posted | a=102,held:102",
]

CONDITIONS = [
    "a=5; credit a 1 version=1 | posted | a=6",
    "a=5; credit a 1 version=0 | condition_failed | a=5",
    "a=5; credit a 1 version=2 | condition_failed",
    "a=0; credit a 1 version=0 | posted",
    "a=5; credit a 1 leaves=6 | posted",
    "a=5; credit a 1 leaves=7 | condition_failed | a=5",
    "a=5; debit a 2 leaves=3 | posted | a=3",
    "a=5; debit a 2 leaves=4 | condition_failed",
    "a=5; debit a 2 leaves=3 version=1 | posted",
    "a=5; debit a 2 leaves=3 version=0 | condition_failed",
    "a=9; hold a 5; debit a 2 leaves=2 | posted | a=7,held:5",
    "a=9; hold a 5; debit a 2 leaves=3 | condition_failed",
    "a=0,limit:-9; debit a 5 leaves=-5 | posted",
    "a=0,limit:-9; debit a 5 leaves=-4 | condition_failed",
    "a=5; debit a 6 leaves=0 version=7 | insufficient_funds",
]


@pytest.mark.parametrize("story", [*CREDITS, *DEBITS, *CONDITIONS])
def test_story(story: str) -> None:
    stories.play(story)


def test_each_partition_has_its_own_funding() -> None:
    stories.play("a=5 b1=6 c2=7 d=0,USD; credit d 8 | posted | funding=5 funding1=6 funding2=7")


def test_funding_has_no_bound() -> None:
    stage = stories.play("a=M b=M c=M")
    assert stage.system("funding") == 3 * builders.MAX
    funding_entry = stage.last[-1].record.entries[0]
    assert funding_entry.balance == str(3 * builders.MAX), (
        "decimal text, for readers that are not exact"
    )


@pytest.mark.parametrize(
    ("step", "order"), [("credit a 5", ("debit", "credit")), ("debit a 5", ("debit", "credit"))]
)
def test_the_debit_stands_first(step: str, order: tuple[str, str]) -> None:
    stage = stories.play(f"a=9; {step}")
    entries = stage.last[-1].record.entries
    own, funding = builders.account_id("a"), builders.funding()
    assert tuple(e.direction for e in entries) == order
    expected = [funding, own] if step.startswith("credit") else [own, funding]
    assert [e.account for e in entries] == expected
    assert [e.version for e in entries] == [2, 2]


def test_the_outcome_is_kept_short_and_tells_all() -> None:
    stage = stories.play("a=9; debit a 4 key=d")
    kept = stage.transaction("a", "d")
    assert (kept.status, kept.kind, kept.currency, kept.amount) == ("posted", "debit", "NGN", 4)
    assert kept.entries == ()
