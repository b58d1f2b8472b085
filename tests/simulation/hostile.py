"""What a producer with a bug or with malice may write instead of a good command, one spoiler for
each way.
"""

import json
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.generator import Record

Body = dict[str, Any]
Spoiler = Callable[[random.Random, "Record", Body], "Record"]


def spoil(dice: random.Random, record: "Record", command: Body) -> "Record":
    return dice.choice(SPOILERS)(dice, record, command)


def _bytes(value: bytes) -> Spoiler:
    return lambda dice, record, command: record._replace(value=value)


def _with(**fields: Any) -> Spoiler:
    def spoiled(dice: random.Random, record: "Record", command: Body) -> "Record":
        return record._replace(value=json.dumps({**command, **fields}).encode())

    return spoiled


def _without(name: str) -> Spoiler:
    def spoiled(dice: random.Random, record: "Record", command: Body) -> "Record":
        kept = {field: given for field, given in command.items() if field != name}
        return record._replace(value=json.dumps(kept).encode())

    return spoiled


def _instead(kind: str, **fields: Any) -> Spoiler:
    """Another kind of command of the same account."""

    def spoiled(dice: random.Random, record: "Record", command: Body) -> "Record":
        kept = {name: command.get(name) for name in ("account", "id", "idempotency_key")}
        return record._replace(value=json.dumps({**kept, "kind": kind, **fields}).encode())

    return spoiled


def _post(*entries: tuple[str, str, Any], currency: str = "NGN", **more: Any) -> Spoiler:
    """A post of these entries; an account of `me` is the command's own."""

    def spoiled(dice: random.Random, record: "Record", command: Body) -> "Record":
        account = command["account"]
        entries_json = [
            {"account": account if name == "me" else name, "direction": side, "amount": amount}
            for name, side, amount in entries
        ]
        return _instead("post", currency=currency, entries=entries_json, **more)(
            dice, record, command
        )

    return spoiled


def _wrong_partition(dice: random.Random, record: "Record", command: Body) -> "Record":
    return record._replace(partition=0 if record.partition else record.partition + 1)


def _cut(dice: random.Random, record: "Record", command: Body) -> "Record":
    return record._replace(value=record.value[: dice.randrange(len(record.value))])


def _flipped(dice: random.Random, record: "Record", command: Body) -> "Record":
    spoiled = bytearray(record.value)
    spoiled[dice.randrange(len(spoiled))] = 0xFF
    return record._replace(value=bytes(spoiled))


_pad = "x" * 70_000
_many = [("system:funding:NGN", "debit", 1)] * 3
_good = (("me", "debit", 5), ("zzz-late", "credit", 5))

SPOILERS: tuple[Spoiler, ...] = (
    _bytes(b""),
    _bytes(b"not json"),
    _bytes(b"null"),
    _bytes(b"[]"),
    _bytes(b"{}"),
    _bytes(b"\x00"),
    _bytes(b"\x00\x00\x00\x00\x07more"),
    _bytes(b"\xc3\x01\x01"),
    _bytes(b"\xc3\x01" + b"\x05" * 20),
    _bytes(b"\xef\xbb\xbf{}"),
    _bytes(b'{"kind":"credit","account":"a","id":"1","amount":NaN}'),
    _bytes(b'{"kind":"freeze","account":"a","id":"1","id":"1"}'),
    _bytes(b'{"metadata":' + b'{"a":' * 1_000 + b"1" + b"}" * 1_001),
    _cut,
    _flipped,
    _wrong_partition,
    _wrong_partition,
    lambda dice, record, command: record._replace(key=None),
    lambda dice, record, command: record._replace(key=b"another"),
    lambda dice, record, command: record._replace(value=record.value + b" " * 70_000),
    _with(description=_pad),
    _with(kind="mint"),
    _with(kind=3),
    _with(surprise=1),
    _with(amount=None, currency_code="NGN"),
    _with(account="a b"),
    _with(account="a" * 65),
    _with(account="\u0007"),
    _with(account=7),
    _with(account=None),
    _with(reference=""),
    _with(reference="r" * 201),
    _with(reference="\0"),
    _with(reference="\ud800"),
    _with(reference=17),
    _with(reference=None, description=None),
    _with(description="d" * 1_001),
    _with(metadata={"a": 1}),
    _with(metadata={"a": {"b": "c"}}),
    _with(metadata={"a": "é" * 2_048}),
    _with(metadata={"a": "é" * 2_047}),
    _with(metadata=[]),
    _with(metadata=None),
    _with(amount=None),
    _with(reference=None, amount="1"),
    _with(expected_version=-1),
    _with(expected_version=True),
    _with(min_available_after=2**53),
    _with(min_available_after="1"),
    _with(effective_at_ms=1),
    _with(effective_at_ms=7_289_654_400_000),
    _with(effective_at_ms="2020"),
    _with(id=None, idempotency_key=None),
    _with(id="", idempotency_key="k"),
    _with(idempotency_key="k" * 201),
    _without("account"),
    _without("kind"),
    _without("amount"),
    _without("idempotency_key"),
    _instead("credit", amount=0),
    _instead("credit", amount=-1),
    _instead("credit", amount=2**53),
    _instead("credit", amount=10**60),
    _instead("credit", amount=1.0),
    _instead("credit", amount=1e300),
    _instead("credit", amount="5"),
    _instead("credit", amount=True),
    _instead("credit", amount=[1]),
    _instead("credit", amount=1, currency="ABC"),
    _instead("credit", amount=1, currency=""),
    _instead("credit", amount=1, currency="ninechars"),
    _instead("transfer", to="system:fees:NGN", amount=3),
    _instead("transfer", to="", amount=3),
    _instead("transfer", to="nobody-at-all", amount=1),
    _instead("capture", hold_id="not an id"),
    _instead("capture", hold_id="00000000-0000-5000-8000-000000000000", to="system:x"),
    _instead("void", hold_id="00000000-0000-5000-8000-00000000000A"),
    _instead("reverse", transaction_id="00000000-0000-5000-8000-000000000000"),
    _instead("hold", amount=1, expires_at_ms=1),
    _instead("hold", amount=1, expires_at_ms=7_289_654_399_999),
    _instead("open_account", type="purse", currency="NGN"),
    _instead("open_account", type="wallet", currency="XYZ"),
    _instead("open_account", type="asset", currency="NGN", min_balance=1),
    _instead("open_account", type="asset", currency="NGN", owner="o" * 65),
    _post(("me", "debit", 5)),
    _post(),
    _post(*_many),
    _post(("me", "debit", 5), ("zzz-late", "credit", 4)),
    _post(("me", "debit", 5), ("me", "credit", 5)),
    _post(("me", "debit", 6), *_many),
    _post(("me", "debit", 5), ("system:transit:NGN", "credit", 5)),
    _post(("me", "debit", 5), ("system:funding:NGN:0", "credit", 5)),
    _post(("me", "debit", 5), ("system:fees:USD", "credit", 5)),
    _post(("me", "debit", 5), ("system:fees:ABC", "credit", 5)),
    _post(("me", "sideways", 5), ("zzz-late", "credit", 5)),
    _post(("me", "debit", 0), ("zzz-late", "credit", 0)),
    _post(("me", "debit", 5), ("Aaa-early", "credit", 5)),
    _post(*_good, currency="XXXX"),
    _post(*_good, currency="USD"),
    _post(("me", "debit", 101), *((f"zz-{n}", "credit", 1) for n in range(101))),
    _post(("me", "debit", 1_001), *((f"zz{n}", "credit", 1) for n in range(1_001))),
)
