"""Idempotency: the first well-routed command of a key owns it; its outcome is frozen for ever."""

import json
from typing import Any
from uuid import uuid5

import pytest

from schemas import ids
from tests.testkit import builders, stories
from tests.testkit.builders import Body
from tests.testkit.stories import Stage

STORIES = [
    "a=5; credit a 1 key=k; credit a 1 key=k | replayed | a=6",
    "a=5; credit a 1 key=k; credit a 2 key=k | idempotency_key_reused | a=6",
    "a=5; credit a 1 key=k; debit a 1 key=k | idempotency_key_reused | a=6",
    # A no is frozen like a yes, also when it would be a yes today.
    "a=0; debit a 1 key=k | insufficient_funds; credit a 9; debit a 1 key=k | replayed | a=9",
    "credit a 1 key=k | account_not_found; a=0; credit a 1 key=k | replayed | a=0",
    "a=0; debit a 1 key=k | insufficient_funds; debit a 2 key=k | idempotency_key_reused",
    "a=0; credit a 1 key=k version=9 | condition_failed; credit a 1 key=k version=9 | replayed",
    "a=5; hold a 5 key=k expires=0 | hold_expired; hold a 5 key=k expires=0 | replayed",
    # The same key of another account is another transaction, in this partition or in another.
    "a=5 b=5; credit a 1 key=k; credit b 1 key=k | posted | a=6 b=6",
    "a=5 b1=5; credit a 1 key=k id=x; credit b1 1 key=k id=x | posted | a=6 b1=6",
    # The id stands in for the key, and only where there is none.
    "a=5; credit a 1 id=k; credit a 1 id=k | replayed | a=6",
    "a=5; credit a 1 id=k; credit a 1 key=k | replayed | a=6",
    "a=5; credit a 1 id=k; credit a 1 id=k key=l | posted | a=7",
    "a=5; credit a 1 id=k key=l; credit a 1 id=k | posted; credit a 1 id=z key=l | replayed",
    "a=5; credit a 1 id=k key=l; credit a 2 id=k key=m | posted | a=8",
    # Ids reused across kinds.
    "a=5; hold a 1 key=k; void a k key=k | idempotency_key_reused | a=5,held:1",
    "open a wallet NGN key=k; credit a 1 key=k | idempotency_key_reused | a=0",
    "open a wallet NGN key=k; freeze a key=k | idempotency_key_reused; close a key=k | "
    "idempotency_key_reused | a=0",
    "a=0; freeze a key=k; unfreeze a key=k | idempotency_key_reused | a=0,frozen",
    # The reuse of a key comes before everything that the state or the command tells.
    "a=5; credit a 1 key=k; credit a 1 key=k in=XYZ | idempotency_key_reused",
    "a=5; credit a 1 key=k; transfer a a 1 key=k | idempotency_key_reused",
    # A replay asks nothing of the state any more.
    "a=5; debit a 5 key=k; close a; debit a 5 key=k | replayed | a=0,closed",
    "a=5; hold a 5 key=k expires=9; wait 9; tick 0; hold a 5 key=k expires=9 | replayed",
    "a=5; credit a 1 key=k; configure 0 commission_bps=0; credit a 1 key=k | replayed",
]


@pytest.mark.parametrize("story", STORIES)
def test_story(story: str) -> None:
    stories.play(story)


FIRST: Body = {
    "kind": "transfer",
    "account": builders.account_id("a"),
    "to": builders.account_id("b"),
    "amount": 100,
    "idempotency_key": "k",
    "id": "label",
    "reference": "r",
    "metadata": {"x": "1", "y": "2"},
}
ABSENT = object()


def _with(**changes: Any) -> Body:
    body = {**FIRST, **changes}
    return {name: part for name, part in body.items() if part is not ABSENT}


def _outcome(stage: Stage, value: bytes) -> str:
    record = stage.send(value, key=FIRST["account"].encode(), partition=0)[-1].record
    return str(record.reason or record.step)


def _json(body: Body) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    "same",
    [
        _json(FIRST),
        _json(dict(reversed(FIRST.items()))),
        json.dumps(FIRST, indent=2).encode(),
        json.dumps(FIRST).replace("label", "\\u006cabel").encode(),
        _json(_with(id="another label")),
        _json(_with(id=ABSENT)),
        _json(_with(id=None)),
        _json(_with(trace="t")),
        _json(_with(actor="somebody")),
        _json(_with(actor=None, trace=None)),
        _json(_with(metadata={"y": "2", "x": "1"})),
        _json(_with(description=None, currency=None, expected_version=None)),
        _json(_with(min_available_after=None, effective_at_ms=None, external_id=None)),
    ],
)
def test_the_same_body(same: bytes) -> None:
    stage = stories.play("a=1000 b=0")
    assert _outcome(stage, _json(FIRST)) == "posted"
    assert _outcome(stage, same) == "replayed"
    assert stage.account("a").balance == 898


@pytest.mark.parametrize(
    "other",
    [
        _with(amount=101),
        _with(to=builders.account_id("c")),
        _with(kind="debit", to=ABSENT),
        _with(reference="s"),
        _with(reference=ABSENT),
        _with(reference=None),
        _with(description=""),
        _with(description="d"),
        _with(metadata={"x": "1"}),
        _with(metadata={"x": "1", "y": "3"}),
        _with(metadata=ABSENT),
        _with(currency="NGN"),
        _with(expected_version=0),
        _with(min_available_after=0),
        _with(effective_at_ms=builders.START_MS),
        _with(external_id="e"),
    ],
)
def test_another_body(other: Body) -> None:
    stage = stories.play("a=1000 b=0 c=0")
    assert _outcome(stage, _json(FIRST)) == "posted"
    assert _outcome(stage, _json(other)) == "idempotency_key_reused"
    assert stage.account("a").balance == 898


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        ({"metadata": {}}, "metadata"),
        ({"currency": None}, "currency"),
        ({"description": None}, "description"),
        ({"reference": None}, "reference"),
    ],
)
def test_a_default_and_nothing_are_alike(given: Body, absent: str) -> None:
    stage = stories.play("a=1000 b=0")
    assert _outcome(stage, _json({**FIRST, **given})) == "posted"
    assert _outcome(stage, _json(_with(**{absent: ABSENT}))) == "replayed"


def test_a_capture_of_all_is_another_body_than_one_of_that_amount() -> None:
    stories.play(
        "a=9; hold a 5 key=h; capture a h key=c; capture a h 5 key=c | idempotency_key_reused; "
        "capture a h key=c | replayed | a=4"
    )


def test_null_is_no_amount_of_a_capture() -> None:
    stage = stories.play("a=9; hold a 5 key=h; capture a h key=c")
    again = builders.command("capture a h key=c") | {"amount": None, "to": None}
    assert stage.send(again)[-1].record.step == "replayed"


def test_a_replay_tells_of_the_first_and_has_no_entries() -> None:
    stage = stories.play("a=0; debit a 1 key=k | insufficient_funds")
    first = stage.last[-1].record
    stage.play("debit a 1 key=k id=other | replayed")
    replay, letter = stage.last[-1].record, stage.last[-1].dead_letter
    assert (replay.first_status, replay.reason) == ("rejected", "insufficient_funds")
    assert replay.transaction_id == first.transaction_id
    assert replay.body_hash == first.body_hash
    assert replay.command is not None
    assert replay.command.id == "other", "the result goes by its own label"
    assert (replay.entries, stage.published, letter) == ((), [], None)


def test_a_reused_key_is_answered_by_position_alone() -> None:
    stage = stories.play("a=0; credit a 1 key=k; credit a 2 key=k | idempotency_key_reused")
    refused = stage.last[-1]
    assert refused.record.transaction_id is None
    assert refused.record.first_status is None
    assert refused.dead_letter is None
    assert refused.record.command is not None


def test_what_fails_at_the_door_owns_nothing() -> None:
    """Misrouted or unreadable, a key stays free for a command that comes the right way."""
    stage = stories.play("a=5")
    credit = builders.command("credit a 1 key=k")
    assert stage.send(credit, key=b"another")[-1].record.reason == "misrouted"
    assert stage.send(credit | {"amount": 0})[-1].record.reason == "amount_invalid"
    assert stage.send(credit | {"surprise": 1})[-1].record.reason == "unknown_field"
    assert stage.send(credit)[-1].record.step == "posted"


def test_the_transaction_s_id_follows_from_account_and_key() -> None:
    stage = stories.play("a=5; credit a 1 key=k")
    namespace = uuid5(ids.NAMESPACE, builders.account_id("a"))
    assert stage.last[-1].record.transaction_id == str(uuid5(namespace, "k"))


@pytest.mark.parametrize("key", ["k", "K" * 200, "key with spaces", "ключ", "\U0001f511", "\x01"])
def test_any_text_of_up_to_two_hundred_is_a_key(key: str) -> None:
    stage = stories.play("a=5")
    credit = builders.command("credit a 1") | {"idempotency_key": key}
    assert stage.send(credit)[-1].record.step == "posted"
    assert stage.send(credit)[-1].record.step == "replayed"
