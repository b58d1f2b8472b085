"""Short stories: commands that must come together to meet what single ones seldom meet.

Each is told by its commands alone, and may go wrong on the way like any others.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

Body = dict[str, Any]
LARGEST = 2**53 - 1


class Cast(NamedTuple):
    """Who plays: an account never heard of, an account without a limit, someone, and an owner."""

    new: str
    rich: str
    other: str
    owner: str | None


def spends_all(dice: random.Random, cast: Cast) -> list[Body]:
    """A wallet sends just what it has: it can pay its commission only if none is due."""
    amount = dice.randrange(40, 4_000)
    return [
        _opened(cast),
        {"kind": "credit", "account": cast.new, "amount": amount + dice.choice((0, 0, 0, 1, 3))},
        {"kind": "transfer", "account": cast.new, "to": cast.other, "amount": amount},
    ]


def closes_too_soon(dice: random.Random, cast: Cast) -> list[Body]:
    """An account is closed while money is on its way to it."""
    size = dice.randrange(1, 14)
    return [
        _opened(cast),
        {"kind": "transfer", "account": cast.rich, "to": cast.new, "amount": 9},
        *({"kind": "credit", "account": cast.new, "amount": 1} for _ in range(size)),
        {"kind": "debit", "account": cast.new, "amount": size},
        {"kind": "close", "account": cast.new},
    ]


def sends_too_much(dice: random.Random, cast: Cast) -> list[Body]:
    """With its commission the amount is out of range, though the balance that is left is not."""
    half = LARGEST // 2
    return [
        {"kind": "credit", "account": cast.rich, "amount": half},
        {"kind": "transfer", "account": cast.rich, "to": cast.other, "amount": LARGEST},
        {"kind": "debit", "account": cast.rich, "amount": half},
    ]


def limits_the_system(dice: random.Random, cast: Cast) -> list[Body]:
    return [{"kind": "set_limit", "account": "system:funding:NGN", "min_balance": 1}]


def frees_what_is_held(dice: random.Random, cast: Cast) -> list[Body]:
    """A wallet holds all it has; a limit, a hold and a debit beside it find nothing left."""
    amount = dice.randrange(10, 4_000)
    return [
        _opened(cast),
        {"kind": "credit", "account": cast.new, "amount": amount},
        {"kind": "hold", "account": cast.new, "amount": amount, "min_available_after": 0},
        {"kind": "hold", "account": cast.new, "amount": 1},
        {"kind": "debit", "account": cast.new, "amount": 1},
        {"kind": "close", "account": cast.new},
    ]


def lowers_its_limit(dice: random.Random, cast: Cast) -> list[Body]:
    """An overdraft is used, and is then taken away."""
    limit = dice.choice((-1_000, -40_000))
    return [
        _opened(cast),
        {"kind": "set_limit", "account": cast.new, "min_balance": limit},
        {"kind": "debit", "account": cast.new, "amount": -limit},
        {"kind": "set_limit", "account": cast.new, "min_balance": limit + 1},
        {"kind": "debit", "account": cast.new, "amount": 1},
    ]


def fills_up_its_metadata(dice: random.Random, cast: Cast) -> list[Body]:
    """An account fills up its metadata and then removes some of it."""
    text = "é" * dice.randrange(1_100, 1_900)
    change = {"kind": "change_account", "account": cast.new}
    return [
        {**_opened(cast), "metadata": {"first": text, "empty": ""}},
        {**change, "metadata": {"second": text}},
        {**change, "metadata": {"first": "", "second": text, "empty": ""}, "min_balance": -5},
        {"kind": "freeze", "account": cast.new},
        {**change, "metadata": {"third": "short"}, "no_limit": dice.random() < 0.3},
    ]


def _opened(cast: Cast) -> Body:
    command = {"kind": "open_account", "account": cast.new, "type": "wallet", "currency": "NGN"}
    return command if cast.owner is None else {**command, "owner": cast.owner}


STORIES: tuple[Callable[[random.Random, Cast], list[Body]], ...] = (
    spends_all,
    spends_all,
    closes_too_soon,
    sends_too_much,
    limits_the_system,
    frees_what_is_held,
    lowers_its_limit,
    fills_up_its_metadata,
)
