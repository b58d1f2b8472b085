"""Bytes for a binary COPY: the same as psycopg's own dumpers make."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.types.datetime import DatetimeBinaryDumper
from psycopg.types.numeric import (
    DecimalBinaryDumper,
    Int2BinaryDumper,
    Int4BinaryDumper,
    Int8BinaryDumper,
)
from psycopg.types.uuid import UUIDBinaryDumper

from sinks import copying


def column(value: object) -> bytes:
    """What psycopg would send for one column."""
    assert isinstance(value, bytes | bytearray | memoryview)
    return len(bytes(value)).to_bytes(4, "big") + bytes(value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_bigint(value: int) -> None:
    assert copying.bigint(value) == column(Int8BinaryDumper(int).dump(value))


def test_smaller_integers() -> None:
    assert copying.smallint(1_023) == column(Int2BinaryDumper(int).dump(1_023))
    assert copying.integer(-150) == column(Int4BinaryDumper(int).dump(-150))


@pytest.mark.parametrize(
    "value", [0, 1, -1, 9_999, 10_000, -10_000, 10_001, 10**8, 123_400_000_000, 2**63, -(10**40)]
)
def test_numeric(value: int) -> None:
    assert _number(copying.numeric(value)) == value


@given(st.integers(-(10**60), 10**60))
def test_any_numeric(value: int) -> None:
    assert _number(copying.numeric(value)) == value


@given(st.integers(-(10**60), 10**60))
def test_numeric_is_what_psycopg_makes(value: int) -> None:
    """But that it writes zeros at the end, which Postgres takes off."""
    ours = copying.numeric(value)
    theirs = column(DecimalBinaryDumper(Decimal).dump(Decimal(value)))
    assert _number(ours) == _number(theirs)


def _number(sent: bytes) -> int:
    count, weight, sign, scale = (int.from_bytes(sent[n : n + 2], "big") for n in (4, 6, 8, 10))
    assert len(sent) == 12 + 2 * count == 4 + int.from_bytes(sent[:4], "big")
    assert scale == 0 and sign in (0, 0x4000)
    digits = [int.from_bytes(sent[n : n + 2], "big") for n in range(12, len(sent), 2)]
    total = sum(digit * int(10_000 ** (weight - n)) for n, digit in enumerate(digits))
    return -total if sign else total


@given(st.integers(0, 7_289_654_399_999))
def test_timestamp(time_ms: int) -> None:
    seconds, milliseconds = divmod(time_ms, 1_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=1_000 * milliseconds)
    assert copying.timestamp(time_ms) == column(DatetimeBinaryDumper(datetime).dump(moment))


@given(st.uuids())
def test_uuid(value: UUID) -> None:
    assert copying.uuid(str(value)) == column(UUIDBinaryDumper(UUID).dump(value))


@given(st.text(st.characters(codec="utf-8")))
def test_text(value: str) -> None:
    assert copying.text(value) == column(value.encode())


def test_what_is_not_there() -> None:
    assert (-1).to_bytes(4, "big", signed=True) == copying.NULL
    for none in (copying.bigint, copying.timestamp, copying.uuid, copying.text):
        assert none(None) == copying.NULL
    assert copying.jsonb(b"") == copying.NULL
    assert copying.jsonb(b'{"a":"b"}') == column(b'\x01{"a":"b"}')
