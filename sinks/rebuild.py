"""`streamledger rebuild postgres`: rebuilds the books from `journal` beside the live tables, then
replaces them.

In this order:

  1. Create empty copies of the tables, in a schema of their own.
  2. Write the journal into them, as it is now, with the sink's own code.
  3. Create the indexes.
  4. Switch, in one transaction: lock the live tables, write what the sink wrote meanwhile, and
     replace them.

The live books do not change before step 4. Sinks may keep running: they wait for the locks and then
continue, or end as superseded if the live books were wrong. The ingress's own tables are not
touched.
"""

import contextlib
import secrets
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final, NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig
from plumbing.postgres.connection_pool import connection_failure, first_line
from plumbing.postgres.sql_files import SqlFiles
from schemas.topics import Names
from sinks.journal_chain import BrokenJournal, JournalChain, ReadJournalRecord
from sinks.postgres import write_connection
from sinks.postgres.ledger_writer import LedgerWriter, PartitionBatch, RowsRefused
from sinks.postgres.projection import BrokenRecord, Rows
from sinks.postgres.write_connection import SCHEMA, Connections
from sinks.verify import topic_reader

BOOKS: Final = (
    "positions",
    "accounts",
    "entries",
    "system_entries",
    "transactions",
    "commands",
    "holds",
    "system_accounts",
)
STATEMENTS: Final = SqlFiles("sinks", "sql", "rebuild")
REBUILT: Final = "ledger_rebuilt"
REPLACED: Final = "ledger_replaced"
APPLICATION: Final = "streamledger-rebuild"
BATCH: Final = 8_000
# An arbitrary number that no one else locks.
LOCK_KEY: Final = 7_305_812_275
LOCK_TIMEOUT_MS: Final = 20_000
ATTEMPTS: Final = 5

# Called with partition, records done and total.
Progress = Callable[[int, int, int], None]


class RebuiltPostgres(NamedTuple):
    """`replaced`: the schema that keeps the replaced tables."""

    sequences: tuple[int, ...]
    replaced: str


class PostgresSources(NamedTuple):
    config: ClientConfig
    names: Names
    ledger_id: str
    partitions: int
    database_url: str


def rebuild(sources: PostgresSources, progress: Progress) -> RebuiltPostgres:
    with _connected(sources.database_url) as connection:
        _lock(connection)
        write_connection.check_schema(connection)
        _create_tables(connection)
        connections = Connections(sources.database_url, APPLICATION, 1, REBUILT)
        try:
            writers = [
                _PartitionCopy(sources, connections, number) for number in range(sources.partitions)
            ]
            # 2. Write the journal into them
            for writer in writers:
                writer.write(None, progress)
            _create_indexes(connection)
            for attempt in range(ATTEMPTS):
                try:
                    replaced = _switch(connection, writers, progress)
                    break
                except (*write_connection.AGAIN, psycopg.errors.QueryCanceled) as error:
                    if attempt + 1 == ATTEMPTS:
                        raise Failure(
                            f"the live tables are busy, nothing was replaced: {first_line(error)}"
                        ) from None
        except (BrokenJournal, BrokenRecord, RowsRefused) as error:
            raise Failure(f"nothing was replaced: {error}") from error
        finally:
            connections.close()
    return RebuiltPostgres(tuple(writer.sequence for writer in writers), replaced)


class _PartitionCopy:
    """Writes one partition's journal into the new tables."""

    def __init__(self, sources: PostgresSources, connections: Connections, number: int) -> None:
        self.partition = number
        self._journal = topic_reader.TopicPartitionReader(
            sources.config, sources.names.journal, number
        )
        self._ledger = LedgerWriter(
            connections, sources.ledger_id, threading.Event(), lambda step: None
        )
        self._position = self._ledger.position(number)
        self._chain = JournalChain(sources.ledger_id, number, self._position)

    @property
    def sequence(self) -> int:
        return self._position.sequence

    def write(self, until: int | None, progress: Progress) -> None:
        """Writes everything that is committed, or everything before an offset."""
        start, end = self._journal.range()
        if start > self._position.next_offset:
            raise Failure(
                f"partition {self.partition} of the journal starts at offset {start}: its first"
                " records are gone, and nothing was replaced"
            )
        goal = end if until is None else min(until, end)
        records = self._journal.records(self._position.next_offset, goal)
        while chunk := list(islice(records, BATCH)):
            rows = Rows(self.partition)
            for record in chunk:
                rows.add(self._chain.follow(ReadJournalRecord(record.offset, record.value or b"")))
            self._ledger.write([PartitionBatch(self._position, self._chain.position, rows)])
            self._position = self._chain.position
            progress(self.partition, self._position.next_offset, end)
        self._journal.close()


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Connection[TupleRow]]:
    try:
        connection = psycopg.connect(
            url,
            autocommit=True,
            application_name=APPLICATION,
            connect_timeout=write_connection.CONNECT_TIMEOUT_S,
        )
    except psycopg.OperationalError as error:
        raise connection_failure(error) from None
    try:
        yield connection
    except psycopg.errors.InsufficientPrivilege as error:
        raise Failure(
            f"{first_line(error)}: run it as the user that migrates the database"
        ) from None
    finally:
        connection.close()


def _lock(connection: Connection[TupleRow]) -> None:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
    if row is None or not row[0]:
        raise Failure("another rebuild is running on this database")


def _run(connection: Connection[TupleRow], statement: str, rest: str = "", **names: str) -> None:
    """`rest` is appended as it is: text from Postgres' own catalogue."""
    identifiers = {name: sql.Identifier(value) for name, value in names.items()}
    composed = sql.SQL(statement).format(**identifiers).as_bytes(connection)
    connection.execute(composed + rest.encode())


class _TableDefinition(NamedTuple):
    options: list[str] | None
    keys: list[str]
    indexes: list[str]


def _definition(connection: Connection[TupleRow], table: str) -> _TableDefinition:
    row = connection.execute(STATEMENTS["tables"], {"table": f"{SCHEMA}.{table}"}).fetchone()
    assert row is not None, "the catalogue describes every table"
    return _TableDefinition(*row)


def _create_tables(connection: Connection[TupleRow]) -> None:
    # 1. Create empty copies of the tables; replaces those of an earlier attempt
    _run(connection, "DROP SCHEMA IF EXISTS {new} CASCADE", new=REBUILT)
    with connection.transaction():
        _run(connection, "CREATE SCHEMA {new}", new=REBUILT)
        for table in BOOKS:
            names = {"new": REBUILT, "live": SCHEMA, "table": table}
            _run(
                connection,
                "CREATE TABLE {new}.{table} (LIKE {live}.{table} INCLUDING ALL EXCLUDING INDEXES)",
                **names,
            )
            definition = _definition(connection, table)
            for key in definition.keys:
                _run(connection, "ALTER TABLE {new}.{table} ", key, **names)
            if definition.options:
                options = f"({', '.join(definition.options)})"
                _run(connection, "ALTER TABLE {new}.{table} SET ", options, **names)


def _create_indexes(connection: Connection[TupleRow]) -> None:
    # 3. Create the indexes, as they are on the live tables
    for table in BOOKS:
        for index in _definition(connection, table).indexes:
            live, rebuilt = f" ON {SCHEMA}.", f" ON {REBUILT}."
            assert live in index, "an index names its table's schema"
            connection.execute(index.replace(live, rebuilt, 1).encode())
        _run(connection, "ANALYZE {new}.{table}", new=REBUILT, table=table)


def _switch(
    connection: Connection[TupleRow], writers: list[_PartitionCopy], progress: Progress
) -> str:
    # 4. Switch
    replaced = f"{REPLACED}_{secrets.token_hex(4)}"
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
        connection.execute("SET LOCAL search_path = pg_catalog")
        for table in BOOKS:
            _run(
                connection,
                "LOCK TABLE {live}.{table} IN ACCESS EXCLUSIVE MODE",
                live=SCHEMA,
                table=table,
            )
        live: dict[int, int] = dict(
            connection.execute(f"SELECT partition, next_offset FROM {SCHEMA}.positions").fetchall()
        )
        for writer in writers:
            writer.write(live.get(writer.partition, 0), progress)
        views = connection.execute(STATEMENTS["views"]).fetchall()
        for view, _ in views:
            _run(connection, "DROP VIEW {live}.{view}", live=SCHEMA, view=view)
        _run(connection, "CREATE SCHEMA {old}", old=replaced)
        for table in BOOKS:
            names = {"live": SCHEMA, "table": table, "old": replaced, "new": REBUILT}
            _run(connection, "ALTER TABLE {live}.{table} SET SCHEMA {old}", **names)
            _run(connection, "ALTER TABLE {new}.{table} SET SCHEMA {live}", **names)
        for view, definition in views:
            _run(connection, "CREATE VIEW {live}.{view} AS ", definition, live=SCHEMA, view=view)
        _run(connection, "DROP SCHEMA {new}", new=REBUILT)
        _run(connection, "CALL {live}.grant_rights()", live=SCHEMA)
    return replaced


def drop(database_url: str, replaced: str) -> None:
    """Drops the tables that a rebuild has replaced."""
    assert replaced.startswith(REPLACED), "only tables that a rebuild has replaced"
    with _connected(database_url) as connection:
        _run(connection, "DROP SCHEMA {old} CASCADE", old=replaced)
