"""Precedence: of several reasons that hold, the one that stands first in the catalogue is answered.

For each kind there is a good command, and the faults that it may have, each alone in what it
changes. Every two, and many threes, of those that can be had together are tried.
"""

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas import coordination, journal
from schemas.partitioning import partition_of
from schemas.reasons import CATALOGUE, NEVER_FROZEN, PRECEDENCE, Reason
from tests.testkit import builders, stories
from tests.testkit.builders import MAX, START_MS, Body
from tests.testkit.stories import Stage

Changes = dict[str, Any]


@dataclass(frozen=True)
class Fault:
    """What makes a reason hold: changes of the command, of its accounts, of what went before."""

    reason: Reason
    command: Changes = field(default_factory=dict)
    a: Changes = field(default_factory=dict)
    b: Changes = field(default_factory=dict)
    c: Changes = field(default_factory=dict)
    send: Changes = field(default_factory=dict)
    settings: dict[str, int] = field(default_factory=dict)
    then: str = ""
    # What else it needs for itself alone.
    takes: tuple[str, ...] = ()

    def changes(self) -> set[str]:
        parts = ("command", "a", "b", "c", "send", "settings")
        return set(self.takes) | {f"{p}.{name}" for p in parts for name in getattr(self, p)}

    def goes_with(self, other: "Fault") -> bool:
        mine, others = self.changes(), other.changes()
        for account in "abc":
            touched = [any(n.startswith(f"{account}.") for n in each) for each in (mine, others)]
            if all(touched) and f"{account}.open" in mine | others:
                return False
        return self.reason is not other.reason and not mine & others

    @property
    def name(self) -> str:
        name = ",".join(sorted(self.changes())) or self.then
        return f"{self.reason}({name})"


@dataclass(frozen=True)
class Kind:
    """A good command of accounts `a`, `b`, `c` after what went before, and what may be wrong."""

    command: str
    accounts: dict[str, Changes]
    faults: tuple[Fault, ...]
    before: str = ""
    # The names of the stories: `b1` for an account elsewhere.
    names: dict[str, str] = field(default_factory=dict)
    expected: str = "posted"


def _reason_of(kind: Kind, faults: tuple[Fault, ...]) -> str:
    settings = {name: value for fault in faults for name, value in fault.settings.items()}
    stage = Stage(**settings)
    accounts = {
        letter: {"balance": 0, **given}
        | {k: v for f in faults for k, v in getattr(f, letter, {}).items()}
        for letter, given in kind.accounts.items()
    }
    named = {letter: kind.names.get(letter, letter) for letter in accounts}
    for letter, given in accounts.items():
        if given.get("open", True):
            _open(stage, named[letter], given)
    for line in (kind.before, *(fault.then for fault in faults)):
        for step in filter(None, map(str.strip, line.split(";"))):
            _try(stage, step)
    for letter, given in accounts.items():
        if given.get("open", True) and "status" in given:
            _set_status(stage, named[letter], given["status"])
    body = builders.command(kind.command, "the key")
    for fault in faults:
        body |= fault.command
    send = {name: value for fault in faults for name, value in fault.send.items()}
    if "entries" in body:
        body["entries"] = _entries(body)
    return _word(stage, body, send)


def _open(stage: Stage, name: str, given: Changes) -> None:
    options = [f"{option}:{given[option]}" for option in ("owner", "limit") if option in given]
    parts = [str(given["balance"]), given.get("type", "wallet"), given.get("currency", "NGN")]
    stage.play(f"{name}={','.join([*parts, *options])}")


def _try(stage: Stage, step: str) -> None:
    """What went before, as far as the faults let it."""
    if step.startswith(("wait", "all")):
        stage.play(step)
    else:
        stage.send(builders.command(step, f"before {next(stage.keys)}"))


def _set_status(stage: Stage, name: str, status: str) -> None:
    if status == "closed":
        balance = stage.account(name).balance
        if balance:
            stage.play(f"debit {name} {balance}")
    stage.play(f"{ {'closed': 'close', 'frozen': 'freeze'}[status] } {name}")


def _entries(body: Body) -> list[Body]:
    """A post's entries with what faults changed in each of them (`0.amount`) or of them all."""
    entries: list[Body] = body["entries"]
    for name in [name for name in body if name[0].isdigit()]:
        index, _, part = name.partition(".")
        entries[int(index)][part] = body.pop(name)
    more, keep = body.pop("more", 0), body.pop("keep", len(entries))
    extra = [{"account": f"z-{n}", "direction": "credit", "amount": 1} for n in range(more)]
    return entries[:keep] + extra


def _word(stage: Stage, body: Body, send: Changes) -> str:
    if send.get("reused"):
        # Owns the key with another body, and changes nothing.
        hold_id = "00000000-0000-5000-8000-000000000000"
        stage.send(
            {
                "kind": "void",
                "account": body["account"],
                "idempotency_key": "the key",
                "hold_id": hold_id,
                "wallets_only": body.get("wallets_only"),
            }
        )
    key = b"another" if send.get("misrouted") else body["account"].encode()
    value = json.dumps(body).encode() + b" " * send.get("padding", 0)
    partition = partition_of(body["account"], builders.PARTITIONS)
    record = stage.send(value, key=key, partition=partition)[-1].record
    if record.reason is not None:
        assert (record.reason in NEVER_FROZEN) is (record.step == "refused")
    return str(record.reason or record.step)


# The faults


R = Reason
ANY = (
    Fault(R.TOO_LARGE, send={"padding": 70_000}),
    Fault(R.MALFORMED, command={"reference": 5}),
    Fault(R.UNKNOWN_FIELD, command={"surprise": 1}),
    Fault(R.TIME_OUT_OF_RANGE, command={"effective_at_ms": 1}),
    Fault(R.MISROUTED, send={"misrouted": True}),
    Fault(R.IDEMPOTENCY_KEY_REUSED, send={"reused": True}),
    Fault(R.SYSTEM_ACCOUNT, command={"account": "system:funding:NGN"}),
    Fault(R.ACCOUNT_NOT_FOUND, a={"open": False}),
    Fault(R.CONDITION_FAILED, command={"expected_version": 77}),
    Fault(R.CONDITION_FAILED, command={"min_available_after": MAX}),
)
AMOUNT = Fault(R.AMOUNT_INVALID, command={"amount": 0})
CURRENCY_UNKNOWN = Fault(R.CURRENCY_UNKNOWN, command={"currency": "XXX"})
CURRENCY_MISMATCH = Fault(R.CURRENCY_MISMATCH, command={"currency": "USD"})
A_CLOSED = Fault(R.ACCOUNT_CLOSED, a={"status": "closed", "balance": 0})
A_FROZEN = Fault(R.ACCOUNT_FROZEN, a={"status": "frozen"})
A_POOR = Fault(R.INSUFFICIENT_FUNDS, a={"balance": 0})
B_ABSENT = Fault(R.ACCOUNT_NOT_FOUND, b={"open": False})
B_CLOSED = Fault(R.ACCOUNT_CLOSED, b={"status": "closed", "balance": 0})
B_FROZEN = Fault(R.ACCOUNT_FROZEN, b={"status": "frozen"})
B_USD = Fault(R.CURRENCY_MISMATCH, b={"currency": "USD"})
B_FULL = Fault(R.BALANCE_OVERFLOW, b={"balance": MAX})
RULES_1 = {"rules_version": 1}
B_LOW = Fault(R.INSUFFICIENT_FUNDS, b={"type": "asset", "limit": 0, "balance": 0}, settings=RULES_1)
A_NO_WALLET = Fault(
    R.ACCOUNT_TYPE_NOT_ALLOWED, command={"wallets_only": True}, a={"type": "liability"}
)
B_NO_WALLET = Fault(
    R.ACCOUNT_TYPE_NOT_ALLOWED, command={"wallets_only": True}, b={"type": "revenue"}
)
# Of the second version of the rules.
A_ASSET = Fault(R.ACCOUNT_TYPE_NOT_ALLOWED, a={"type": "asset"}, takes=("settings.rules_version",))
B_EXPENSE = Fault(
    R.ACCOUNT_TYPE_NOT_ALLOWED, b={"type": "expense"}, takes=("settings.rules_version",)
)
TO_SYSTEM = Fault(R.SYSTEM_ACCOUNT, command={"to": "system:fees:NGN"})
TO_SELF = Fault(R.SELF_TRANSFER, command={"to": builders.account_id("a")})
OF_ENTRIES = (A_CLOSED, A_FROZEN, A_POOR, B_ABSENT, B_CLOSED, B_FROZEN, B_USD, B_FULL, B_LOW)
TOO_MANY_PENDING = Fault(
    R.TOO_MANY_PENDING, settings={"max_pending": 1}, then="credit f 9; transfer f b1 1"
)

HOLD_CLOSED = Fault(R.HOLD_CLOSED, then="void a h key=v", takes=("hold",))
HOLD_BUSY = Fault(R.HOLD_BUSY, then="capture a h 1 to=x1 key=busy", takes=("hold",))
HOLD_EXPIRED = Fault(R.HOLD_EXPIRED, then="wait 1000", takes=("hold",))
EXCEEDS = Fault(R.CAPTURE_EXCEEDS_HOLD, command={"amount": 61})

OPENED = {"a": {"open": False}, "f": {}}
RICH = {"a": {"balance": 1000}, "b": {}, "f": {}}

KINDS = {
    "open_account": Kind(
        "open a wallet NGN",
        {"a": {"open": False}},
        (
            *(f for f in ANY if not f.a),
            CURRENCY_UNKNOWN,
            Fault(R.MALFORMED, command={"type": "purse"}),
            Fault(R.LIMIT_OUT_OF_BOUNDS, command={"min_balance": 1}),
            Fault(
                R.LIMIT_OUT_OF_BOUNDS,
                command={"min_balance": -100_000_001},
                takes=("command.type",),
            ),
            Fault(R.ACCOUNT_EXISTS, a={"open": True}),
            Fault(R.ACCOUNT_TYPE_NOT_ALLOWED, command={"wallets_only": True, "type": "asset"}),
        ),
    ),
    "set_limit": Kind(
        "limit a -50",
        {"a": {"balance": 0}},
        (
            *ANY,
            Fault(R.LIMIT_OUT_OF_BOUNDS, command={"min_balance": 1}),
            Fault(
                R.LIMIT_OUT_OF_BOUNDS, command={"min_balance": -100_000_001}, a={"type": "wallet"}
            ),
            A_CLOSED,
            Fault(R.INSUFFICIENT_FUNDS, a={"balance": -60, "limit": -60}),
            A_NO_WALLET,
        ),
    ),
    "change_account": Kind(
        "change a limit=-50 meta=name:Ada",
        {"a": {"balance": 0}},
        (
            *ANY,
            Fault(R.LIMIT_OUT_OF_BOUNDS, command={"min_balance": 1}),
            Fault(
                R.LIMIT_OUT_OF_BOUNDS, command={"min_balance": -100_000_001}, a={"type": "wallet"}
            ),
            Fault(R.LIMIT_OUT_OF_BOUNDS, command={"no_limit": True}),
            A_CLOSED,
            Fault(R.METADATA_TOO_LARGE, command={"metadata": {"name": "x" * 4_080}}),
            Fault(R.INSUFFICIENT_FUNDS, a={"balance": -60, "limit": -60}),
            A_NO_WALLET,
        ),
        before="change a meta=colour:red,note:n",
    ),
    "credit": Kind(
        "credit a 5",
        {"a": {"balance": 0}},
        (
            *ANY,
            AMOUNT,
            CURRENCY_UNKNOWN,
            CURRENCY_MISMATCH,
            A_CLOSED,
            A_FROZEN,
            Fault(R.BALANCE_OVERFLOW, a={"balance": MAX}),
            Fault(
                R.INSUFFICIENT_FUNDS,
                a={"type": "asset", "limit": 0, "balance": 0},
                settings=RULES_1,
            ),
            A_NO_WALLET,
            A_ASSET,
        ),
    ),
    "debit": Kind(
        "debit a 5",
        {"a": {"balance": 9}},
        (
            *ANY,
            AMOUNT,
            CURRENCY_UNKNOWN,
            CURRENCY_MISMATCH,
            A_CLOSED,
            A_FROZEN,
            A_POOR,
            Fault(R.BALANCE_OVERFLOW, a={"balance": -MAX, "type": "liability"}),
            A_NO_WALLET,
            A_ASSET,
        ),
    ),
    "transfer": Kind(
        "transfer a b 100",
        RICH,
        (
            *ANY,
            AMOUNT,
            CURRENCY_UNKNOWN,
            CURRENCY_MISMATCH,
            TO_SYSTEM,
            TO_SELF,
            *OF_ENTRIES,
            A_NO_WALLET,
            A_ASSET,
            B_NO_WALLET,
            B_EXPENSE,
        ),
    ),
    "transfer to another partition": Kind(
        "transfer a b1 100",
        RICH,
        (
            *ANY,
            AMOUNT,
            CURRENCY_UNKNOWN,
            CURRENCY_MISMATCH,
            TO_SYSTEM,
            A_CLOSED,
            A_FROZEN,
            A_POOR,
            Fault(
                R.BALANCE_OVERFLOW,
                a={"type": "liability", "balance": -MAX},
            ),
            TOO_MANY_PENDING,
            A_NO_WALLET,
            A_ASSET,
        ),
        names={"b": "b1"},
        expected="pending",
    ),
    "post": Kind(
        "post debit a 100 credit b 60 credit c 40",
        {"a": {"balance": 1000}, "b": {}, "c": {}},
        (
            *(f for f in ANY if "account" not in f.command),
            CURRENCY_UNKNOWN,
            CURRENCY_MISMATCH,
            Fault(R.AMOUNT_INVALID, command={"0.amount": 0}),
            Fault(R.UNKNOWN_FIELD, command={"0.surprise": 1}),
            Fault(R.MISROUTED, command={"account": builders.account_id("b")}),
            Fault(R.SYSTEM_ACCOUNT, command={"2.account": "system:transit:NGN"}),
            Fault(R.TOO_FEW_ENTRIES, command={"keep": 1, "2.account": "z"}),
            Fault(R.TOO_MANY_ENTRIES, command={"more": 98}, takes=("command.keep",)),
            Fault(R.DUPLICATE_ACCOUNT, command={"1.account": builders.account_id("a")}),
            Fault(R.UNBALANCED, command={"0.amount": 101}),
            Fault(
                R.CURRENCY_MISMATCH,
                command={"2.account": "system:fees:USD"},
                takes=("c.open", "c.status", "c.balance"),
            ),
            Fault(R.ACCOUNT_NOT_FOUND, c={"open": False}),
            Fault(R.ACCOUNT_CLOSED, c={"status": "closed", "balance": 0}),
            Fault(R.ACCOUNT_FROZEN, c={"status": "frozen"}),
            *OF_ENTRIES,
            A_NO_WALLET,
            B_NO_WALLET,
            Fault(
                R.ACCOUNT_TYPE_NOT_ALLOWED,
                command={"2.account": "system:fees:NGN", "wallets_only": True},
                takes=("c.open", "c.status", "c.balance"),
            ),
        ),
    ),
    "hold": Kind(
        "hold a 100",
        {"a": {"balance": 1000}},
        (
            *ANY,
            AMOUNT,
            CURRENCY_UNKNOWN,
            CURRENCY_MISMATCH,
            A_CLOSED,
            A_FROZEN,
            A_POOR,
            Fault(R.TIME_OUT_OF_RANGE, command={"expires_at_ms": 1}),
            Fault(R.HOLD_EXPIRED, command={"expires_at_ms": START_MS}),
            Fault(R.BALANCE_OVERFLOW, a={"type": "asset", "balance": MAX}, settings=RULES_1),
            A_NO_WALLET,
            A_ASSET,
        ),
    ),
    "capture": Kind(
        "capture a h 20 to=b",
        RICH,
        (
            *(f for f in ANY if not f.a),
            AMOUNT,
            TO_SYSTEM,
            TO_SELF,
            Fault(
                R.HOLD_NOT_FOUND,
                command={"hold_id": builders.transaction("a", "none")},
                # There are then no entries to test, so no account of theirs is not found.
                takes=("b.open", "hold"),
            ),
            HOLD_CLOSED,
            HOLD_BUSY,
            HOLD_EXPIRED,
            EXCEEDS,
            A_FROZEN,
            *(fault for fault in OF_ENTRIES if fault.b),
            A_NO_WALLET,
            B_NO_WALLET,
            B_EXPENSE,
        ),
        before="hold a 60 key=h expires=1000",
    ),
    "capture to another partition": Kind(
        "capture a h 20 to=b1",
        RICH,
        (
            *(f for f in ANY if not f.a),
            TO_SYSTEM,
            HOLD_CLOSED,
            HOLD_BUSY,
            HOLD_EXPIRED,
            EXCEEDS,
            A_FROZEN,
            TOO_MANY_PENDING,
            A_NO_WALLET,
        ),
        before="hold a 60 key=h expires=1000",
        names={"b": "b1"},
        expected="pending",
    ),
    "void": Kind(
        "void a h",
        RICH,
        (
            *ANY,
            Fault(R.HOLD_NOT_FOUND, command={"hold_id": builders.transaction("a", "none")}),
            HOLD_CLOSED,
            HOLD_BUSY,
            HOLD_EXPIRED,
            A_NO_WALLET,
        ),
        before="hold a 60 key=h expires=1000",
    ),
    "reverse": Kind(
        "reverse a t",
        RICH,
        (
            *ANY,
            Fault(
                R.TRANSACTION_NOT_FOUND,
                command={"transaction_id": builders.transaction("a", "none")},
            ),
            Fault(
                R.NOT_REVERSIBLE,
                command={"transaction_id": builders.transaction("a", "hold")},
                then="hold a 1 key=hold",
                # There are then no entries to test.
                takes=("a.status", "b.status", "a.type", "b.type"),
            ),
            Fault(R.ALREADY_REVERSED, then="reverse a t key=r"),
            Fault(R.INSUFFICIENT_FUNDS, then="debit b 1"),
            Fault(R.BALANCE_OVERFLOW, then=f"credit a {MAX - 898}", takes=("a.balance",)),
            A_FROZEN,
            B_FROZEN,
            Fault(R.ACCOUNT_CLOSED, b={"status": "closed"}),
            A_NO_WALLET,
            B_NO_WALLET,
        ),
        before="transfer a b 100 key=t",
    ),
    "reverse in another partition": Kind(
        "reverse a t",
        RICH,
        (
            *ANY,
            Fault(R.REVERSAL_PENDING, then="reverse a t key=r"),
            Fault(R.BALANCE_OVERFLOW, then=f"credit a {MAX - 898}", takes=("a.balance",)),
            A_FROZEN,
            TOO_MANY_PENDING,
            A_NO_WALLET,
        ),
        before="transfer a b1 100 key=t; all",
        names={"b": "b1"},
        expected="pending",
    ),
    "freeze": Kind("freeze a", {"a": {"balance": 0}}, (*ANY, A_CLOSED, A_NO_WALLET)),
    "unfreeze": Kind("unfreeze a", {"a": {"balance": 0}}, (*ANY, A_CLOSED, A_NO_WALLET)),
    "close": Kind(
        "close a",
        {"a": {"balance": 0}},
        (*ANY, A_CLOSED, A_NO_WALLET, Fault(R.ACCOUNT_NOT_EMPTY, a={"balance": 5})),
    ),
}

PAIRS = [
    pytest.param(name, pair, id=f"{name}: {pair[0].name} {pair[1].name}")
    for name, kind in KINDS.items()
    for pair in itertools.combinations(kind.faults, 2)
    if pair[0].goes_with(pair[1])
]


def _first(faults: tuple[Fault, ...]) -> Reason:
    return min((fault.reason for fault in faults), key=PRECEDENCE.__getitem__)


@pytest.mark.parametrize("name", KINDS)
def test_without_a_fault_nothing_is_refused(name: str) -> None:
    assert _reason_of(KINDS[name], ()) == KINDS[name].expected


@pytest.mark.parametrize(
    ("name", "fault"),
    [pytest.param(n, f, id=f"{n}: {f.name}") for n, kind in KINDS.items() for f in kind.faults],
)
def test_each_fault_alone(name: str, fault: Fault) -> None:
    assert _reason_of(KINDS[name], (fault,)) == fault.reason


@pytest.mark.parametrize(("name", "pair"), PAIRS)
def test_of_two_the_first_in_the_catalogue(name: str, pair: tuple[Fault, Fault]) -> None:
    assert _reason_of(KINDS[name], pair) == _first(pair)


@pytest.mark.parametrize("name", KINDS)
def test_of_three_the_first_in_the_catalogue(name: str) -> None:
    kind = KINDS[name]
    threes = [
        three
        for three in itertools.combinations(kind.faults, 3)
        if all(one.goes_with(other) for one, other in itertools.combinations(three, 2))
    ]
    # Spread over all of them.
    for three in threes[:: max(1, len(threes) // 60)]:
        name = " ".join(fault.name for fault in three)
        assert _reason_of(kind, three) == _first(three), name


def test_every_reason_but_the_late_ones_is_a_fault_of_some_kind() -> None:
    covered = {fault.reason for kind in KINDS.values() for fault in kind.faults}
    # Covered by the tests of command validation and of the deadline.
    assert set(CATALOGUE) - covered == {R.SCHEMA_UNKNOWN, R.PARTICIPANT_TIMEOUT}


# What other partitions refuse

REFUSALS: dict[Reason, str] = {
    R.ACCOUNT_NOT_FOUND: "",
    R.ACCOUNT_CLOSED: "{}=0,closed",
    R.ACCOUNT_FROZEN: "{}=0,frozen",
    R.ACCOUNT_TYPE_NOT_ALLOWED: "{}=0,liability",
    R.CURRENCY_MISMATCH: "{}=0,USD",
    R.INSUFFICIENT_FUNDS: "{}=0,asset,limit:0",
    R.BALANCE_OVERFLOW: "{}=M",
}
# An entry that pays into an account cannot lack funds if only wallets are allowed.
REFUSED_PAIRS = [
    pair
    for pair in itertools.permutations(REFUSALS, 2)
    if set(pair) != {R.ACCOUNT_TYPE_NOT_ALLOWED, R.INSUFFICIENT_FUNDS}
]


def _post(stage: Stage, entries: str, *, wallets_only: bool) -> None:
    body = builders.command(f"post {entries}", "the key") | {"wallets_only": wallets_only}
    assert stage.send(body)[-1].record.step == "pending"


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("places", [("b1", "c2"), ("c2", "b1")])
@pytest.mark.parametrize("pair", REFUSED_PAIRS)
def test_of_two_partitions_the_first_reason_whoever_answers_first(
    pair: tuple[Reason, Reason], places: tuple[str, str], first: int
) -> None:
    stage = stories.play("a=9")
    for reason, name in zip(pair, places, strict=True):
        stage.play(REFUSALS[reason].format(name))
    only = R.ACCOUNT_TYPE_NOT_ALLOWED in pair
    entries = f"debit a 5 credit {places[0]} 2 credit {places[1]} 3"
    _post(stage, entries, wallets_only=only)
    stage.deliver(first)
    stage.play("deliver 0 | answered")
    stage.deliver(3 - first)
    stage.play(f"deliver 0 | {min(pair, key=PRECEDENCE.__getitem__)} | a=9; all")


@pytest.mark.parametrize("pair", REFUSED_PAIRS)
def test_of_two_entries_in_one_partition_the_first_reason(pair: tuple[Reason, Reason]) -> None:
    stage = stories.play("a=9")
    for reason, name in zip(pair, ("b1", "c1"), strict=True):
        stage.play(REFUSALS[reason].format(name))
    expected = min(pair, key=PRECEDENCE.__getitem__)
    only = R.ACCOUNT_TYPE_NOT_ALLOWED in pair
    _post(stage, "debit a 5 credit b1 2 credit c1 3", wallets_only=only)
    stage.play(f"deliver 1 | declined:{expected}")
    refused = stage.last[-1].messages[0][1]
    assert isinstance(refused, coordination.Refused)
    assert (refused.reason, refused.index) == (expected, 1 + pair.index(expected))
    stage.play(f"deliver 0 | {expected}")


def test_of_the_same_reason_the_least_entry_is_noted_whoever_answers_first() -> None:
    stage = stories.play("a=9; post debit a 5 credit c2 2 credit b1 3 | pending")
    stage.play("deliver 1; deliver 0 | answered")
    pending = stage.last[-1].record.pending
    assert pending is not None
    assert pending.refusals == (journal.ParticipantRefusal(1, R.ACCOUNT_NOT_FOUND, 2),)
    stage.play("deliver 2; deliver 0 | account_not_found")


def test_the_deadline_comes_before_what_was_refused_so_far() -> None:
    stories.play(
        "a=9; post debit a 5 credit c2 2 credit b1 3 | pending; deliver 1; deliver 0 | answered; "
        "wait 60000; tick 0 | participant_timeout ticked"
    )


def test_reasons_about_the_command_come_before_reasons_about_entries() -> None:
    stories.play("a=9; hold a 5 key=h; capture a none to=b | hold_not_found")
    stories.play("a=9 b=0,frozen; hold a 5 key=h; freeze a; capture a none to=b | hold_not_found")
    stories.play("a=9,frozen; reverse a none | transaction_not_found")


def test_the_catalogue_is_in_the_order_of_the_page() -> None:
    assert list(CATALOGUE) == list(Reason)
    assert [PRECEDENCE[reason] for reason in Reason] == list(range(1, len(Reason) + 1))
