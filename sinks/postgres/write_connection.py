"""Connections for writing: few, checked when opened, discarded after any error.

Classifies Postgres' errors: transient ones, those that an operator must fix, and rows that violate
a constraint. It knows no table.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import structlog
from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow

from plumbing.postgres import connection_pool, migrations
from plumbing.postgres.connection_pool import first_line
from plumbing.worker.lane_thread import StopRequested

log = structlog.get_logger(__name__)

SCHEMA = "ledger"
CONNECT_TIMEOUT_S = 5
# A sink that freezes within a batch keeps its partitions' positions locked. The next sink waits so
# long and then ends its transactions. Postgres itself ends them later, but never within a COPY.
FROZEN_MS = 10_000
ABANDONED_MS = 30_000
BATCH_TIMEOUT_MS = 120_000
TRANSACTION_TIMEOUT_SINCE = 170_000  # the version of Postgres that brought the setting
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0

# Transient; the transaction was not committed.
LOCKED = errors.LockNotAvailable
AGAIN = (errors.DeadlockDetected, errors.SerializationFailure, LOCKED)
# Transient: Postgres is away or full. The transaction may have been committed.
AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    errors.ReadOnlySqlTransaction,
    # A sink that was frozen within a batch gets these when it wakes.
    errors.IdleInTransactionSessionTimeout,
    errors.TransactionTimeout,
)
# The rows violate a constraint.
REFUSED = (psycopg.IntegrityError, psycopg.DataError)


class Connections:
    """At most `size` at once for all threads; `use` waits for a free one."""

    def __init__(self, url: str, application: str, size: int, schema: str = SCHEMA) -> None:
        self._url = url
        self._application = application
        self._schema = schema
        self._turns = threading.BoundedSemaphore(size)
        self._idle: list[Connection[TupleRow]] = []

    @contextmanager
    def use(self) -> Iterator[Connection[TupleRow]]:
        """One transaction, committed at the end. After any error the connection is closed."""
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
    """The tables of the read model have exactly the migrations of this program."""
    migrations.check_applied(connection, "sinks")


class Backoff:
    """Growing pauses between attempts; a stop ends them."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._pause_s = MIN_PAUSE_S

    def wait(self, error: Exception, **facts: object) -> None:
        log.warning("waiting for Postgres", error=first_line(error), **facts)
        if self._stopping.wait(self._pause_s):
            raise StopRequested
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)


def wait_for_tables(url: str, stopping: threading.Event) -> None:
    """Returns once Postgres answers and the tables are those of this program. Changes nothing: the
    sink's login owns no table. Raises a Failure on wrong credentials."""
    backoff = Backoff(stopping)
    while True:
        try:
            with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S) as connection:
                check_schema(connection)
            return
        except psycopg.OperationalError as error:
            if connection_pool.is_refusal(error):
                raise connection_pool.connection_failure(error) from None
            backoff.wait(error)
