"""Writes the journal to Postgres: the rows of a batch and its partitions' positions, in one
transaction.

Keeps the rule that a batch is written once. A position moves from exactly the value that was read,
so a second writer of the partition is detected; a row changes only if the batch follows its present
state. It knows no Kafka.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import psycopg
import structlog
from psycopg import Connection, Cursor
from psycopg.rows import TupleRow

from plumbing.failures import Failure
from plumbing.postgres.connection_pool import first_line
from plumbing.postgres.sql_files import SqlFiles
from schemas.ledger_parameters import FORMAT_LEVEL
from sinks.journal_chain import JournalPosition, beginning
from sinks.postgres import copy_format, copy_pipeline, inserts, updates, write_connection
from sinks.postgres.copy_pipeline import Copy
from sinks.postgres.projection import Rows
from sinks.postgres.write_connection import Backoff, Connections

log = structlog.get_logger(__name__)


class Superseded(Exception):
    """The partition's position is not the one that this sink wrote last."""


class RowsRefused(Exception):
    """The rows in Postgres are not those that the journal continues from."""


STATEMENTS: Final = SqlFiles("sinks", "sql", "ledger")


class PartitionBatch(NamedTuple):
    """A batch of one partition: its rows, and the positions before and after it."""

    before: JournalPosition
    after: JournalPosition
    rows: Rows

    @property
    def partition(self) -> int:
        return self.rows.partition


class _Expected(NamedTuple):
    """The rows that a statement must have changed."""

    name: str
    cursor: Cursor[TupleRow]
    rows: Sequence[str]


class LedgerWriter:
    """Not thread-safe."""

    def __init__(
        self,
        connections: Connections,
        ledger_id: str,
        stopping: threading.Event,
        reach: Callable[[str], None],
    ) -> None:
        self._connections = connections
        self._ledger_id = ledger_id
        self._stopping = stopping
        self._reach = reach

    def position(self, partition: int) -> JournalPosition:
        """The position of the tables. Waits for Postgres. Refuses a higher format level."""
        backoff = Backoff(self._stopping)
        while True:
            try:
                return self._position(partition)
            except write_connection.AWAY as error:
                backoff.wait(error, partition=partition)
            except psycopg.ProgrammingError as error:
                raise _operator_failure(error) from error

    def write(self, parts: Sequence[PartitionBatch]) -> None:
        """All of it or nothing; retries until it is committed, refused or stopped."""
        backoff = Backoff(self._stopping)
        partitions = [part.partition for part in parts]
        new_rows = inserts.rows_by_table([part.rows for part in parts])
        uncertain = locked = False
        while True:
            try:
                if locked:
                    self._end_frozen()
                    locked = False
                # The connection may have broken after the commit.
                if uncertain and all(self._position(p.partition) == p.after for p in parts):
                    return
                with self._connections.use() as connection:
                    self._write(connection, parts, new_rows)
                    self._reach("before_rows_commit")
                return
            except write_connection.AGAIN as error:
                log.warning("batch retried", partitions=partitions, error=str(error))
                locked = isinstance(error, write_connection.LOCKED)
                backoff.wait(error, partitions=partitions)
            except write_connection.REFUSED as error:
                # Rows are also refused if another sink has written the batch.
                for part in parts:
                    if self.position(part.partition) != part.before:
                        raise _superseded(part) from error
                raise RowsRefused(str(error).strip()) from error
            except write_connection.AWAY as error:
                uncertain = True
                backoff.wait(error, partitions=partitions)
            except psycopg.ProgrammingError as error:
                raise _operator_failure(error) from error

    def _position(self, partition: int) -> JournalPosition:
        with self._connections.use() as connection:
            row = connection.execute(STATEMENTS["position"], {"partition": partition}).fetchone()
        if row is None:
            return beginning(self._ledger_id, partition)
        ledger_id, format_level, *position = row
        if ledger_id != self._ledger_id:
            raise Failure(
                f"the tables are those of ledger {ledger_id!r}, not {self._ledger_id!r}: check"
                " LEDGER_ID and DATABASE_URL"
            )
        if format_level > FORMAT_LEVEL:
            raise Failure(
                f"the ledger has format level {format_level}; this program supports {FORMAT_LEVEL}:"
                " upgrade it (docs/upgrading.md)"
            )
        return JournalPosition(*position)

    def _end_frozen(self) -> None:
        with self._connections.use() as connection:
            frozen_ms = {"frozen_ms": write_connection.FROZEN_MS}
            backends = connection.execute(STATEMENTS["end_frozen"], frozen_ms).fetchall()
        if backends:
            log.warning("ended transactions of a frozen sink", count=len(backends))

    def _write(
        self,
        connection: Connection[TupleRow],
        parts: Sequence[PartitionBatch],
        new_rows: Mapping[str, Iterable[bytes]],
    ) -> None:
        with connection.pipeline():
            moved = [self._move(connection, part) for part in parts]
        for part, cursor in zip(parts, moved, strict=True):
            if cursor.rowcount != 1:
                raise _superseded(part)
        copy_pipeline.send_copies(
            connection,
            [
                Copy(STATEMENTS[f"copy_{table}"], copy_format.copy(encoded))
                for table, encoded in new_rows.items()
            ],
            lambda: self._reach("mid_rows"),
        )
        with connection.pipeline():
            expected = [
                each for part in parts for each in self._send_updates(connection, part.rows)
            ]
        self._check(expected)

    def _move(self, connection: Connection[TupleRow], part: PartitionBatch) -> Cursor[TupleRow]:
        name = "move_position" if part.before.next_offset else "begin_position"
        return connection.execute(
            STATEMENTS[name],
            {
                "partition": part.partition,
                "ledger_id": self._ledger_id,
                "time_ms": part.rows.last_ms,
                "format_level": part.rows.format_level,
                **part.after._asdict(),
                **{f"before_{field}": value for field, value in part.before._asdict().items()},
            },
        )

    def _check(self, expected: Iterable[_Expected]) -> None:
        """Every row was there in the state that the batch follows."""
        for name, cursor, rows in expected:
            if cursor.rowcount != len(rows):
                raise RowsRefused(
                    f"{name}: only {cursor.rowcount} of {len(rows)} rows are in the state that the"
                    f" journal continues from; the first of them is {rows[0]}"
                )

    def _send_updates(self, connection: Connection[TupleRow], rows: Rows) -> Iterator[_Expected]:
        for statement, ids, columns in updates.row_updates(rows):
            parameters = {"partition": rows.partition, "id": updates.array(ids), **columns}
            cursor = connection.execute(STATEMENTS[statement], parameters)
            yield _Expected(statement, cursor, ids)


def _superseded(part: PartitionBatch) -> Superseded:
    return Superseded(
        f"partition {part.partition}: the tables are no longer at offset {part.before.next_offset}:"
        " another sink owns the partition, or the database was restored"
    )


def _operator_failure(error: psycopg.ProgrammingError) -> Failure:
    """Missing rights or tables: an operator must act."""
    return Failure(f"Postgres refuses the sink: {first_line(error)}")
