"""The journal in Postgres: a batch's rows and its partitions' positions in one transaction.

Keeps the rule that a batch is written once: a position moves from exactly the value that was read
before, so that whoever else has written the partition is found out, and rows are changed only where
they follow on what is there. It knows no Kafka.
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
from sinks.postgres.write_connection import Connections, Patience

log = structlog.get_logger(__name__)


class Superseded(Exception):
    """The partition's position is not where this sink left it."""


class RowsRefused(Exception):
    """Postgres holds something else than what the journal goes on from."""


STATEMENTS: Final = SqlFiles("sinks", "sql", "ledger")


class PartitionBatch(NamedTuple):
    """What a batch has of one partition: its rows, and where they lead."""

    before: JournalPosition
    after: JournalPosition
    rows: Rows

    @property
    def partition(self) -> int:
        return self.rows.partition


class _Expected(NamedTuple):
    """What a statement that was sent must have found."""

    name: str
    cursor: Cursor[TupleRow]
    rows: Sequence[str]


class LedgerWriter:
    """Not for two threads at once."""

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
        """How far the tables are. Waits for Postgres."""
        patience = Patience(self._stopping)
        while True:
            try:
                return self._position(partition)
            except write_connection.AWAY as error:
                patience.wait(error, partition=partition)
            except psycopg.ProgrammingError as error:
                raise _hopeless(error) from error

    def write(self, parts: Sequence[PartitionBatch]) -> None:
        """All of it or nothing, however often that has to be tried."""
        patience = Patience(self._stopping)
        partitions = [part.partition for part in parts]
        new = inserts.of([part.rows for part in parts])
        uncertain = locked = False
        while True:
            try:
                if locked:
                    self._end_frozen()
                    locked = False
                # A connection that broke may have broken after the commit.
                if uncertain and all(self._position(p.partition) == p.after for p in parts):
                    return
                with self._connections.use() as connection:
                    self._write(connection, parts, new)
                    self._reach("before_rows_commit")
                return
            except write_connection.AGAIN as error:
                log.warning("batch retried", partitions=partitions, error=str(error))
                locked = isinstance(error, write_connection.LOCKED)
                patience.wait(error, partitions=partitions)
            except write_connection.REFUSED as error:
                # A batch that another sink has written, too, is refused for its rows.
                for part in parts:
                    if self.position(part.partition) != part.before:
                        raise _superseded(part) from error
                raise RowsRefused(str(error).strip()) from error
            except write_connection.AWAY as error:
                uncertain = True
                patience.wait(error, partitions=partitions)
            except psycopg.ProgrammingError as error:
                raise _hopeless(error) from error

    def _position(self, partition: int) -> JournalPosition:
        with self._connections.use() as connection:
            row = connection.execute(STATEMENTS["position"], {"partition": partition}).fetchone()
        if row is None:
            return beginning(self._ledger_id, partition)
        ledger_id, format_level, *position = row
        if ledger_id != self._ledger_id:
            raise Failure(
                f"these tables hold the ledger {ledger_id!r}, not {self._ledger_id!r}: LEDGER_ID is"
                " wrong, or DATABASE_URL"
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
            ended = connection.execute(STATEMENTS["end_frozen"], frozen_ms).fetchall()
        if ended:
            log.warning("ended transactions of a frozen sink", count=len(ended))

    def _write(
        self,
        connection: Connection[TupleRow],
        parts: Sequence[PartitionBatch],
        new: Mapping[str, Iterable[bytes]],
    ) -> None:
        with connection.pipeline():
            moved = [self._move(connection, part) for part in parts]
        for part, cursor in zip(parts, moved, strict=True):
            if cursor.rowcount != 1:
                raise _superseded(part)
        copy_pipeline.send_copies(
            connection,
            [Copy(STATEMENTS[f"copy_{table}"], copy_format.copy(new[table])) for table in new],
            lambda: self._reach("mid_rows"),
        )
        with connection.pipeline():
            expected = [each for part in parts for each in self._changes(connection, part.rows)]
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
        """Each row that a batch changes was there as the batch expects it."""
        for name, cursor, rows in expected:
            if cursor.rowcount != len(rows):
                raise RowsRefused(
                    f"{name}: of {len(rows)} rows only {cursor.rowcount} are as the journal goes on"
                    f" from them, beginning with {rows[0]}"
                )

    def _changes(self, connection: Connection[TupleRow], rows: Rows) -> Iterator[_Expected]:
        """Sends what changes rows that are there."""
        for name, ids, given in updates.of(rows):
            parameters = {"partition": rows.partition, "id": updates.array(ids), **given}
            yield _Expected(name, connection.execute(STATEMENTS[name], parameters), ids)


def _superseded(part: PartitionBatch) -> Superseded:
    return Superseded(
        f"partition {part.partition}: the tables are no longer at {part.before.next_offset}:"
        " another sink owns it, or the database was put back"
    )


def _hopeless(error: psycopg.ProgrammingError) -> Failure:
    """Rights that are missing, tables that are not there: an operator must see to it."""
    return Failure(f"Postgres refuses the sink: {first_line(error)}")
