"""The statements of the reads. It knows no table."""

from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection

from plumbing.postgres.sql_files import SqlFiles

T = TypeVar("T")
Connection = AsyncConnection[Any]
Parameters = dict[str, Any]

FILES: Final = SqlFiles("sinks", "sql", "reads")


async def every(
    connection: Connection, name: str, type: type[T], parameters: Parameters
) -> list[T]:
    """The rows of a query. A parameter that is None is not set."""
    return await FILES.fetch_all(connection, name, type, parameters)


async def one(connection: Connection, name: str, type: type[T], parameters: Parameters) -> T | None:
    rows = await every(connection, name, type, parameters)
    if len(rows) > 1:
        raise psycopg.IntegrityError(f"{name}: {len(rows)} rows, expected at most one")
    return rows[0] if rows else None
