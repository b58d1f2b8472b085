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

from sinks.postgres import copy_format


def column(value: object) -> bytes:
    """What psycopg would send for one column."""
    assert isinstance(value, bytes | bytearray | memoryview)
    return len(bytes(value)).to_bytes(4, "big") + bytes(value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_bigint(value: int) -> None:
    assert copy_format.bigint(value) == column(Int8BinaryDumper(int).dump(value))


def test_smaller_integers() -> None:
    assert copy_format.smallint(1_023) == column(Int2BinaryDumper(int).dump(1_023))
    assert copy_format.integer(-150) == column(Int4BinaryDumper(int).dump(-150))


@pytest.mark.parametrize(
    "value", [0, 1, -1, 9_999, 10_000, -10_000, 10_001, 10**8, 123_400_000_000, 2**63, -(10**40)]
)
def test_numeric(value: int) -> None:
    assert _number(copy_format.numeric(value)) == value


@given(st.integers(-(10**60), 10**60))
def test_any_numeric(value: int) -> None:
    assert _number(copy_format.numeric(value)) == value


@given(st.integers(-(10**60), 10**60))
def test_numeric_is_what_psycopg_makes(value: int) -> None:
    """But that it writes zeros at the end, which Postgres takes off."""
    ours = copy_format.numeric(value)
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
    assert copy_format.timestamp(time_ms) == column(DatetimeBinaryDumper(datetime).dump(moment))


@given(st.uuids())
def test_uuid(value: UUID) -> None:
    assert copy_format.uuid(str(value)) == column(UUIDBinaryDumper(UUID).dump(value))


@given(st.text(st.characters(codec="utf-8")))
def test_text(value: str) -> None:
    assert copy_format.text(value) == column(value.encode())


def test_what_is_not_there() -> None:
    assert (-1).to_bytes(4, "big", signed=True) == copy_format.NULL
    for none in (copy_format.bigint, copy_format.timestamp, copy_format.uuid, copy_format.text):
        assert none(None) == copy_format.NULL
    assert copy_format.jsonb(b"") == copy_format.NULL
    assert copy_format.jsonb(b'{"a":"b"}') == column(b'\x01{"a":"b"}')
