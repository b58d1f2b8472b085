"""Transfers within one partition: the amount, the commission beside it, and who is spared it.

Transfers to other partitions are told in `test_rules_partitions`. One line a case.
"""

import pytest

from processor.rules import plans
from schemas import journal
from tests.testkit import builders, stories

PLAIN = [
    "a=1000 b=0; transfer a b 100 | posted | a=898,v:2 b=100,v:1 fees=2",
    "a=102 b=0; transfer a b 100 | posted | a=0 b=100 fees=2",
    "a=101 b=0; transfer a b 100 | insufficient_funds | a=101 b=0 fees=0",
    "a=0,limit:-102 b=0; transfer a b 100 | posted | a=-102",
    "a=0,limit:-101 b=0; transfer a b 100 | insufficient_funds",
    "a=200 b=0; hold a 98; transfer a b 100 | posted | a=98,held:98",
    "a=200 b=0; hold a 99; transfer a b 100 | insufficient_funds",
    "a=9 b=M; transfer a b 1 | balance_overflow | a=9 b=M",
    "a=9 b=M-1; transfer a b 1 | posted | b=M",
    "a=9 b=0; transfer a a 1 | self_transfer",
    "a=9; transfer a b 1 | account_not_found",
    "b=9; transfer a b 1 | account_not_found",
    "transfer a a 1 | self_transfer",
    "a=9 b=0,USD; transfer a b 1 | currency_mismatch",
    "a=9 b=0; transfer a b 1 in=USD | currency_mismatch",
    "a=9,USD b=0,USD; transfer a b 1 in=USD | posted | a=8 b=1",
    "a=9 b=0; transfer a b 1 in=XXX | currency_unknown",
    "a=9; transfer a system:fees:NGN 1 | system_account",
    "a=9; transfer a system:funding:NGN:0 1 | system_account",
    "transfer system:funding:NGN a 1 | system_account",
    "a=9 b=0,frozen; transfer a b 1 | account_frozen",
    "a=9 b=0,closed; transfer a b 1 | account_closed",
    "a=9,frozen b=0,closed; transfer a b 1 | account_closed",
    # To an asset a credit is what lowers it; from one a debit is what raises it.
    "rules 1; a=9 b=5,asset; transfer a b 3 | posted | a=6 b=2",
    "rules 1; a=9 b=5,asset,limit:0; transfer a b 6 | insufficient_funds | a=9 b=5",
    "rules 1; a=9,asset b=0; transfer a b 100 | posted | a=111 b=100 fees=2",
    "rules 1; a=M-100,asset b=0; transfer a b 99 | posted | a=M b=99 fees=1",
    "rules 1; a=M-100,asset b=0; transfer a b 100 | balance_overflow",
]

FEES = [
    "a=999 b=0; transfer a b 33 | posted | a=966 fees=0",
    "a=999 b=0; transfer a b 34 | posted | a=964 fees=1",
    "a=999 b=0; transfer a b 99 | posted | a=899 fees=1",
    "a=999 b=0; transfer a b 100 | posted | a=897 fees=2",
    "a=999 b=0; transfer a b 299 | posted | a=696 fees=4",
    "a=999 b=0; transfer a b 300 | posted | a=694 fees=5",
    "a=33 b=0; transfer a b 33 | posted | a=0 b=33",
    # An account without a limit pays fees too.
    "a=0,liability b=0; transfer a b 100 | posted | a=-102 b=100 fees=2",
    "a=0,liability b=0; transfer a b M | balance_overflow | a=0 b=0",
    "a=M,liability b=0; transfer a b M | balance_overflow",
    # An entry is never more than the greatest amount, however much room there is.
    "rules 1; a=-M,asset b=0; transfer a b M | balance_overflow | a=-M b=0",
    "rules 1; a=-M,asset b1=0; transfer a b1 M | balance_overflow | a=-M",
    "a=M,liability b1=0; transfer a b1 M | balance_overflow | a=M",
    "a=0,USD,liability b=0,USD; transfer a b 100 | posted | fees=2,USD fees=0",
]

OWNERS = [
    "a=100,owner:o b=0,owner:o; transfer a b 100 | posted | a=0 b=100 fees=0",
    "a=101,owner:o b=0,owner:o; transfer a b 100 | posted | a=1 fees=0",
    "a=102,owner:o b=0,owner:p; transfer a b 100 | posted | a=0 fees=2",
    "a=101,owner:o b=0,owner:p; transfer a b 100 | insufficient_funds",
    "a=102,owner:o b=0; transfer a b 100 | posted | a=0 fees=2",
    "a=102 b=0; transfer a b 100 | posted | fees=2",
    "a=102,owner:o b=0,owner:o,liability; transfer a b 100 | posted | a=0 fees=2",
    "a=0,owner:o,liability b=0,owner:o; transfer a b 100 | posted | a=-102 fees=2",
    "a=0,owner:o,liability b=0,owner:o,liability; transfer a b 100 | posted | fees=2",
    "a=M,owner:o b=0,owner:o; transfer a b M | posted | a=0 b=M",
]

CONDITIONS = [
    "a=200 b=0; transfer a b 100 leaves=98 | posted",
    "a=200 b=0; transfer a b 100 leaves=99 | condition_failed | a=200 b=0",
    "a=200 b=0; transfer a b 100 version=1 | posted",
    "a=200 b=0; transfer a b 100 version=0 | condition_failed",
]


@pytest.mark.parametrize("story", [*PLAIN, *FEES, *OWNERS, *CONDITIONS])
def test_story(story: str) -> None:
    stories.play(story)


@pytest.mark.parametrize(
    ("bps", "amount", "fee"),
    [
        (150, 33, 0),
        (150, 34, 1),
        (150, 100, 2),
        (150, 299, 4),
        (150, 300, 5),
        (50, 99, 0),
        (50, 100, 1),
        (1, 4_999, 0),
        (1, 5_000, 1),
        (1, 14_999, 1),
        (1, 15_000, 2),
        (3_333, 1, 0),
        (4_999, 1, 0),
        (5_000, 1, 1),
        (10_000, 7, 7),
        (0, 2**53 - 1, 0),
        (1, 2**53 - 1, 900_719_925_474),
        (10_000, 2**53 - 1, 2**53 - 1),
    ],
)
def test_the_fee_is_rounded_half_up(bps: int, amount: int, fee: int) -> None:
    assert plans.fee_of(amount, bps) == fee


def test_the_commission_is_a_setting() -> None:
    stories.play("a=9 b=0; transfer a b 1 | posted | a=7 fees=1", commission_bps=10_000)
    stories.play("a=M b=0; transfer a b M | posted | a=0 b=M fees=0", commission_bps=0)


def test_a_sender_with_its_fee_above_the_greatest_amount() -> None:
    """Without a limit nothing else says no: the amount and its fee are one entry."""
    stage = stories.play("a=M,liability b=0; transfer a b M | balance_overflow", commission_bps=1)
    stage.play("configure 0 commission_bps=0 | configured; transfer a b M | posted")


def test_three_entries_and_what_the_transaction_recorded() -> None:
    stage = stories.play("a=1000 b=0; transfer a b 100 key=t")
    a, b = builders.account_id("a"), builders.account_id("b")
    fees = "system:fees:NGN:0"
    record = stage.last[-1].record
    assert record.entries == (
        journal.Entry(a, "debit", 102, 898, 2),
        journal.Entry(b, "credit", 100, 100, 1),
        journal.Entry(fees, "credit", 2, "2", 1),
    )
    assert (record.fee, record.commission_bps, record.settings_version) == (2, 150, 1)
    kept = stage.transaction("a", "t")
    assert (kept.fee, kept.commission_bps, len(kept.entries)) == (2, 150, 3)


@pytest.mark.parametrize(
    "story",
    [
        "a=1000 b=0; transfer a b 33",
        "a=1000,owner:o b=0,owner:o; transfer a b 100",
        "a=1000 b=0; configure 0 commission_bps=0; transfer a b 100",
    ],
)
def test_without_a_fee_there_are_two_entries_and_no_rate(story: str) -> None:
    record = stories.play(story).last[-1].record
    assert len(record.entries) == 2
    assert (record.fee, record.commission_bps) == (0, 0)
