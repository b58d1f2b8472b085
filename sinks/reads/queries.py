"""The SQL of the reads, from its files: made for what is asked, run, and given as typed values.

A line of a file that ends with `-- if name` is kept only where that parameter is given, one with
`-- unless name` only where it is not: so Postgres plans for the filters that there are. Such a
query is planned anew each time, for their values, too: a plan for any value would look for the few
of a rare kind by reading all. It knows no table.
"""

import re
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import class_row

T = TypeVar("T")
Connection = AsyncConnection[Any]
Parameters = dict[str, Any]

_MARK: Final = re.compile(r"\s*-- (if|unless) (\w+)$")


class _Line(NamedTuple):
    text: str
    mark: str = ""
    name: str = ""


async def every(of: Connection, name: str, type: type[T], parameters: Parameters) -> list[T]:
    """The rows of a query. A parameter that is None is not given."""
    given = {key: value for key, value in parameters.items() if value is not None}
    async with of.cursor(row_factory=class_row(type)) as cursor:
        # None: prepared when it has come some times.
        prepare = False if any(line.mark for line in _lines(name)) else None
        await cursor.execute(text(name, frozenset(given)), given, prepare=prepare)
        return await cursor.fetchall()


async def one(of: Connection, name: str, type: type[T], parameters: Parameters) -> T | None:
    rows = await every(of, name, type, parameters)
    if len(rows) > 1:
        raise psycopg.IntegrityError(f"{name}: {len(rows)} rows where one may be")
    return rows[0] if rows else None


@cache
def text(name: str, given: Collection[str]) -> bytes:
    kept = (
        line.text
        for line in _lines(name)
        if not line.mark or (line.name in given) is (line.mark == "if")
    )
    return "\n".join(kept).encode()


@cache
def _lines(name: str) -> tuple[_Line, ...]:
    file = resources.files("sinks") / "sql" / "reads" / f"{name}.sql"
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if found := _MARK.search(line):
            lines.append(_Line(line[: found.start()], *found.groups()))
        elif not line.startswith("--"):
            lines.append(_Line(line))
    return tuple(lines)
