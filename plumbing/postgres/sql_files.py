"""SQL statements, each from a file of its own, and their rows as typed values.

A line of a file that ends with `-- if name` is kept only where that parameter is given, a line with
`-- unless name` only where it is not. So Postgres plans for the filters that there are. It plans
such a query again each time, for the values of its parameters too: a plan for any value would look
for the few rows of a rare kind by reading all. Nothing is read before it is used. It knows no
table.
"""

import re
from collections.abc import Collection, Mapping
from functools import cached_property
from importlib import resources
from typing import Any, Final, NamedTuple, TypeVar

from psycopg import AsyncConnection
from psycopg.rows import class_row

T = TypeVar("T")

_CONDITION: Final = re.compile(r"\s*-- (if|unless) (\w+)$")


class _Line(NamedTuple):
    text: str
    condition: str = ""
    parameter: str = ""


class _Statement(NamedTuple):
    lines: tuple[_Line, ...]
    conditional: bool


class SqlFiles:
    """The files of one folder, by name without `.sql`."""

    def __init__(self, package: str, *folders: str) -> None:
        self._package = package
        self._folders = folders
        self._statements: dict[str, _Statement] = {}
        self._texts: dict[tuple[str, frozenset[str]], bytes] = {}

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """Each file as it is, in the order of their names."""
        folder = resources.files(self._package).joinpath(*self._folders)
        files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
        return {
            file.name.removesuffix(".sql"): file.read_bytes()
            for file in sorted(files, key=lambda file: file.name)
        }

    def __getitem__(self, name: str) -> bytes:
        """A statement without conditions."""
        return self.files[name]

    def text(self, name: str, given: Collection[str]) -> bytes:
        """A statement as the parameters that are given make it."""
        key = name, frozenset(given)
        if key not in self._texts:
            self._texts[key] = "\n".join(
                line.text
                for line in self._statement(name).lines
                if not line.condition or (line.parameter in given) is (line.condition == "if")
            ).encode()
        return self._texts[key]

    async def fetch_all(
        self,
        connection: AsyncConnection[Any],
        name: str,
        type: type[T],
        parameters: Mapping[str, Any],
    ) -> list[T]:
        """The rows of a statement. For its conditions a parameter that is None is not given."""
        given = [key for key, value in parameters.items() if value is not None]
        # None: prepared once it has come several times.
        prepare = False if self._statement(name).conditional else None
        async with connection.cursor(row_factory=class_row(type)) as cursor:
            await cursor.execute(self.text(name, given), parameters, prepare=prepare)
            return await cursor.fetchall()

    def _statement(self, name: str) -> _Statement:
        if name not in self._statements:
            lines = tuple(
                _line(line)
                for line in self.files[name].decode().splitlines()
                if not line.startswith("--")
            )
            self._statements[name] = _Statement(lines, any(line.condition for line in lines))
        return self._statements[name]


def _line(line: str) -> _Line:
    condition = _CONDITION.search(line)
    return (
        _Line(line) if condition is None else _Line(line[: condition.start()], *condition.groups())
    )
