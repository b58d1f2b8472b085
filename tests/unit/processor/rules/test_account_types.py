"""Which types of account a command may use: by kind, by rules version, and for `wallets_only`."""

import pytest

from processor.rules.decision import Decision
from schemas import coordination, ids
from schemas.reasons import Reason
from tests.testkit import builders
from tests.testkit.builders import ACCOUNT_TYPES, PARTITIONS
from tests.testkit.stories import Stage, encode, play

NOT_ALLOWED = Reason.ACCOUNT_TYPE_NOT_ALLOWED
# By rules version: what each kind may do to an account of each type. `+` is allowed.
#                         wallet asset liability equity revenue expense
TABLES = {
    (1, False): """
        credit              +      +     +         +      +       +
        debit               +      +     +         +      +       +
        transfer            +      +     +         +      +       +
        transfer to         +      +     +         +      +       +
        post                +      +     +         +      +       +
        hold                +      +     +         +      +       +
        freeze              +      +     +         +      +       +
    """,
    (2, False): """
        credit              +      -     +         +      +       -
        debit               +      -     +         +      +       -
        transfer            +      -     +         +      +       -
        transfer to         +      -     +         +      +       -
        post                +      +     +         +      +       +
        hold                +      -     +         +      +       -
        freeze              +      +     +         +      +       +
    """,
    (1, True): """
        credit              +      -     -         -      -       -
        debit               +      -     -         -      -       -
        transfer            +      -     -         -      -       -
        transfer to         +      -     -         -      -       -
        post                +      -     -         -      -       -
        hold                +      -     -         -      -       -
        freeze              +      -     -         -      -       -
    """,
}
TABLES[2, True] = TABLES[1, True]
STEPS = {
    "credit": "credit x 5",
    "debit": "debit x 5",
    "transfer": "transfer x {other} 5",
    "transfer to": "transfer {other} x 5",
    "post": "post debit x 5 credit {other} 5",
    "hold": "hold x 5",
    "freeze": "freeze x",
}
CASES = [
    (version, only, name, type, allowed == "+")
    for (version, only), table in TABLES.items()
    for line in table.strip().splitlines()
    for name, *row in [line.rsplit(maxsplit=len(ACCOUNT_TYPES))]
    for type, allowed in zip(ACCOUNT_TYPES, row, strict=True)
]


def _send(stage: Stage, step: str, *, only: bool) -> Decision:
    body = builders.command(step, f"key-{next(stage.keys)}")
    if only:
        body["wallets_only"] = True
    return stage.send(body)[-1]


@pytest.mark.parametrize("other", ["o", "o1"], ids=["one partition", "two partitions"])
@pytest.mark.parametrize(("version", "only", "name", "type", "allowed"), CASES)
def test_types(version: int, only: bool, name: str, type: str, allowed: bool, other: str) -> None:
    stage = play(f"x=100,{type}; {other}=100", rules_version=version)
    step = STEPS[name.strip()].format(other=other)
    record = _send(stage, step, only=only).record
    for decision in stage.deliver_all():
        if decision.record.command is not None:
            record = decision.record
    assert (record.step, record.reason) == (
        ("posted", None) if allowed else ("rejected", NOT_ALLOWED)
    )
    if not allowed:
        stage.play(f"credit {other} 1 | posted | x=100 {other}=101")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("type", ACCOUNT_TYPES)
def test_opening_with_wallets_only(version: int, type: str) -> None:
    record = _send(Stage(rules_version=version), f"open x {type} NGN", only=True).record
    assert record.reason == (None if type == "wallet" else NOT_ALLOWED)


@pytest.mark.parametrize("other", ["o", "o1"], ids=["one partition", "two partitions"])
@pytest.mark.parametrize("type", ["asset", "expense"])
def test_a_hold_from_before_can_only_end(type: str, other: str) -> None:
    """Placed under version 1. Under version 2 it is not captured, only voided or expired."""
    stage = play(
        f"x=100,{type}; {other}=100; hold x 5 key=h; hold x 7 key=late", rules_version=1
    ).play("configure 0 rules_version=2; configure 1 rules_version=2")
    stage.play(
        f"""capture x h | account_type_not_allowed
            capture x h to={other} | account_type_not_allowed
            void x h | posted | x/h=voided
            wait 700000000
            tick 0 | expired ticked | x/late=expired x=100"""
    )


@pytest.mark.parametrize("receiver", ["x", "x1"], ids=["one partition", "two partitions"])
def test_a_capture_pays_no_debit_normal_account(receiver: str) -> None:
    stage = play(f"a=100; {receiver}=0,asset; hold a 40 key=h")
    record = _send(stage, f"capture a h to={receiver}", only=False).record
    if record.step == "pending":
        record = stage.deliver_all()[-1].record
    assert record.reason == NOT_ALLOWED
    stage.play("void a h | posted | a/h=voided a=100")


@pytest.mark.parametrize("kind", ["credit", "debit", "transfer", "transfer to", "capture"])
@pytest.mark.parametrize("other", ["o", "o1"], ids=["one partition", "two partitions"])
def test_what_was_posted_before_can_be_reversed(kind: str, other: str) -> None:
    account = other if kind == "transfer to" else "x"
    before = {
        "credit": "credit x 5 key=t",
        "debit": "debit x 5 key=t",
        "transfer": f"transfer x {other} 5 key=t",
        "transfer to": f"transfer {other} x 5 key=t",
        "capture": f"hold x 5 key=h; capture x h to={other} key=t",
    }[kind]
    stage = play(f"x=100,asset; {other}=100", rules_version=1, commission_bps=0)
    for step in before.split(";"):
        stage.play(f"{step} | {'pending' if other == 'o1' and other in step else 'posted'}; all")
    for partition in range(PARTITIONS):
        stage.play(f"configure {partition} rules_version=2")
    several = other == "o1" and kind not in ("credit", "debit")
    stage.play(f"reverse {account} t | {'pending' if several else 'posted'}; all")
    stage.play(f"credit {other} 1 | posted | x=100 {other}=101")


def test_wallets_only_names_no_system_account() -> None:
    stage = play("a=100")
    for account in ("funding", "fees"):
        record = _send(stage, f"post debit a 5 credit {account} 5", only=True).record
        assert record.reason == NOT_ALLOWED
        stage.play(f"post debit a 5 credit {account} 5 | posted")


def test_each_partition_goes_by_its_own_rules_version() -> None:
    stage = play("a=100; x1=0,asset", rules_version=1)
    stage.play("configure 1 rules_version=2; transfer a x1 5 | pending; deliver 1")
    stage.play("deliver 0 | account_type_not_allowed")
    stage = play("a=100; x1=0,asset; o1=0", rules_version=1, commission_bps=0)
    stage.play("transfer a x1 5 | pending")
    stage.play("configure 0 rules_version=2; all; credit o1 1 | posted | a=95 x1=-5")


def test_a_prepare_carries_wallets_only() -> None:
    stage = play("a=100; b1=0")
    prepare = _send(stage, "transfer a b1 5", only=True).messages[0][1]
    assert isinstance(prepare, coordination.Prepare)
    assert prepare.wallets_only
    assert b'"wallets_only":true' in encode(prepare)
    stage.deliver_all()
    prepare = _send(stage, "transfer a b1 5", only=False).messages[0][1]
    assert b"wallets_only" not in encode(prepare)


def test_configure_never_lowers_the_rules_version() -> None:
    stage = play("x=0,asset", rules_version=2)
    stage.play(
        "configure 0 rules_version=1 commission_bps=7; credit x 5 | account_type_not_allowed"
    )
    settings = stage.places[0].state.partition.settings
    assert settings is not None
    assert (settings.rules_version, settings.commission_bps) == (2, 7)


def test_users_and_everybody_else_have_key_spaces_of_their_own() -> None:
    stage = play("a=100; b=0", commission_bps=0)
    body = builders.command("transfer a b 5", "fee-2026-01")
    user = {**body, "wallets_only": True, "amount": 7}
    first = stage.send(user)[-1].record
    assert (first.step, first.transaction_id) == (
        "posted",
        ids.transaction_id(body["account"], "fee-2026-01", wallets_only=True),
    )
    second = stage.send(body)[-1].record
    assert (second.step, second.transaction_id) == (
        "posted",
        ids.transaction_id(body["account"], "fee-2026-01"),
    )
    assert stage.send(user)[-1].record.step == "replayed"
    # False is as absent: the same key space, the same body.
    again = stage.send({**body, "wallets_only": False})[-1].record
    assert (again.step, again.transaction_id) == ("replayed", second.transaction_id)
    stage.play("credit a 1 | posted | a=89 b=12")


def test_a_command_without_wallets_only_has_the_hash_that_it_had() -> None:
    record = play("a=100; b=0").send(builders.command("transfer a b 5", "k"))[-1].record
    assert record.body_hash == "6778179c58b5155db130cb78479fcb98"
