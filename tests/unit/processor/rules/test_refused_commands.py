"""From hostile bytes to a named reason: whatever a producer writes gets one outcome, changes
nothing, and stops nobody. The codecs' own tests tell more of form; these end at the outcome.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import schemas
from schemas import commands, journal
from schemas.encoding import codecs
from schemas.reasons import NEVER_FROZEN, Reason
from tests.testkit import builders, stories
from tests.testkit.builders import START_MS, Body
from tests.testkit.stories import Stage

A = builders.account_id("a")
B = builders.account_id("b")
HOLD = builders.transaction("a", "h")
ID = "00000000-0000-5000-8000-000000000000"
GOOD: Body = {"kind": "credit", "account": A, "idempotency_key": "k", "amount": 5}
COMMAND_SCHEMA = Path(schemas.__path__[0], "published") / "command.avsc"
SCHEMA_ID = 7


class _Registry:
    """Knows one schema, and says of every other id that there is none."""

    def schema(self, id: int) -> str | None:
        return COMMAND_SCHEMA.read_text("utf-8") if id == SCHEMA_ID else None

    def versions(self, subject: str) -> dict[int, str]:
        return {}

    def register(self, subject: str, schema: str) -> int:
        return SCHEMA_ID


def _json(body: object) -> bytes:
    return json.dumps(body).encode()


def _with(**changes: Any) -> bytes:
    return _json({**GOOD, **changes})


def _without(name: str) -> bytes:
    return _json({field: value for field, value in GOOD.items() if field != name})


def _instead(kind: str, **parts: Any) -> bytes:
    return _json({"kind": kind, "account": A, "idempotency_key": "k", **parts})


def _raw(amount: str) -> bytes:
    return _json({**GOOD, "amount": 0}).replace(b'"amount": 0', b'"amount": ' + amount.encode())


def _post(*entries: tuple[Any, Any, Any], currency: str = "NGN", **more: Any) -> bytes:
    entries_json = [{"account": a, "direction": d, "amount": n} for a, d, n in entries]
    return _instead("post", currency=currency, entries=entries_json, **more)


def _avro() -> bytes:
    return codecs.encode_single_object(
        commands.Credit(account=A, idempotency_key="k", amount=5, metadata={"a": "b"})
    )


def _confluent(schema_id: int = SCHEMA_ID) -> bytes:
    given = commands.Credit(account=A, idempotency_key="k", amount=5)
    return codecs.encode_confluent(given, schema_id)


NO_COMMAND: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "malformed"),
    "blanks": (b"   ", "malformed"),
    "not JSON": (b"not json", "malformed"),
    "XML": (b"<credit/>", "malformed"),
    "cut short": (_json(GOOD)[:-1], "malformed"),
    "something after it": (_json(GOOD) + b"}", "malformed"),
    "two of them": (_json(GOOD) * 2, "malformed"),
    "a byte order mark": (b"\xef\xbb\xbf" + _json(GOOD), "malformed"),
    "UTF-16": (_json(GOOD).decode().encode("utf-16"), "malformed"),
    "no UTF-8": (_with(reference="Z").replace(b"Z", b"\xff"), "malformed"),
    "a surrogate as bytes": (_with(reference="Z").replace(b"Z", b"\xed\xa0\x80"), "malformed"),
    "an overlong byte": (_with(reference="Z").replace(b"Z", b"\xc0\xaf"), "malformed"),
    "null": (b"null", "malformed"),
    "a number": (b"17", "malformed"),
    "a text": (b'"credit"', "malformed"),
    "a list": (_json([GOOD]), "malformed"),
    "an empty object": (b"{}", "malformed"),
    "a comment": (_json(GOOD) + b"// hello", "malformed"),
    "single quotes": (_json(GOOD).replace(b'"', b"'"), "malformed"),
    "a name that stands twice": (b'{"amount": 1, ' + _json(GOOD)[1:], "malformed"),
    "no kind": (_without("kind"), "malformed"),
    "an unknown kind": (_with(kind="mint"), "malformed"),
    "a kind in capitals": (_with(kind="CREDIT"), "malformed"),
    "a kind that is null": (_with(kind=None), "malformed"),
    "a kind that is a number": (_with(kind=1), "malformed"),
    "a message": (_json({"message": "commit", "source": 1, "number": 1}), "malformed"),
    "no account": (_without("account"), "malformed"),
    "no amount": (_without("amount"), "malformed"),
    "neither id nor key": (_without("idempotency_key"), "malformed"),
    "both null": (_with(id=None, idempotency_key=None), "malformed"),
    "an unknown field": (_with(surprise=1), "unknown_field"),
    "an unknown field that is null": (_with(surprise=None), "unknown_field"),
    "another kind's field": (_with(to=B), "unknown_field"),
    "a field in capitals": (_with(Amount=5), "unknown_field"),
    "an unknown field of an entry": (
        _instead(
            "post",
            currency="NGN",
            entries=[
                {"account": A, "direction": "debit", "amount": 5, "x": 1},
                {"account": B, "direction": "credit", "amount": 5},
            ],
        ),
        "unknown_field",
    ),
    "entries that are no list": (_instead("post", currency="NGN", entries={}), "malformed"),
    "entries that are no objects": (_instead("post", currency="NGN", entries=[1, 2]), "malformed"),
    "an entry sideways": (_post((A, "sideways", 5), (B, "credit", 5)), "malformed"),
    "an entry without account": (_post((None, "debit", 5), (B, "credit", 5)), "malformed"),
    "a thousand and one entries": (
        _post(*((f"a{n}", "credit", 1) for n in range(1_001))),
        "malformed",
    ),
    "a capture of no id": (_instead("capture", hold_id="h"), "malformed"),
    "an id in capitals": (_instead("void", hold_id=ID.replace("0000-5", "000A-5")), "malformed"),
    "an id with a line feed": (_instead("void", hold_id=ID + "\n"), "malformed"),
    "a type that is none": (_instead("open_account", type="purse", currency="NGN"), "malformed"),
}

STRINGS: dict[str, tuple[bytes, str]] = {
    "a number for a text": (_with(reference=17), "malformed"),
    "a list for a text": (_with(description=["d"]), "malformed"),
    "a number for a currency": (_with(currency=566), "malformed"),
    "an empty reference": (_with(reference=""), "malformed"),
    "a reference of 201": (_with(reference="r" * 201), "malformed"),
    "a description of 1,001": (_with(description="d" * 1_001), "malformed"),
    "an empty key": (_with(idempotency_key=""), "malformed"),
    "a key of 201": (_with(idempotency_key="k" * 201), "malformed"),
    "an empty id": (_with(id=""), "malformed"),
    "U+0000": (_with(description="a\0b"), "malformed"),
    "U+0000 in a key": (_with(idempotency_key="\0"), "malformed"),
    "U+0000 in metadata": (_with(metadata={"a": "\0"}), "malformed"),
    "U+0000 in a name": (_with(metadata={"\0": "a"}), "malformed"),
    "half a pair": (_with(description="\ud800"), "malformed"),
    "the other half": (_with(metadata={"a": "\udc00"}), "malformed"),
    "a raw control character": (_with(reference="Z").replace(b"Z", b"\x01"), "malformed"),
    "metadata that is null": (_with(metadata=None), "malformed"),
    "metadata that is a list": (_with(metadata=[]), "malformed"),
    "metadata that is a text": (_with(metadata="{}"), "malformed"),
    "a number in metadata": (_with(metadata={"a": 1}), "malformed"),
    "null in metadata": (_with(metadata={"a": None}), "malformed"),
    "metadata in metadata": (_with(metadata={"a": {"b": "c"}}), "malformed"),
    "4,097 bytes of metadata": (_with(metadata={"a": "x" * 4_096}), "malformed"),
    "4,098 bytes of metadata in few letters": (_with(metadata={"aa": "é" * 2_048}), "malformed"),
    "metadata 1,000 deep": (
        _json(GOOD)[:-1] + b', "metadata": ' + b'{"a": ' * 1_000 + b'"b"' + b"}" * 1_001,
        "malformed",
    ),
    "lists 20,000 deep": (
        _json(GOOD)[:-1] + b', "metadata": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        "malformed",
    ),
    "brackets that never close": (b"[" * 60_000, "malformed"),
    "5 MB of metadata": (_with(metadata={"a": "x" * 5_000_000}), "too_large"),
    "5 MB of nothing": (b" " * 5_000_000, "too_large"),
    "5 MB of zeros": (b"\0" * 5_000_000, "too_large"),
    "one byte too many": (_json(GOOD).ljust(65_537), "too_large"),
}

AMOUNTS: dict[str, tuple[bytes, str]] = {
    f"an amount of {amount}": (_raw(amount), "amount_invalid")
    for amount in (
        "0",
        "-0",
        "-1",
        "-9007199254740991",
        "9007199254740992",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "1" + "0" * 60,
        "5.0",
        "5.5",
        "0.1",
        "5e0",
        "5E2",
        "1e300",
        '"5"',
        '"5.00"',
        '""',
        "true",
        "false",
        "[5]",
        "[]",
        "{}",
        '{"amount": 5}',
    )
} | {
    f"an amount of {amount}, which is not an amount": (_raw(amount), "malformed")
    for amount in (
        "null",
        "NaN",
        "Infinity",
        "-Infinity",
        "05",
        "+5",
        "0x5",
        "5.",
        ".5",
        "1_000",
        "five",
        "",
    )
}
AMOUNTS["an amount of 5,000 digits"] = (_raw("9" * 5_000), "amount_invalid")
AMOUNTS["an entry's amount of 0"] = (_post((A, "debit", 0), (B, "credit", 0)), "amount_invalid")
AMOUNTS["an entry's amount as text"] = (
    _post((A, "debit", "5"), (B, "credit", 5)),
    "amount_invalid",
)
AMOUNTS["a hold of -1"] = (_instead("hold", amount=-1), "amount_invalid")
AMOUNTS["a capture of 0"] = (_instead("capture", hold_id=ID, amount=0), "amount_invalid")

NUMBERS: dict[str, tuple[bytes, str]] = {
    "a version of -1": (_with(expected_version=-1), "malformed"),
    "a version of 2^53": (_with(expected_version=2**53), "malformed"),
    "a version of true": (_with(expected_version=True), "malformed"),
    "a version of 1.0": (_with(expected_version=1.0), "malformed"),
    "a least available of 2^53": (_with(min_available_after=2**53), "malformed"),
    "a least available as text": (_with(min_available_after="1"), "malformed"),
    "a limit of -2^53": (_instead("set_limit", min_balance=-(2**53)), "malformed"),
    "a change's limit of 2^53": (_instead("change_account", min_balance=2**53), "malformed"),
    "no limit of 1": (_instead("change_account", no_limit=1), "malformed"),
    "no limit as text": (_instead("change_account", no_limit="true"), "malformed"),
    "a time in 1999": (_with(effective_at_ms=946_684_799_999), "time_out_of_range"),
    "a time in 2201": (_with(effective_at_ms=7_289_654_400_000), "time_out_of_range"),
    "a time before Christ": (_with(effective_at_ms=-(10**17)), "time_out_of_range"),
    "an expiry of 1": (_instead("hold", amount=5, expires_at_ms=1), "time_out_of_range"),
    "a time as text": (_with(effective_at_ms="2025-01-01"), "malformed"),
    "a time of 1e12": (_raw("5").replace(b"}", b', "effective_at_ms": 1.5e12}'), "malformed"),
}

ACCOUNTS: dict[str, tuple[bytes, str]] = {
    f"an account called {account!r:.20}": (_with(account=account), "malformed")
    for account in ("", " ", "a b", "a\n", "\n", "\x07", "a\0", "é", "a/b", "a.b", "*", "a" * 65, 7)
}
ACCOUNTS["an account of 10,000"] = (_with(account="a" * 10_000), "malformed")
ACCOUNTS["a list of accounts"] = (_with(account=[A]), "malformed")
ACCOUNTS["a receiver with a blank"] = (_instead("transfer", to="a b", amount=5), "malformed")

AVRO: dict[str, tuple[bytes, str]] = {
    "a zero": (b"\0", "malformed"),
    "a header that is cut short": (b"\0\0\0\0", "malformed"),
    "a header and nothing else": (b"\0\0\0\0\x07", "malformed"),
    "an unknown schema id": (_confluent(8), "schema_unknown"),
    "the greatest schema id": (_confluent(2**32 - 1), "schema_unknown"),
    "a record that is cut short": (_confluent()[:-1], "malformed"),
    "a record and a byte more": (_confluent() + b"\0", "malformed"),
    "a record of noise": (_confluent()[:5] + b"\xff" * 40, "malformed"),
    "the first byte of a fingerprint": (b"\xc3", "malformed"),
    "a second byte that is none": (b"\xc3\x02" + _avro()[2:], "malformed"),
    "half a fingerprint": (_avro()[:6], "malformed"),
    "an unknown fingerprint": (b"\xc3\x01" + b"\x05" * 8 + _avro()[10:], "schema_unknown"),
    "a fingerprint and nothing else": (_avro()[:10], "malformed"),
    "an object that is cut short": (_avro()[:-3], "malformed"),
    "an object and a byte more": (_avro() + b"\0", "malformed"),
}

# Well-formed, and refused by what they ask for.
ASKING: dict[str, tuple[bytes, str]] = {
    "another currency": (_with(currency="USD"), "currency_mismatch"),
    "no currency": (_with(currency="XYZ"), "currency_unknown"),
    "a currency of 8": (_with(currency="NAIRAAAA"), "currency_unknown"),
    "to oneself": (_instead("transfer", to=A, amount=5), "self_transfer"),
    "to a system account": (_instead("transfer", to="system:fees:NGN", amount=5), "system_account"),
    "to nobody": (
        _instead("transfer", to=builders.account_id("nobody"), amount=5),
        "account_not_found",
    ),
    "more than there is": (_instead("debit", amount=101), "insufficient_funds"),
    "one entry": (_post((A, "debit", 5)), "too_few_entries"),
    "the same account twice": (_post((A, "debit", 5), (A, "credit", 5)), "duplicate_account"),
    "entries that do not balance": (_post((A, "debit", 5), (B, "credit", 4)), "unbalanced"),
    "two currencies": (
        _post((A, "debit", 5), ("system:fees:USD", "credit", 5)),
        "currency_mismatch",
    ),
    "naming transit": (
        _post((A, "debit", 5), ("system:transit:NGN", "credit", 5)),
        "system_account",
    ),
    "naming a shard": (
        _post((A, "debit", 5), ("system:fees:NGN:0", "credit", 5)),
        "system_account",
    ),
    "no entries": (_post(), "misrouted"),
    "only system accounts": (
        _post(("system:funding:NGN", "debit", 5), ("system:fees:NGN", "credit", 5)),
        "misrouted",
    ),
    "not of the least account": (_post((B, "debit", 5), ("A", "credit", 5)), "misrouted"),
    "a capture above the hold": (
        _instead("capture", hold_id=HOLD, amount=61),
        "capture_exceeds_hold",
    ),
    "a capture to oneself": (_instead("capture", hold_id=HOLD, to=A), "self_transfer"),
    "a capture of no hold": (_instead("capture", hold_id=ID), "hold_not_found"),
    "a reversal of nothing": (_instead("reverse", transaction_id=ID), "transaction_not_found"),
    "a reversal of a hold": (_instead("reverse", transaction_id=HOLD), "not_reversible"),
    "a hold that has expired": (
        _instead("hold", amount=5, expires_at_ms=START_MS),
        "hold_expired",
    ),
    "opened again": (_instead("open_account", type="wallet", currency="NGN"), "account_exists"),
    "a limit above nothing": (_instead("set_limit", min_balance=1), "limit_out_of_bounds"),
    "a limit and none": (
        _instead("change_account", min_balance=0, no_limit=True),
        "limit_out_of_bounds",
    ),
    "closed with money": (_instead("close"), "account_not_empty"),
    "at a version that was": (_with(expected_version=0), "condition_failed"),
    "another body": (_with(idempotency_key="used"), "idempotency_key_reused"),
}

HOSTILE = {**NO_COMMAND, **STRINGS, **AMOUNTS, **NUMBERS, **ACCOUNTS, **AVRO, **ASKING}
DEAD = {
    "too_large",
    "schema_unknown",
    "malformed",
    "unknown_field",
    "amount_invalid",
    "time_out_of_range",
    "misrouted",
}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(stories, "AVRO", codecs.AvroSchemas(registry=_Registry()))
    stage = stories.play("a=100; hold a 60 key=h; debit a 1 key=used; credit a 1")
    return stage.play("b=0")


def _still_decides(stage: Stage) -> None:
    before = stage.account("a").balance
    stage.play(f"credit a 1 | posted | a={before + 1},held:60")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, stage: Stage) -> None:
    value, reason = HOSTILE[name]
    (decision,) = stage.send(value, key=A.encode(), partition=0)
    record = decision.record
    assert (record.reason, stage.account("a").balance) == (reason, 100)
    assert record.step == ("refused" if Reason(reason) in NEVER_FROZEN else "rejected")
    assert (decision.dead_letter is not None) is (reason in DEAD)
    assert record.source == journal.InputSource("commands", stage.places[0].commands - 1)
    assert record.digest == hashlib.sha256(value).hexdigest()
    assert len(stories.encode(record)) < 256 * 1024, "a record is bounded, whatever came in"
    _still_decides(stage)


def test_all_of_them_one_after_the_other(stage: Stage) -> None:
    """One partition, one log: each has its outcome, by its own position."""
    expected: list[tuple[int, str]] = []
    for value, reason in HOSTILE.values():
        # The key is owned by the first that is no worse than rejected.
        fresh = value.replace(b'"k"', b'"k%d"' % len(expected))
        record = stage.send(fresh, key=A.encode(), partition=0)[-1].record
        expected.append((stage.places[0].commands - 1, reason))
        assert (record.source.offset, record.reason) == expected[-1]
    _still_decides(stage)


GOOD_ONES: dict[str, bytes] = {
    "plain": _json(GOOD),
    "blanks after it": _json(GOOD) + b" \n\t",
    "of the greatest size": _json(GOOD).ljust(65_536),
    "an account of 64": _with(reference="r" * 200),
    "texts as long as can be": _with(description="d" * 1_000, external_id="e" * 200),
    "4,096 bytes of metadata": _with(metadata={"a": "x" * 4_095}),
    "4,096 bytes in 2,049 letters": _with(metadata={"aa": "é" * 2_047}),
    "a whole pair": _with(description="\U0001f4b8"),
    "a pair that is escaped": _with(description="\\").replace(b"\\\\", b"\\ud83d\\udcb8"),
    "control characters in a text": _with(description="\x01\x1f\x7f\u2028"),
    "nulls for what may be absent": _with(reference=None, currency=None, trace=None, id=None),
    "the first time": _with(effective_at_ms=946_684_800_000),
    "the last time": _with(effective_at_ms=7_289_654_399_999),
    "the version and what is left": _with(expected_version=3, min_available_after=45),
    "Avro, single object": _avro(),
    "Avro, by the registry's id": _confluent(),
}


@pytest.mark.parametrize("name", GOOD_ONES)
def test_what_is_at_the_edge_is_taken(name: str, stage: Stage) -> None:
    (decision,) = stage.send(GOOD_ONES[name], key=A.encode(), partition=0)
    assert (decision.record.step, stage.account("a").balance) == ("posted", 105)
    _still_decides(stage)


def test_the_same_body_in_another_encoding_is_a_replay(stage: Stage) -> None:
    for value, step in ((_confluent(), "posted"), (_json(GOOD), "replayed")):
        assert stage.send(value, key=A.encode(), partition=0)[-1].record.step == step
    metadata = _with(metadata={"a": "b"})
    reused = stage.send(metadata, key=A.encode(), partition=0)[-1].record
    assert reused.reason == "idempotency_key_reused"
    again = stage.send(_avro(), key=A.encode(), partition=0)[-1].record
    assert again.reason == "idempotency_key_reused"


@pytest.mark.parametrize("kind", ["json", "avro", "confluent"])
def test_cut_anywhere(kind: str, stage: Stage) -> None:
    value = {"json": _json(GOOD), "avro": _avro(), "confluent": _confluent()}[kind]
    for length in range(len(value)):
        record = stage.send(value[:length], key=A.encode(), partition=0)[-1].record
        assert (record.step, record.reason) == ("refused", "malformed"), value[:length]
    _still_decides(stage)


@pytest.mark.parametrize("kind", ["json", "avro", "confluent"])
def test_any_byte_changed(kind: str, stage: Stage) -> None:
    """Whatever it then is: it has one outcome, a named reason or none, and never stops anyone."""
    value = {"json": _with(metadata={"a": "b"}), "avro": _avro(), "confluent": _confluent()}[kind]
    for place in range(len(value)):
        for other in (0x00, 0x01, 0x22, 0x2D, 0x39, 0x5C, 0x7B, 0x7F, 0x80, 0xFF):
            changed = value[:place] + bytes([other]) + value[place + 1 :]
            record = stage.send(changed, key=A.encode(), partition=0)[-1].record
            assert (record.step in ("posted", "replayed")) is (record.reason is None)
    balance = stage.account("a").balance
    stage.play(f"credit a 1 | posted | a={balance + 1},held:60")


@pytest.mark.parametrize(
    ("key", "partition"),
    [
        (None, 0),
        (b"", 0),
        (b"another", 0),
        (A.encode() + b" ", 0),
        (A.encode().upper(), 0),
        (b"\0\0\0\0\x07" + A.encode(), 0),
        (f'"{A}"'.encode(), 0),
        (b"\xff\xfe", 0),
        (A.encode(), 1),
        (A.encode(), 2),
        (None, 1),
    ],
)
def test_misrouted(key: bytes | None, partition: int, stage: Stage) -> None:
    value = _json({**GOOD, "id": "label"})
    (decision,) = stage.send(value, key=key, partition=partition)
    record, letter = decision.record, decision.dead_letter
    assert (record.step, record.reason, record.transaction_id) == ("refused", "misrouted", None)
    assert record.command is not None, "what could be read is told as it was read"
    assert record.refused is None
    assert letter is not None
    assert (letter.partition, letter.reason, letter.id) == (partition, "misrouted", "label")
    _still_decides(stage)
    # It owned nothing: the right way is still open.
    assert stage.send(GOOD)[-1].record.step == "posted"


def test_a_dead_letter_tells_where_the_original_is(stage: Stage) -> None:
    value = _json({**GOOD, "id": "label", "surprise": "x" * 40_000})
    (decision,) = stage.send(value, key=A.encode(), partition=0)
    record, letter = decision.record, decision.dead_letter
    assert letter is not None
    assert (letter.partition, letter.offset) == (0, stage.places[0].commands - 1)
    assert (letter.reason, letter.id, letter.size) == ("unknown_field", "label", len(value))
    assert letter.digest == hashlib.sha256(value).hexdigest() == record.digest
    assert base64.b64decode(letter.head) == value[: 16 * 1024]
    assert letter.detail == record.detail
    assert record.command is None
    assert record.refused == journal.RefusedInput(size=len(value), head=letter.head, id="label")


STORIES = [
    "a=102 b1=102; transfer a b1 100 | pending; transfer b1 a 100 | pending; all; credit a 1 | "
    "posted | a=101 b1=100",
    "a=5; credit a 1 key=t; reverse a t key=r; reverse a t | already_reversed; reverse a r | "
    "not_reversible",
    "a=9; hold a 9 key=h expires=10; wait 11; capture a h | expired hold_expired",
    "a=5 b1=5; credit a 1 id=x key=k; credit b1 1 id=x key=k | posted | a=6 b1=6",
    "a=5; hold a 1 key=k; credit a 1 key=k | idempotency_key_reused; reverse a k | not_reversible; "
    "void a k | posted",
]


@pytest.mark.parametrize("story", STORIES)
def test_bad_story(story: str) -> None:
    stories.play(story)
