"""Command validation: of several faults, the first by precedence is answered, with a text."""

import itertools
from typing import Any

import pytest

from schemas import field_types, reasons
from schemas.reasons import Reason
from schemas.validation import command_validation

HOLD: dict[str, Any] = {
    "kind": "hold",
    "account": "w1",
    "id": "a",
    "amount": 5,
    "expires_at_ms": field_types.EARLIEST_MS,
}
POST: dict[str, Any] = {
    "kind": "post",
    "account": "a",
    "id": "a",
    "currency": "NGN",
    "entries": [
        {"account": "a", "direction": "debit", "amount": 1},
        {"account": "b", "direction": "credit", "amount": 1},
    ],
}

NO_AMOUNTS: list[Any] = [0, -1, 2**53, 10**30, 1.0, 1.5, "5", "5.00", True, [], {}, float("inf")]

# One fault per reason that a decoded value can show, as fields to change.
FAULTS: dict[Reason, list[dict[str, Any]]] = {
    Reason.MALFORMED: [
        {"kind": 5},
        {"kind": "pay"},
        {"account": None},
        {"account": "w 1"},
        {"id": None},
        {"id": ""},
        {"reference": "x" * 201},
        {"reference": 5},
        {"description": "a\0"},
        {"description": "\ud800"},
        {"metadata": {"a": 1}},
        {"metadata": {"a": "b" * 4_096}},
        {"metadata": None},
        {"currency": ""},
        {"expected_version": -1},
        {"expected_version": 1.0},
        {"min_available_after": 2**53},
        {"effective_at_ms": "now"},
        {"effective_at_ms": 1e12},
        {"effective_at_ms": True},
        {"actor": {"a": {"b": "\0"}}},
    ],
    Reason.UNKNOWN_FIELD: [{"colour": "red"}, {"to": "w2"}, {"Amount": 5}, {"": None}],
    Reason.AMOUNT_INVALID: [{"amount": value} for value in NO_AMOUNTS],
    Reason.TIME_OUT_OF_RANGE: [
        {"expires_at_ms": field_types.EARLIEST_MS - 1},
        {"expires_at_ms": field_types.LATEST_MS + 1},
        {"effective_at_ms": 0},
        {"effective_at_ms": -(10**30)},
    ],
}


def reason_of(command: object) -> Reason:
    refused = command_validation.diagnose(command)
    assert refused is not None
    return refused.reason


def test_nothing_is_wrong_with_these() -> None:
    assert command_validation.diagnose(HOLD) is None
    assert command_validation.diagnose(POST) is None


@pytest.mark.parametrize(
    ("reason", "fault"), [(reason, fault) for reason, faults in FAULTS.items() for fault in faults]
)
def test_each_fault_has_its_reason(reason: Reason, fault: dict[str, Any]) -> None:
    assert reason_of(HOLD | fault) is reason


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(FAULTS, 2)))
def test_of_two_faults_the_first_reason_of_the_catalogue_is_answered(
    first: Reason, second: Reason
) -> None:
    assert reasons.PRECEDENCE[first] < reasons.PRECEDENCE[second]
    for one, other in itertools.product(FAULTS[first], FAULTS[second]):
        if not one.keys() & other.keys():
            assert reason_of(HOLD | one | other) is first


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (5, Reason.MALFORMED),
        ({}, Reason.MALFORMED),
        ({"account": "c", "direction": "up", "amount": 1}, Reason.MALFORMED),
        ({"account": "c d", "direction": "debit", "amount": 1}, Reason.MALFORMED),
        ({"account": "c", "direction": "debit"}, Reason.MALFORMED),
        ({"account": "c", "direction": "debit", "amount": None}, Reason.MALFORMED),
        ({"account": "c", "direction": "debit", "amount": 1, "x": 1}, Reason.UNKNOWN_FIELD),
        ({"account": "c", "direction": "debit", "amount": "1", "x": 1}, Reason.UNKNOWN_FIELD),
        ({"account": "c", "direction": "debit", "amount": "1"}, Reason.AMOUNT_INVALID),
        ({"account": "c", "direction": "debit", "amount": 1.5}, Reason.AMOUNT_INVALID),
    ],
)
def test_an_entry_is_judged_like_the_command(entry: object, reason: Reason) -> None:
    entries = [*POST["entries"], entry]
    refused = command_validation.diagnose(POST | {"entries": entries})
    assert refused is not None
    assert refused.reason is reason
    assert "entries[2]" in refused.detail


def test_more_entries_than_may_be_read_are_malformed() -> None:
    entry = POST["entries"][0]
    assert command_validation.diagnose(POST | {"entries": [entry] * 1_000}) is None
    assert reason_of(POST | {"entries": [entry] * 1_001}) is Reason.MALFORMED
    assert reason_of(POST | {"entries": {"0": entry}}) is Reason.MALFORMED
    assert command_validation.diagnose(POST | {"entries": []}) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"kind": "pay"}, "kind must be one of open_account, set_limit, change_account, credit"),
        ({"account": None}, "account is required: 1 to 64 of A-Z a-z 0-9 : _ -"),
        ({"account": "w 1"}, "account must be 1 to 64 of A-Z a-z 0-9 : _ -"),
        ({"reference": 5}, "reference must be text of 1 to 200 characters"),
        ({"metadata": []}, "metadata must be a flat map of text to text"),
        (
            {"expected_version": -1},
            "expected_version must be an integer from 0 to 9007199254740991",
        ),
        ({"id": None}, "id or idempotency_key is required"),
        ({"amount": 0}, "amount must be an integer from 1 to 9007199254740991 minor units"),
        ({"to": "w2"}, "unknown field 'to' for hold"),
        ({"a\0\ud800": 1, "description": "x"}, "a text contains U+0000 or an unpaired surrogate"),
        ({"x" * 100: 1}, f"unknown field '{'x' * 61}...' for hold"),
        ({"expires_at_ms": 1}, "expires_at_ms must be from 946684800000 to 7289654399999"),
    ],
)
def test_the_detail_names_the_field_and_what_is_allowed(fault: dict[str, Any], words: str) -> None:
    refused = command_validation.diagnose(HOLD | fault)
    assert refused is not None
    assert words in refused.detail


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b'{"a":1,}', "invalid JSON near character"),
        (b'{"a":NaN}', "NaN is not a number"),
        (b'{"a":1,"a":2}', "duplicate field 'a'"),
        (b'{"a":"\xff"}', "invalid UTF-8 at byte 6"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper than 32 levels"),
        (b"[]", "not an object"),
    ],
)
def test_invalid_json_is_reported_with_its_place(value: bytes, words: str) -> None:
    refused = command_validation.diagnose_json(value)
    assert refused is not None
    assert refused.reason is Reason.MALFORMED
    assert words in refused.detail


def test_brackets_within_texts_are_not_depth() -> None:
    value = b'{"kind":"freeze","account":"a","id":"b","description":"' + b'[{\\"' * 100 + b'"}'
    assert command_validation.diagnose_json(value) is None


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (b'{"id":"x"', "x"),
        (b'{ "a" : [1, {"id":"inner"}], "id" : "x", ', "x"),
        (b'{"id":"caf\xc3\xa9","a":', "café"),
        (rb'{"id":"caf\u00e9","a":', "café"),
        (b'{"a":"\\"id\\":\\"y\\"","id":"x",,', "x"),
        (b'{"a":"id","b":"y"', None),
        (b'{"id":5,', None),
        (b'{"id":null', None),
        (b'{"id":{"id":"x"}', None),
        (b'{"id":"', None),
        (b'{"id":"x', None),
        (b'{"id":""', None),
        (b'{"id":"' + b"x" * 201 + b'",', None),
        (b'{"id":"a\\u0000",', None),
        (b'{"id":"\\ud800",', None),
        (b'{"id":"\xff",', None),
        (b'["id":"x"]', None),
        (b"", None),
        (b"\xff\xfe", None),
        (b'{"x":"' + b"y" * field_types.MAX_REFUSED_BYTES + b'","id":"x"', None),
    ],
)
def test_the_label_of_what_cannot_be_decoded(value: bytes, label: str | None) -> None:
    assert command_validation.scan_label(value) == label
