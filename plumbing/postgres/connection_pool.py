"""Postgres connections: one pool per process, opened late and closed at the end.

Keeps the rule that a server which gives no answer is as good as away: whoever asks is told so in
time. It knows no table: SQL belongs to the sink and to what it offers for reading.
"""

import asyncio
import socket
from contextlib import suppress
from typing import TypeVar

import psycopg
from psycopg import AsyncConnection, waiting
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from plumbing.failures import Failure

T = TypeVar("T")

CONNECT_TIMEOUT_S = 5
# How long one waits for a connection of the pool, and for an answer of the server.
TAKE_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 5.0
# A server that is hung up on would go on with the query: so it ends each by itself, a little before
# that, and looks meanwhile whether anybody still waits.
STATEMENT_TIMEOUT_MS = 4_500
_CONNECTION_CHECK_MS = 1_000
_INTERVAL_S = 0.1
# libpq tells of a failed connection by its text alone. Of these, waiting mends none.
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "not permitted to log in",
    "does not exist",
    "permission denied",
)


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_refusal(error: Exception) -> bool:
    """Whether the server is there and does not let us in: the address is wrong, not the moment."""
    return any(words in str(error) for words in _REFUSALS)


def connection_failure(error: Exception) -> Failure:
    """What an operator reads of a connection that failed."""
    if is_refusal(error):
        return Failure(f"Postgres refuses the connection: {first_line(error)} (DATABASE_URL)")
    return Failure(f"Postgres gives no answer: {first_line(error)}")


class Connection(AsyncConnection[TupleRow]):
    """Hangs up on a server that gives no answer in time, and when nobody waits for it any more:
    whoever asked has an OperationalError then, and the pool makes another."""

    answer_timeout_s = ANSWER_TIMEOUT_S

    async def wait(
        self,
        gen: PQGen[T],
        interval: float = _INTERVAL_S,
        timeout: float | None = None,  # noqa: ASYNC109  # psycopg's own
    ) -> T:
        timer = asyncio.get_running_loop().call_later(self.answer_timeout_s, self._hang_up)
        try:
            return await waiting.wait_async(gen, self.pgconn.socket, interval, timeout)
        except asyncio.CancelledError:
            # Asking a server that gives no answer to stop would take as long again.
            self._hang_up()
            raise
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        # The server may have been first; whoever waits is told of the end, not of that.
        with suppress(OSError):
            if not self.closed:
                same = socket.socket(fileno=self.pgconn.socket)
                try:
                    same.shutdown(socket.SHUT_RDWR)
                finally:
                    same.detach()  # libpq closes it


Pool = AsyncConnectionPool[Connection]


def pool(database_url: str, size: int, application: str) -> Pool:
    """Not yet open: `await pool.open()` starts connecting and does not wait for it."""
    return AsyncConnectionPool(
        database_url,
        connection_class=Connection,
        kwargs={"application_name": application, "connect_timeout": CONNECT_TIMEOUT_S},
        configure=_bound,
        min_size=1,
        max_size=size,
        timeout=TAKE_TIMEOUT_S,
        open=False,
        name=application,
    )


async def _bound(connection: Connection) -> None:
    # Set, not given as `options`: those may be in the address already, and proxies refuse them.
    await connection.execute(
        f"SET statement_timeout = {STATEMENT_TIMEOUT_MS};"
        f" SET client_connection_check_interval = {_CONNECTION_CHECK_MS}"
    )
    await connection.commit()


async def check_not_refused(database_url: str) -> None:
    """Raises a Failure where the server refuses us. One that is away may come back."""
    try:
        connection = await AsyncConnection.connect(database_url, connect_timeout=CONNECT_TIMEOUT_S)
    except psycopg.OperationalError as error:
        if is_refusal(error):
            raise connection_failure(error) from None
    else:
        await connection.close()


async def unreachable_reason(pool: Pool, timeout_s: float) -> str | None:
    """None when the database answers in time, else why not."""
    try:
        async with pool.connection(timeout=timeout_s) as connection:
            connection.answer_timeout_s = timeout_s
            await connection.execute("SELECT 1")
            connection.answer_timeout_s = ANSWER_TIMEOUT_S
    except PoolTimeout:
        return f"no connection within {timeout_s:g} s"
    except psycopg.Error as error:
        return str(error).strip()
    return None
