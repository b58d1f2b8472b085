"""Open, limit, change, freeze, unfreeze, close. One line a case, in the notation of
`stories.play`.
"""

import pytest

from tests.testkit import builders, stories

OPENING = [
    "open a wallet NGN | posted | a=0,v:0",
    "open a asset USD | posted | a=0",
    "open a wallet JPY owner=ada meta=a:b | posted | a=0",
    "open a wallet XXX | currency_unknown",
    "open a wallet ngn | currency_unknown",
    "open a wallet NGN limit=1 | limit_out_of_bounds",
    "open a asset NGN limit=1 | limit_out_of_bounds",
    "open a wallet NGN limit=0 | posted",
    "open a wallet NGN limit=-100000000 | posted",
    "open a wallet NGN limit=-100000001 | limit_out_of_bounds",
    "open a liability NGN limit=-100000001 | posted",
    "open a revenue NGN limit=-M | posted",
    "open system:funding:NGN wallet NGN | system_account",
    "open system:fees:NGN:0 revenue NGN | system_account",
    "open system: revenue NGN | system_account",
    "open a wallet NGN version=0 leaves=0 | posted",
    "open a wallet NGN version=1 | condition_failed; open a wallet NGN | posted",
    "open a wallet NGN leaves=1 | condition_failed",
    "open a wallet NGN leaves=-1 | posted",
    "a=5; open a wallet NGN | account_exists | a=5",
    "a=5; open a wallet USD limit=-3 | account_exists | a=5",
    "a=0,closed; open a wallet NGN | account_exists | a=0,closed",
    # What was rejected is not opened, and its id is free for another command.
    "open a wallet NGN limit=1 | limit_out_of_bounds; credit a 1 | account_not_found",
    "open a wallet NGN limit=1 | limit_out_of_bounds; open a wallet NGN | posted",
]

LIMITS = [
    "a=0; limit a -50; debit a 50 | posted | a=-50; debit a 1 | insufficient_funds",
    "a=0; limit a -50; debit a 51 | insufficient_funds | a=0",
    "a=0; limit a 0 | posted",
    "a=0; limit a 1 | limit_out_of_bounds",
    "a=100; limit a 1 | limit_out_of_bounds",
    "a=0; limit a -100000000 | posted",
    "a=0; limit a -100000001 | limit_out_of_bounds",
    "a=0; limit a none | limit_out_of_bounds",
    "a=0,liability; limit a none | posted; debit a M | posted | a=-M",
    "a=0,liability; limit a -M; limit a -100000001 | posted",
    "rules 1; a=0,asset; limit a 0; credit a 1 | insufficient_funds; debit a 1 | posted | a=1",
    "a=-50,limit:-50; limit a -50 | posted",
    "a=-50,limit:-50; limit a -49 | insufficient_funds; limit a -60 | posted",
    "a=0,limit:-50; hold a 50; limit a 0 | insufficient_funds",
    "a=-5,liability; limit a -4 | insufficient_funds; limit a -5 | posted",
    "limit a -1 | account_not_found",
    "limit a 1 | limit_out_of_bounds",
    "limit system:fees:NGN 1 | system_account",
    "a=0,closed; limit a -1 | account_closed",
    "a=0,frozen; limit a -1 | posted | a=0,frozen",
    "a=3; limit a -1 version=1 leaves=3 | posted",
    "a=3; limit a -1 version=2 | condition_failed",
    "a=3; limit a -1 leaves=4 | condition_failed",
]

CHANGES = [
    "a=0; change a limit=-50; debit a 50 | posted | a=-50; debit a 1 | insufficient_funds",
    "a=0,limit:-50; change a meta=b:c; debit a 50 | posted | a=-50",
    "a=0; change a | posted | a=0,v:0",
    "a=0; change a limit=1 | limit_out_of_bounds",
    "a=0; change a limit=-100000001 | limit_out_of_bounds",
    "a=0; change a nolimit | limit_out_of_bounds",
    "a=0,liability; change a nolimit limit=0 | limit_out_of_bounds",
    "rules 1; a=0,asset,limit:0; change a nolimit; credit a 5 | posted | a=-5",
    "a=0,liability; change a limit=-5; debit a 6 | insufficient_funds",
    "a=-50,limit:-50; change a limit=-49 | insufficient_funds; change a limit=-50 | posted",
    "a=0,limit:-50; hold a 50; change a limit=0 | insufficient_funds; change a meta=b:c | posted",
    "change a meta=b:c | account_not_found",
    "change system:fees:NGN meta=b:c | system_account",
    "change system:fees:NGN limit=1 | system_account",
    "a=0,closed; change a meta=b:c | account_closed",
    "a=0,closed; change a limit=-1 | account_closed",
    "a=0,frozen; change a limit=-1 meta=b:c | posted | a=0,frozen",
    "a=3; change a meta=b:c version=1 leaves=3 | posted",
    "a=3; change a meta=b:c version=2 | condition_failed",
    "a=3; change a meta=b:c leaves=4 | condition_failed",
    "a=3; change a meta=b:c key=k; change a meta=b:c key=k actor=x | replayed",
    "a=3; change a meta=b:c key=k; change a meta=b:d key=k | idempotency_key_reused",
]

STATUSES = [
    "a=5; freeze a | posted | a=5,v:1,frozen",
    "a=5; freeze a; freeze a | posted | a=5,frozen",
    "a=5; unfreeze a | posted | a=5",
    "a=5,frozen; unfreeze a | posted | a=5,v:1; debit a 5 | posted | a=0",
    "a=5; freeze a version=1 | posted | a=5,frozen",
    "a=5; freeze a version=0 | condition_failed | a=5",
    "a=5,frozen; unfreeze a leaves=6 | condition_failed | a=5,frozen",
    "freeze a | account_not_found",
    "unfreeze a | account_not_found",
    "close a | account_not_found",
    "freeze system:funding:NGN | system_account",
    "unfreeze system:funding:NGN | system_account",
    "close system:transit:NGN | system_account",
    "a=0,closed; freeze a | account_closed | a=0,closed",
    "a=0,closed; unfreeze a | account_closed | a=0,closed",
    "a=0,closed; close a | account_closed",
    # Frozen refuses what is new; voids and expiries go on.
    "a=5,frozen; credit a 1 | account_frozen",
    "a=5,frozen; debit a 1 | account_frozen",
    "a=5,frozen; hold a 1 | account_frozen",
    "a=500,frozen b=0; transfer a b 1 | account_frozen",
    "a=500 b=0,frozen; transfer a b 1 | account_frozen",
    "a=500 b=0,frozen; post debit a 1 credit b 1 | account_frozen",
    "a=5; hold a 5 key=h; freeze a; capture a h | account_frozen | a=5,held:5,frozen",
    "a=5; hold a 5 key=h; freeze a; void a h | posted | a=5,frozen a/h=voided",
    "a=5; hold a 5 key=h expires=9; freeze a; wait 9; tick 0 | expired ticked | a=5,frozen",
    "a=5; debit a 5 key=d; freeze a; reverse a d | account_frozen",
]

CLOSING = [
    "a=0; close a | posted | a=0,closed",
    "a=0,frozen; close a | posted | a=0,closed",
    "a=1; close a | account_not_empty | a=1",
    "a=-1,limit:-5; close a | account_not_empty",
    "a=0,limit:-5; hold a 1; close a | account_not_empty",
    "a=5; hold a 5 key=h; void a h; debit a 5; close a | posted",
    "a=5; hold a 5 key=h; capture a h; close a | posted",
    "rules 1; a=0,asset; hold a 1; close a | account_not_empty | a=0,in:1",
    "a=0; close a version=0 leaves=0 | posted",
    "a=0; close a version=1 | condition_failed | a=0",
    "a=1; debit a 1; close a version=2 | posted | a=0,v:2,closed",
    "a=0,closed; credit a 1 | account_closed",
    "a=0,closed; debit a 1 | account_closed",
    "a=0,closed; hold a 1 | account_closed",
    "a=9,limit:-1 b=0,closed; transfer a b 1 | account_closed",
    "a=0,closed b=9; post debit b 1 credit a 1 | account_closed",
    "a=5; debit a 5 key=d; close a; reverse a d | account_closed",
    # What another partition has reserved keeps an account open.
    "a=9 b1=0; transfer a b1 1 | pending; deliver 1 | prepared; close b1 | account_not_empty",
    "a=9 b1=0,limit:-5; post debit b1 1 credit a 1 | pending; deliver 1 | prepared; "
    "close b1 | account_not_empty",
]


@pytest.mark.parametrize("story", [*OPENING, *LIMITS, *CHANGES, *STATUSES, *CLOSING])
def test_story(story: str) -> None:
    stories.play(story)


@pytest.mark.parametrize("type", ["wallet", "liability", "equity", "revenue"])
def test_a_credit_raises_these(type: str) -> None:
    stories.play(f"a=5,{type}; credit a 2 | posted | a=7 funding=7; debit a 7 | posted | a=0")


@pytest.mark.parametrize("type", ["asset", "expense"])
def test_a_debit_raises_these(type: str) -> None:
    stories.play(
        f"rules 1; a=5,{type}; debit a 2 | posted | a=7 funding=-7; credit a 7 | posted | a=0"
    )


def test_a_wallet_s_limit_is_zero_and_another_account_has_none() -> None:
    stage = stories.play("a=0 b=0,asset c=0,wallet,limit:-7 d=0,equity,limit:0")
    limits = [stage.account(name).min_balance for name in "abcd"]
    assert limits == [0, None, -7, 0]


def test_an_opened_account_is_as_its_command_says() -> None:
    stage = stories.play("open a expense KWD owner=ada meta=colour:red limit=-5")
    account = stage.account("a")
    assert (account.type, account.currency, account.status) == ("expense", "KWD", "open")
    assert (account.owner, account.min_balance, account.version) == ("ada", -5, 0)
    assert account.metadata == {"colour": "red"}


def test_a_change_of_status_or_limit_keeps_everything_else() -> None:
    stage = stories.play("open a wallet NGN owner=ada meta=colour:red limit=-5; credit a 7")
    before = stage.account("a")
    stage.play("hold a 2; freeze a; limit a -9; unfreeze a")
    after = stage.account("a")
    assert (after.owner, after.metadata, after.type) == (before.owner, before.metadata, "wallet")
    assert (after.balance, after.held, after.version) == (7, 2, before.version)
    assert (after.status, after.min_balance) == ("open", -9)


def test_a_change_sets_what_it_gives_and_nothing_else() -> None:
    stage = stories.play("open a wallet NGN owner=ada meta=colour:red,empty: limit=-5; credit a 7")
    before = stage.account("a")
    stage.play("hold a 2; freeze a; change a meta=name:Ada,colour: limit=-9")
    after = stage.account("a")
    assert (after.metadata, after.min_balance) == ({"empty": "", "name": "Ada"}, -9)
    assert (after.owner, after.type, after.status) == (before.owner, "wallet", "frozen")
    assert (after.balance, after.held, after.version) == (7, 2, before.version)
    stage.play("change a meta=absent:,empty:,name:Bem | posted")
    assert stage.account("a").metadata == {"name": "Bem"}
    stage.play("change a limit=-10 | posted")
    assert (stage.account("a").metadata, stage.account("a").min_balance) == ({"name": "Bem"}, -10)


def test_a_change_is_whole_or_not_at_all() -> None:
    stage = stories.play("open a wallet NGN meta=colour:red")
    stage.play("change a meta=colour:blue limit=1 | limit_out_of_bounds")
    assert (stage.account("a").metadata, stage.account("a").min_balance) == ({"colour": "red"}, 0)


def test_metadata_has_room_for_4_096_bytes_in_all() -> None:
    stage = stories.play("a=0")
    for name in "bc":
        stage.play(f"change a meta={name}:{'x' * 2_047} | posted")
    stage.play("change a meta=d: | posted; change a meta=d:x | metadata_too_large")
    stage.play(f"change a meta=b:{'x' * 2_048} | metadata_too_large; change a limit=-1 | posted")
    stage.play("change a meta=b:,d:x | posted")
    assert stage.account("a").metadata == {"c": "x" * 2_047, "d": "x"}


def test_a_limit_from_before_a_narrower_bound_stays() -> None:
    stage = stories.play("a=0,limit:-50; configure 0 max_overdraft=9")
    stage.play("change a meta=b:c | posted; change a limit=-50 | limit_out_of_bounds")
    assert stage.account("a").min_balance == -50


def test_the_bound_of_limits_is_a_setting() -> None:
    stories.play(
        "open a wallet NGN limit=-11 | limit_out_of_bounds; open a wallet NGN limit=-10 | posted",
        max_overdraft=10,
    )


def test_the_journal_tells_what_the_account_is_now() -> None:
    stage = stories.play("a=5,owner:ada; freeze a")
    change = stage.last[-1].record.account
    assert change is not None
    assert (change.id, change.status, change.owner, change.min_balance) == (
        builders.account_id("a"),
        "frozen",
        "ada",
        0,
    )
    assert stage.last[-1].record.entries == ()
