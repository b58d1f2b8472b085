"""Postgres connections: one pool per process, opened late and closed at the end.

Keeps the rule that a server which does not answer in time counts as away, so that callers get an
error in time. It knows no table.
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
# How long a caller waits for a connection from the pool, and for the server's answer.
TAKE_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 5.0
# A server continues a query whose client has hung up. So it ends each query itself, a little before
# that, and checks meanwhile whether the client is still connected.
STATEMENT_TIMEOUT_MS = 4_500
_CONNECTION_CHECK_MS = 1_000
_INTERVAL_S = 0.1
# libpq reports a failed connection by its text alone. Waiting mends none of these.
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
    """Whether the server answered and refused the login: the settings are wrong, not the moment."""
    return any(words in str(error) for words in _REFUSALS)


def connection_failure(error: Exception) -> Failure:
    """What an operator reads about a failed connection."""
    if is_refusal(error):
        return Failure(f"Postgres refuses the connection: {first_line(error)} (DATABASE_URL)")
    return Failure(f"Postgres does not answer: {first_line(error)}")


class Connection(AsyncConnection[TupleRow]):
    """Hangs up on a server that does not answer in time, and if the caller is cancelled. The caller
    gets an OperationalError, and the pool makes another connection."""

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
            # A cancel request to a server that does not answer would take as long again.
            self._hang_up()
            raise
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        # The server may have hung up first; the caller gets the connection's error, not this one.
        with suppress(OSError):
            if not self.closed:
                connection = socket.socket(fileno=self.pgconn.socket)
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                finally:
                    connection.detach()  # libpq closes it


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
    """Raises a Failure if the server refuses the login. A server that is away may come back."""
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
