"""Command validation, as the naive model reads docs/rules.md: from a record's bytes to a plain
dictionary, or a reason.

Written from that page with the standard library's JSON alone; it must not know how `schemas`
decodes.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from schemas.reasons import Reason

Body = dict[str, Any]

LARGEST = 2**53 - 1
FIRST_MS, LAST_MS = 946_684_800_000, 7_289_654_399_999
ACCOUNT = re.compile(r"[A-Za-z0-9:_-]{1,64}", re.ASCII)
TRANSACTION = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
TYPES = ("wallet", "asset", "liability", "equity", "revenue", "expense")
FAR_OUT = 10**40
DEEPEST = 32

Test = Callable[[Any], bool]


def _text(shortest: int, longest: int) -> Test:
    return lambda value: isinstance(value, str) and shortest <= len(value) <= longest


def _whole(least: int, most: int) -> Test:
    return lambda value: type(value) is int and least <= value <= most


def _account(value: Any) -> bool:
    return isinstance(value, str) and ACCOUNT.fullmatch(value) is not None


def _transaction(value: Any) -> bool:
    return isinstance(value, str) and TRANSACTION.fullmatch(value) is not None


def _metadata(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(text, str) for text in value.values())
        and sum(len(key.encode()) + len(text.encode()) for key, text in value.items()) <= 4096
    )


def _entries(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 1000
        and all(
            isinstance(entry, dict)
            and entry.get("amount") is not None
            and _account(entry.get("account"))
            and entry.get("direction") in ("debit", "credit")
            for entry in value
        )
    )


def _any(value: Any) -> bool:
    """Amounts are judged after everything else; times by their type first, by their year later."""
    return True


LABEL, BALANCE, CURRENCY = _text(1, 200), _whole(-LARGEST, LARGEST), _text(1, 8)


def _time(value: Any) -> bool:
    return type(value) is int


COMMON: Mapping[str, Test] = {
    "kind": _any,
    "account": _account,
    "id": LABEL,
    "idempotency_key": LABEL,
    "reference": LABEL,
    "description": _text(0, 1000),
    "metadata": _metadata,
    "actor": LABEL,
    "trace": LABEL,
    "expected_version": _whole(0, LARGEST),
    "min_available_after": BALANCE,
    "effective_at_ms": _time,
    "external_id": LABEL,
    "wallets_only": lambda value: isinstance(value, bool),
}
OWN: Mapping[str, Mapping[str, Test]] = {
    "open_account": {
        "type": lambda value: value in TYPES,
        "currency": CURRENCY,
        "owner": _text(1, 64),
        "min_balance": BALANCE,
    },
    "set_limit": {"min_balance": BALANCE},
    "change_account": {
        "min_balance": BALANCE,
        "no_limit": lambda value: isinstance(value, bool),
    },
    "credit": {"amount": _any, "currency": CURRENCY},
    "debit": {"amount": _any, "currency": CURRENCY},
    "transfer": {"to": _account, "amount": _any, "currency": CURRENCY},
    "post": {"currency": CURRENCY, "entries": _entries},
    "hold": {"amount": _any, "currency": CURRENCY, "expires_at_ms": _time},
    "capture": {"hold_id": _transaction, "to": _account, "amount": _any},
    "void": {"hold_id": _transaction},
    "reverse": {"transaction_id": _transaction},
    "freeze": {},
    "unfreeze": {},
    "close": {},
}
FIELDS = {kind: {**COMMON, **own} for kind, own in OWN.items()}
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "open_account": ("account", "type", "currency"),
    "credit": ("account", "amount"),
    "debit": ("account", "amount"),
    "transfer": ("account", "to", "amount"),
    "post": ("account", "currency", "entries"),
    "hold": ("account", "amount"),
    "capture": ("account", "hold_id"),
    "void": ("account", "hold_id"),
    "reverse": ("account", "transaction_id"),
}
NULL_IS_NO_VALUE = {"metadata"}


def read(value: bytes) -> Reason | Body:
    """The command without its nulls, or why it cannot be read."""
    if len(value) > 65_536:
        return Reason.TOO_LARGE
    if value[:1] == b"\x00":
        return Reason.MALFORMED if len(value) < 5 else Reason.SCHEMA_UNKNOWN
    if value[:2] == b"\xc3\x01":
        return Reason.MALFORMED if len(value) < 10 else Reason.SCHEMA_UNKNOWN
    command = _json(value)
    if not isinstance(command, dict):
        return Reason.MALFORMED
    kind = command.get("kind")
    if not isinstance(kind, str) or kind not in FIELDS:
        return Reason.MALFORMED
    field_tests, required = FIELDS[kind], REQUIRED.get(kind, ("account",))
    if any(command.get(name) is None for name in required):
        return Reason.MALFORMED
    for name, given in command.items():
        if given is None and name not in NULL_IS_NO_VALUE:
            continue
        if name in field_tests and not field_tests[name](given):
            return Reason.MALFORMED
    if command.get("id") is None and command.get("idempotency_key") is None:
        return Reason.MALFORMED
    entries: list[Body] = command["entries"] if kind == "post" else []
    if not field_tests.keys() >= command.keys() or any(
        not entry.keys() <= {"account", "direction", "amount"} for entry in entries
    ):
        return Reason.UNKNOWN_FIELD
    amounts = [entry["amount"] for entry in entries]
    if command.get("amount") is not None:
        amounts.append(command["amount"])
    if any(type(amount) is not int or not 1 <= amount <= LARGEST for amount in amounts):
        return Reason.AMOUNT_INVALID
    for name in ("expires_at_ms", "effective_at_ms"):
        if command.get(name) is not None and not FIRST_MS <= command[name] <= LAST_MS:
            return Reason.TIME_OUT_OF_RANGE
    return {name: given for name, given in command.items() if given is not None}


def body(command: Body) -> bytes:
    """A digest of what two commands with one key must have in common."""
    kept = {
        name: given
        for name, given in command.items()
        if name not in ("id", "idempotency_key", "actor", "trace", "wallets_only") and given != {}
    }
    return hashlib.md5(json.dumps(kept, sort_keys=True).encode(), usedforsecurity=False).digest()


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key, byte by byte."""
    mask, mix = 0xFFFFFFFF, 0x5BD1E995
    total = (0x9747B28C ^ len(key)) & mask
    whole = len(key) - len(key) % 4
    for start in range(0, whole, 4):
        word = key[start] | key[start + 1] << 8 | key[start + 2] << 16 | key[start + 3] << 24
        word = word * mix & mask
        word = (word ^ word >> 24) * mix & mask
        total = (total * mix & mask) ^ word
    rest = key[whole:]
    if rest:
        for place, byte in enumerate(rest):
            total ^= byte << 8 * place
        total = total * mix & mask
    total = (total ^ total >> 13) * mix & mask
    return total ^ total >> 15


def _json(value: bytes) -> Any:
    try:
        text = value.decode("utf-8", "strict")
        parsed = json.loads(
            text, parse_int=_integer, parse_constant=_no_constant, object_pairs_hook=_once_each
        )
    except (ValueError, RecursionError):
        return None
    if text.count("{") + text.count("[") > DEEPEST and _depth(parsed) > DEEPEST:
        return None
    return parsed if "\\u" not in text or _holdable(parsed) else None


def _integer(digits: str) -> int:
    if len(digits) < 40:
        return int(digits)
    return -FAR_OUT if digits[0] == "-" else FAR_OUT


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _once_each(pairs: list[tuple[str, Any]]) -> Body:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name stands twice")
    return fields


def _depth(value: Any) -> int:
    if isinstance(value, dict | list):
        within = value.values() if isinstance(value, dict) else value
        return 1 + max(map(_depth, within), default=0)
    return 0


def _holdable(value: Any) -> bool:
    """No U+0000 and no unpaired surrogate in any string."""
    if isinstance(value, str):
        return not any(mark == "\0" or 0xD800 <= ord(mark) <= 0xDFFF for mark in value)
    if isinstance(value, dict):
        return all(_holdable(name) and _holdable(given) for name, given in value.items())
    return not isinstance(value, list) or all(_holdable(given) for given in value)
