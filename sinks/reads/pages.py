"""Pages of a list: by cursor in both directions, however deep; by number where that stays cheap.

A cursor is opaque to who holds it, names the list that it was made for and fits no other.
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
# With filters a page by number has to pass over all that lies before it.
DEEPEST: Final = 10_000
# As many in each of several lists that are read side by side, but no more than this in all.
MOST_PASSED: Final = 100_000

# Beyond them a moment more or less, or the same in another zone, may be no time at all.
YEARS: Final = range(1970, 2201)

Key = tuple[Any, ...]


class PageTooDeep(Exception):
    """Filtered lists are read by number up to page x limit = 10,000, less where more than ten are
    read as one; beyond it by cursor alone."""


class BadCursor(Exception):
    """Not a cursor, or one of another list."""


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """Items in the list's order. `next` and `previous` are cursors; None where nothing follows.

    `total` is told where it is known without counting.
    """

    items: tuple[T, ...]
    next: str | None = None
    previous: str | None = None
    total: int | None = None


class Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Beyond which key to go on, and whether against the list's order."""

    list: str
    backwards: bool
    key: Key


# Whoever holds a cursor can change it: what Postgres could not compare with is none.
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
    """The cursor, whose key has these types."""
    if text is None:
        return None
    try:
        cursor = _decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if cursor.list != list:
            raise BadCursor(f"a cursor of {cursor.list}, not of {list}")
        wanted = tuple(_STRICT.get(each, each) for each in types)
        key: Key = msgspec.convert(cursor.key, tuple[wanted])  # type: ignore[valid-type]  # built here
    except (ValueError, binascii.Error) as error:
        raise BadCursor("not a cursor") from error
    if any(isinstance(each, datetime) and each.year not in YEARS for each in key):
        raise BadCursor("a time that no list has")
    return Cursor(cursor.list, cursor.backwards, key)


def offset_of(page: int | None, limit: int, lists: int = 1) -> int | None:
    """How many items of a filtered list lie before a page; `lists` are read as that one."""
    if page is None:
        return None
    if page > 1 and page * limit > min(DEEPEST, MOST_PASSED // max(1, lists)):
        raise PageTooDeep
    return (page - 1) * limit


def cut(
    list: str,
    found: Sequence[T],
    limit: int,
    at: Cursor | None,
    key: Callable[[T], Key],
    first: bool,
) -> Page[T]:
    """A page of at most `limit` items from up to one more; `first`: nothing can lie before it."""
    more = len(found) > limit
    items = tuple(found[:limit])
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
        raise ValueError(f"a page has 1 to {MAX_LIMIT} items, not {limit}")
    if page is not None and page < 1:
        raise ValueError(f"pages are counted from 1, not {page}")
