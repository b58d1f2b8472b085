"""Connections to the tables: few, each checked when it is made, and thrown away after any error.

What is wrong with Postgres is sorted here, once: what passes by waiting, what an operator must see
to, and rows that cannot be right. It knows no table but that of the migrations.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import structlog
from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow

from plumbing.failures import Failure
from plumbing.postgres import connection_pool
from plumbing.postgres.connection_pool import first_line
from plumbing.worker.lane_thread import StopRequested
from sinks.postgres import migrations

log = structlog.get_logger(__name__)

SCHEMA = "ledger"
CONNECT_TIMEOUT_S = 5
# A sink that is frozen in the middle of a batch holds its partitions' positions locked: until the
# next one has waited so long, or Postgres finds out by itself, which it never does within a COPY.
FROZEN_MS = 10_000
ABANDONED_MS = 30_000
BATCH_TIMEOUT_MS = 120_000
TRANSACTION_TIMEOUT_SINCE = 170_000  # the version of Postgres that brought the setting
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0

# Passes by itself, and what was sent was not committed.
LOCKED = errors.LockNotAvailable
AGAIN = (errors.DeadlockDetected, errors.SerializationFailure, LOCKED)
# Passes when Postgres is back, or has room; what was sent may have been committed.
AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    # Told to a sink that was frozen in the middle of a batch, when it wakes.
    errors.IdleInTransactionSessionTimeout,
    errors.TransactionTimeout,
)
# The rows contradict the tables' constraints.
REFUSED = (psycopg.IntegrityError, psycopg.DataError)


class Connections:
    """At most `size` at once, for all threads; `use` waits for its turn."""

    def __init__(self, url: str, application: str, size: int, schema: str = SCHEMA) -> None:
        self._url = url
        self._application = application
        self._schema = schema
        self._turns = threading.BoundedSemaphore(size)
        self._idle: list[Connection[TupleRow]] = []

    @contextmanager
    def use(self) -> Iterator[Connection[TupleRow]]:
        """One transaction: committed at the end, and whole or not at all. The connection is kept
        only if nothing went wrong."""
        with self._turns:
            connection = self._idle.pop() if self._idle else self._connect()
            try:
                yield connection
                connection.commit()
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _connect(self) -> Connection[TupleRow]:
        connection = psycopg.connect(
            self._url,
            application_name=self._application,
            connect_timeout=CONNECT_TIMEOUT_S,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection[TupleRow]) -> None:
        path = sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys((self._schema, SCHEMA))))
        connection.execute(sql.SQL("SET search_path = {}").format(path))
        connection.execute(f"SET lock_timeout = {FROZEN_MS}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {ABANDONED_MS}")
        if connection.info.server_version >= TRANSACTION_TIMEOUT_SINCE:
            connection.execute(f"SET transaction_timeout = {BATCH_TIMEOUT_MS}")
        connection.commit()
        check_schema(connection)
        connection.commit()


def check_schema(connection: Connection[TupleRow]) -> None:
    """The tables are those that this program knows, no older and no newer ones."""
    try:
        rows = connection.execute(f"SELECT name FROM {SCHEMA}.migrations").fetchall()
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        raise Failure("the database has no ledger: `streamledger migrate` makes it") from None
    except errors.InsufficientPrivilege as error:
        raise Failure(f"Postgres: {first_line(error)} (docs/deploying.md)") from None
    there = {name for (name,) in rows}
    known = {each.name for each in migrations.of_this_program()}
    if newer := sorted(there - known):
        raise Failure(
            f"the tables were made by a newer program ({', '.join(newer)}): run that one, or"
            " restore the database"
        )
    if missing := sorted(known - there):
        raise Failure(
            f"the tables are of an older program ({', '.join(missing)} is missing):"
            " `streamledger migrate` brings them up to date"
        )


class Patience:
    """Pauses that grow, between attempts at one thing; ended by a stop."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._pause_s = FIRST_PAUSE_S

    def wait(self, error: Exception, **facts: object) -> None:
        log.warning("waiting for Postgres", error=first_line(error), **facts)
        if self._stopping.wait(self._pause_s):
            raise StopRequested
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


def wait_for_tables(url: str, stopping: threading.Event) -> None:
    """Returns once Postgres answers and the tables are those of this program. It changes nothing:
    a sink's login owns no table. Wrong credentials end it."""
    patience = Patience(stopping)
    while True:
        try:
            with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S) as connection:
                check_schema(connection)
            return
        except psycopg.OperationalError as error:
            if connection_pool.is_refusal(error):
                raise connection_pool.connection_failure(error) from None
            patience.wait(error)
