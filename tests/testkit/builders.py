"""Small builders: accounts by letter, amounts by shorthand, commands by a line of words.

`transfer a b1 100 key=k leaves=5` is a command as a producer would write it, before it is JSON.
Knows nothing of what becomes of it.
"""

import itertools
import re
from functools import cache
from typing import Any

from schemas import ids, money
from schemas.partitioning import partition_of

PARTITIONS = 3
START_MS = 1_750_000_000_000
MAX = money.MAX_AMOUNT
ACCOUNT_TYPES = ("wallet", "asset", "liability", "equity", "revenue", "expense")

Words = list[str]
Body = dict[str, Any]


@cache
def account_id(name: str) -> str:
    """`a` is an account of partition 0, `a1` of 1, `a2` of 2; a name with a colon is meant
    literally.
    """
    if ":" in name:
        return name
    wanted = int(name[-1]) if name[-1].isdigit() else 0
    tries = itertools.chain((name,), (f"{name}-{n}" for n in itertools.count(1)))
    return next(id for id in tries if partition_of(id, PARTITIONS) == wanted)


def amount(text: str) -> int:
    """`25`, `-25`, or what is near the greatest amount: `M`, `M-1`."""
    match = re.fullmatch(r"(-?M)?([+-]?\d+)?", text)
    assert match and text, f"{text!r} is no amount"
    greatest = {None: 0, "M": MAX, "-M": -MAX}[match.group(1)]
    return greatest + int(match.group(2) or 0)


def funding(partition: int = 0, currency: str = "NGN") -> str:
    return ids.system_shard(ids.FUNDING, currency, partition)


# How the words of a step become a command


_KINDS = {"open": "open_account", "limit": "set_limit", "change": "change_account"}
_OPTIONS = {
    "key": "idempotency_key",
    "id": "id",
    "version": "expected_version",
    "leaves": "min_available_after",
    "in": "currency",
    "ref": "reference",
    "text": "description",
    "owner": "owner",
    "actor": "actor",
    "trace": "trace",
    "external": "external_id",
    "limit": "min_balance",
    "expires": "expires_at_ms",
    "to": "to",
}
_NUMBERS = {"version", "leaves", "limit"}


def _options(words: Words) -> Body:
    given: Body = {}
    for word in words:
        name, _, text = word.partition("=")
        if name in _NUMBERS:
            given[_OPTIONS[name]] = amount(text)
        elif name == "expires":
            given[_OPTIONS[name]] = START_MS + int(text)
        elif name == "to":
            given[_OPTIONS[name]] = account_id(text)
        elif name == "meta":
            given["metadata"] = dict(pair.split(":") for pair in text.split(","))
        else:
            given[_OPTIONS[name]] = text
    return given


def _post_entries(words: Words) -> list[Body]:
    """`debit a 5 credit b 5`; `funding` and `fees` are those of NGN."""
    named = {role: ids.system_name(role, "NGN") for role in (ids.FUNDING, ids.FEES)}
    return [
        {
            "account": named.get(words[n + 1]) or account_id(words[n + 1]),
            "direction": words[n],
            "amount": amount(words[n + 2]),
        }
        for n in range(0, len(words), 3)
    ]


def _arguments(verb: str, account: str, rest: Words) -> Body:
    match verb, rest:
        case "open", [type, currency]:
            return {"type": type, "currency": currency}
        case "limit", [least]:
            return {} if least == "none" else {"min_balance": amount(least)}
        case "change", ["nolimit"]:
            return {"no_limit": True}
        case (("credit" | "debit" | "hold"), [much]):
            return {"amount": amount(much)}
        case "transfer", [to, much]:
            return {"to": account_id(to), "amount": amount(much)}
        case "capture", [held, much]:
            return {"hold_id": transaction(account, held), "amount": amount(much)}
        case (("capture" | "void"), [held]):
            return {"hold_id": transaction(account, held)}
        case "reverse", [key]:
            return {"transaction_id": transaction(account, key)}
        case (("change" | "freeze" | "unfreeze" | "close"), []):
            return {}
    raise AssertionError(f"no step: {verb} {rest}")


def transaction(account: str, key: str) -> str:
    """The id of an account's transaction or hold; `b/key` is one of another account."""
    other, _, key = key.rpartition("/")
    return ids.transaction_id(account_id(other or account), key)


def command(step: str, key: str = "key") -> Body:
    verb, *words = step.split()
    plain = [word for word in words if "=" not in word]
    body: Body = {"kind": _KINDS.get(verb, verb)}
    if verb == "post":
        entries = _post_entries(plain)
        ordinary = [e["account"] for e in entries if not ids.is_system(e["account"])]
        body |= {"account": min(ordinary, default="none"), "currency": "NGN", "entries": entries}
    else:
        account = plain[0]
        body |= {"account": account_id(account), **_arguments(verb, account, plain[1:])}
    body |= _options([word for word in words if "=" in word])
    if "idempotency_key" not in body and "id" not in body:
        body["idempotency_key"] = key
    return body
