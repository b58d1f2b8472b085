"""Runs the SQL files of the ingress's own tables, and converts rows to structs.

The read model is queried through `sinks.reads`, except for `wallet_responses`, which joins both. It
knows no table.
"""

from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg_pool import PoolTimeout

from plumbing.postgres.sql_files import SqlFiles

T = TypeVar("T")
Connection = AsyncConnection[Any]

# Errors that end when Postgres is back, or when a starting service has created the tables.
UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolTimeout,
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.InvalidSchemaName,
)


_FILES: Final = SqlFiles("ingress", "sql")


async def every(connection: Connection, name: str, type: type[T], /, **parameters: Any) -> list[T]:
    return await _FILES.fetch_all(connection, name, type, parameters)


async def one(connection: Connection, name: str, type: type[T], /, **parameters: Any) -> T | None:
    rows = await _FILES.fetch_all(connection, name, type, parameters)
    return rows[0] if rows else None


async def run(connection: Connection, name: str, /, **parameters: Any) -> int:
    """Returns how many rows it changed."""
    return (await connection.execute(_FILES[name], parameters)).rowcount
