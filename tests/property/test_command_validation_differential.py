"""Command validation against the model's: both accept any bytes, or both give a reason."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.encoding import codecs
from schemas.validation.command_validation import UnreadableRecord
from tests.model import command_validation

AVRO = codecs.AvroSchemas()
HOLD_ID = "00000000-0000-5000-8000-000000000000"
OWN_FIELDS: dict[str, dict[str, Any]] = {
    "open_account": {"type": "wallet", "currency": "NGN"},
    "set_limit": {},
    "change_account": {},
    "credit": {"amount": 1},
    "debit": {"amount": 1},
    "transfer": {"to": "b", "amount": 1},
    "post": {
        "currency": "NGN",
        "entries": [
            {"account": "a", "direction": "debit", "amount": 1},
            {"account": "b", "direction": "credit", "amount": 1},
        ],
    },
    "hold": {"amount": 1},
    "capture": {"hold_id": HOLD_ID},
    "void": {"hold_id": HOLD_ID},
    "reverse": {"transaction_id": HOLD_ID},
    "freeze": {},
    "unfreeze": {},
    "close": {},
}
WELL_FORMED = tuple(
    {"kind": kind, "account": "a", "id": "1", **own} for kind, own in OWN_FIELDS.items()
)
EDGES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**53 - 1, 2**53, -(2**53), 1 - 2**53, 10**22, 1.0, 1e300),
    *(946_684_799_999, 946_684_800_000, 7_289_654_399_999, 7_289_654_400_000),
    *("", "a", "w 1", "NGN", "eightchr", "ninechars", "2020", HOLD_ID, HOLD_ID.replace("5", "A")),
    *("a" * 64, "a" * 65, "x" * 200, "x" * 201, "x" * 1_000, "x" * 1_001, "\0", "\ud800", "é😀"),
    *({}, {"a": "b"}, {"a": 1}, {"a": {}}, {"é" * 2_047: "xx"}, {"é" * 2_048: "x"}),
    *([], [1], [{}], [{"account": "a", "direction": "debit", "amount": 1}] * 3),
    [{"account": "a", "direction": "up", "amount": 1}],
    [{"account": "a", "direction": "debit", "amount": None}],
    [{"account": "a", "direction": "debit", "amount": 1, "more": 1}],
    [{"account": "a", "direction": "debit", "amount": 1}] * 1_001,
)
NAMES = [
    *sorted({name for fields in command_validation.FIELDS.values() for name in fields}),
    "surprise",
]
changes = st.dictionaries(
    st.sampled_from(NAMES), st.one_of(st.sampled_from(EDGES), st.text(max_size=5)), max_size=3
)


def agrees(value: bytes) -> None:
    expected = command_validation.read(value)
    read = codecs.decode_command(value, AVRO)
    reason = read.reason if isinstance(read, UnreadableRecord) else None
    assert reason is (None if isinstance(expected, dict) else expected)


@given(
    command=st.sampled_from(WELL_FORMED),
    changed=changes,
    dropped=st.sets(st.sampled_from(NAMES), max_size=1),
)
@settings(max_examples=1_500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_any_command_with_some_fields_changed(
    command: dict[str, Any], changed: dict[str, Any], dropped: set[str]
) -> None:
    command = {**command, **changed}
    agrees(json.dumps({n: given for n, given in command.items() if n not in dropped}).encode())


@given(
    command=st.sampled_from(WELL_FORMED),
    at=st.integers(0, 200),
    inserted=st.binary(max_size=3),
    gone=st.integers(0, 4),
)
@settings(max_examples=1_000, deadline=None, database=None)
@example(command=WELL_FORMED[2], at=54, inserted=b"01", gone=1)
@example(command=WELL_FORMED[2], at=0, inserted=b"\xef\xbb\xbf", gone=0)
@example(command=WELL_FORMED[2], at=0, inserted=b"\x00", gone=0)
def test_any_command_with_some_bytes_changed(
    command: dict[str, Any], at: int, inserted: bytes, gone: int
) -> None:
    value = json.dumps(command).encode()
    agrees(value[:at] + inserted + value[at + gone :])


@pytest.mark.parametrize("depth", [30, 31, 32, 33, 400])
def test_deep_input(depth: int) -> None:
    inner = "[" * depth + "]" * depth
    agrees(f'{{"kind":"freeze","account":"a","id":"1","surprise":{inner}}}'.encode())
    agrees(f'{{"kind":"freeze","account":"a","id":"1","metadata":{inner}}}'.encode())


@given(st.binary(max_size=60))
@settings(max_examples=500, deadline=None, database=None)
@example(b"")
@example(b"\xc3\x01")
@example(b"\xc3\x01" + b"\x00" * 8)
@example(b"\x00" * 5)
@example(b"[" * 60_000)
@example(b'{"a":' * 10_000)
def test_any_bytes(value: bytes) -> None:
    agrees(value)
