"""Postgres connections: one pool per process, opened late and closed at the end.

It knows no table: SQL belongs to the sink and to what it offers for reading.
"""

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

CONNECT_TIMEOUT_S = 5
# How long one waits for a connection of the pool.
TAKE_TIMEOUT_S = 5.0

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


def pool(database_url: str, size: int, application: str) -> Pool:
    """Not yet open: `await pool.open()` starts connecting and does not wait for it."""
    return AsyncConnectionPool(
        database_url,
        kwargs={"application_name": application, "connect_timeout": CONNECT_TIMEOUT_S},
        min_size=1,
        max_size=size,
        timeout=TAKE_TIMEOUT_S,
        open=False,
        name=application,
    )


async def reachable(pool: Pool, timeout_s: float) -> str | None:
    """None when the database answers in time, else why not."""
    try:
        async with pool.connection(timeout=timeout_s) as connection:
            await connection.execute("SELECT 1")
    except PoolTimeout:
        return f"no connection within {timeout_s:g} s"
    except psycopg.Error as error:
        return str(error).strip()
    return None
