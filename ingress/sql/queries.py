"""The SQL of the ingress's own tables, from its files, and what a row of it is.

The books are read through `sinks.reads`, but for `wallets_shown`, which joins both. It knows no
table.
"""

from typing import Any, Final, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg_pool import PoolTimeout

from plumbing.postgres.sql_files import SqlFiles

T = TypeVar("T")
Connection = AsyncConnection[Any]

# What passes when Postgres is back, or when who starts beside us has made the tables.
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
    """How many rows it changed."""
    return (await connection.execute(_FILES[name], parameters)).rowcount
