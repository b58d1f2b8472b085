"""Pages of a list: by cursor in both directions at any depth, and by number where that stays cheap.

A cursor is opaque to clients. It names its list and is valid for no other.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

T = TypeVar("T")

MAX_LIMIT: Final = 1_000
# With filters, a page by number skips all rows before it.
MAX_DEPTH: Final = 10_000
# The limit for several lists that are read as one, in total.
MAX_SKIPPED: Final = 100_000

# Outside of them, adding an instant or changing the zone may overflow.
YEARS: Final = range(1970, 2201)

Key = tuple[Any, ...]


class PageTooDeep(Exception):
    """By number, filtered lists end at page x limit = 10,000, earlier if more than ten are read as
    one. A cursor has no limit."""


class BadCursor(Exception):
    """Not a cursor, or the cursor of another list."""


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """Items in the list's order. `next` and `previous` are cursors, None at an end of the list.

    `total` is None unless it is known without counting.
    """

    items: tuple[T, ...]
    next: str | None = None
    previous: str | None = None
    total: int | None = None


class Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The key to continue after, and whether against the list's order."""

    list: str
    backwards: bool
    key: Key


# A client can forge a cursor: values that Postgres cannot compare with are refused.
_STRICT: Final[dict[type, Any]] = {
    datetime: Annotated[datetime, Meta(tz=True)],
    int: Annotated[int, Meta(ge=0, le=2**63 - 1)],
    str: Annotated[str, Meta(pattern=r"^[^\x00]*$")],
}

_decode = msgspec.msgpack.Decoder(Cursor).decode
_encode = msgspec.msgpack.Encoder().encode


def write(list: str, key: Key, *, backwards: bool) -> str:
    return base64.urlsafe_b64encode(_encode(Cursor(list, backwards, key))).decode().rstrip("=")


def read(list: str, text: str | None, *types: type) -> Cursor | None:
    """A cursor whose key has these types."""
    if text is None:
        return None
    try:
        cursor = _decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if cursor.list != list:
            raise BadCursor(f"a cursor of {cursor.list}, not of {list}")
        strict = tuple(_STRICT.get(type, type) for type in types)
        key: Key = msgspec.convert(cursor.key, tuple[strict])  # type: ignore[valid-type]  # built here
    except (ValueError, binascii.Error) as error:
        raise BadCursor("not a cursor") from error
    if any(isinstance(part, datetime) and part.year not in YEARS for part in key):
        raise BadCursor("a time outside of every list")
    return Cursor(cursor.list, cursor.backwards, key)


def offset_of(page: int | None, limit: int, lists: int = 1) -> int | None:
    """How many items of a filtered list are before a page. `lists`: how many are read as one."""
    if page is None:
        return None
    if page > 1 and page * limit > min(MAX_DEPTH, MAX_SKIPPED // max(1, lists)):
        raise PageTooDeep
    return (page - 1) * limit


def cut(
    list: str,
    rows: Sequence[T],
    limit: int,
    at: Cursor | None,
    key: Callable[[T], Key],
    first: bool,
) -> Page[T]:
    """At most `limit` items of the rows, which are up to one more. `first`: none is before it."""
    more = len(rows) > limit
    items = tuple(rows[:limit])
    backwards = at is not None and at.backwards
    if backwards:
        items = items[::-1]
    if not items:
        return Page(items=())
    after, before = (True, more) if backwards else (more, not first)
    return Page(
        items=items,
        next=write(list, key(items[-1]), backwards=False) if after else None,
        previous=write(list, key(items[0]), backwards=True) if before else None,
    )


def check(limit: int, page: int | None = None) -> None:
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit must be 1 to {MAX_LIMIT}, not {limit}")
    if page is not None and page < 1:
        raise ValueError(f"page must be at least 1, not {page}")
