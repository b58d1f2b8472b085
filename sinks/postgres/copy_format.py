"""Encodes rows for Postgres' binary COPY.

A column is its length and its value. A row is the number of its columns and the columns, in the
order of its COPY statement. It decides nothing.
"""

from collections.abc import Callable, Iterable
from functools import cache
from struct import Struct as Packed
from typing import Final

from schemas.journal import Entry

NULL: Final = b"\xff\xff\xff\xff"

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_EPOCH_MS: Final = 946_684_800_000  # the year 2000, from which Postgres counts
_DIGITS: Final = 10_000

_int2 = Packed(">ih").pack
_int4 = Packed(">ii").pack
_int8 = Packed(">iq").pack
_length = Packed(">i").pack


def copy(rows: Iterable[bytes]) -> bytes:
    """The data of one COPY."""
    return b"".join((_HEADER, *rows, _TRAILER))


# Columns


def smallint(value: int) -> bytes:
    return _int2(2, value)


def integer(value: int) -> bytes:
    return _int4(4, value)


def bigint(value: int | None) -> bytes:
    return NULL if value is None else _int8(8, value)


def text(value: str | None) -> bytes:
    if value is None:
        return NULL
    encoded = value.encode()
    return _length(len(encoded)) + encoded


def uuid(value: str | None) -> bytes:
    return NULL if value is None else b"\0\0\0\x10" + bytes.fromhex(value.replace("-", ""))


def microseconds(time_ms: int) -> int:
    return (time_ms - _EPOCH_MS) * 1_000


def timestamp(time_ms: int | None) -> bytes:
    return NULL if time_ms is None else _int8(8, microseconds(time_ms))


def jsonb(value: bytes) -> bytes:
    """From JSON text; an empty text is null."""
    return _length(len(value) + 1) + b"\1" + value if value else NULL


def numeric(value: int) -> bytes:
    """An integer of any size: base-10,000 digits, most significant first."""
    rest, digits = abs(value), []
    while rest:
        rest, digit = divmod(rest, _DIGITS)
        digits.append(digit)
    digits.reverse()
    count = len(digits)
    return _numeric(count)(
        8 + 2 * count, count, max(0, count - 1), 0x4000 if value < 0 else 0, 0, *digits
    )


@cache
def _numeric(count: int) -> Callable[..., bytes]:
    return Packed(f">ihhHh{count}h").pack


# Columns that repeat within a batch are encoded once


class TextColumns(dict[str | None, bytes]):
    """Kinds, outcomes, accounts."""

    def __missing__(self, value: str | None) -> bytes:
        column = self[value] = text(value)
        return column


class UuidColumns(dict[str | None, bytes]):
    def __missing__(self, value: str | None) -> bytes:
        column = self[value] = uuid(value)
        return column


# Entries, the most frequent rows

_DIRECTIONS: Final = {direction: text(direction) for direction in ("debit", "credit")}

_entry_head = Packed(">hiqiqiqiq").pack
_system_head = Packed(">hiqiq").pack
_two_bigints = Packed(">iqiq").pack


class EntryEncoder:
    """Encodes rows for copy_entries.sql and copy_system_entries.sql."""

    def __init__(self, partition: int) -> None:
        self._accounts = _AccountColumns(smallint(partition))

    def shared(self, transaction_id: bytes, time_ms: int, sequence: int) -> bytes:
        """The columns that all entries of one record share. `transaction_id` is a column."""
        return _two_bigints(8, sequence, 8, microseconds(time_ms)) + transaction_id

    def ordinary(self, entry: Entry, balance: int, shared: bytes) -> bytes:
        return (
            _entry_head(10, 8, entry.version, 8, entry.amount, 8, balance, 8, entry.held)
            + shared
            + _DIRECTIONS[entry.direction]
            + self._accounts[entry.account]
        )

    def system(self, entry: Entry, balance: int, shared: bytes) -> bytes:
        return (
            _system_head(9, 8, entry.version, 8, entry.amount)
            + shared
            + _DIRECTIONS[entry.direction]
            + self._accounts[entry.account]
            + numeric(balance)
        )


class _AccountColumns(dict[str, bytes]):
    """An account's column, after that of its partition."""

    def __init__(self, partition: bytes) -> None:
        self._partition = partition

    def __missing__(self, account: str) -> bytes:
        columns = self[account] = self._partition + text(account)
        return columns
