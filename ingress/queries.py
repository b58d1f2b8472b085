"""The SQL of the ingress's own tables, from its files, and what a row of it is.

The books are read through `sinks.reads`, but for `wallets_shown`, which joins both. It knows no
table.
"""

from functools import cache
from importlib import resources
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, errors
from psycopg.rows import class_row
from psycopg_pool import PoolTimeout

T = TypeVar("T")
Connection = AsyncConnection[Any]

# What passes when Postgres is back, or when who starts beside us has made the tables.
AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    PoolTimeout,
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.InvalidSchemaName,
)


@cache
def text(name: str) -> bytes:
    return (resources.files("ingress") / "sql" / f"{name}.sql").read_bytes()


async def every(of: Connection, name: str, type: type[T], /, **given: Any) -> list[T]:
    async with of.cursor(row_factory=class_row(type)) as cursor:
        await cursor.execute(text(name), given)
        return await cursor.fetchall()


async def one(of: Connection, name: str, type: type[T], /, **given: Any) -> T | None:
    async with of.cursor(row_factory=class_row(type)) as cursor:
        await cursor.execute(text(name), given)
        return await cursor.fetchone()


async def run(of: Connection, name: str, /, **given: Any) -> int:
    """How many rows it changed."""
    return (await of.execute(text(name), given)).rowcount
