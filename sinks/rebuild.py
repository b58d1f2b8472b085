"""`streamledger rebuild postgres`: the books in Postgres made anew from `journal`, beside the live
ones, then put in their place.

In this order:

  1. empty tables of the same make, in a schema of their own;
  2. the journal, as it is now, written into them just as the sink does;
  3. their indexes;
  4. one transaction: lock the live tables, write what the sink has written there meanwhile, and
     change places.

Until the end of 4 nothing of the live books has changed. A sink may run on: it waits while they are
locked, and goes on where it was, or finds itself superseded where the live books were wrong. What
the ingress keeps for itself is not touched.
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
# Any number that nobody else locks.
LOCK_KEY: Final = 7_305_812_275
LOCK_TIMEOUT_MS: Final = 20_000
ATTEMPTS: Final = 5

# Told of partition, done and total.
Progress = Callable[[int, int, int], None]


class RebuiltPostgres(NamedTuple):
    """`replaced`: the schema that the tables which were replaced are kept in."""

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
        _only_one(connection)
        write_connection.check_schema(connection)
        _make_tables(connection)
        connections = Connections(sources.database_url, APPLICATION, 1, REBUILT)
        try:
            writers = [
                _Writer(sources, connections, number) for number in range(sources.partitions)
            ]
            for writer in writers:
                writer.write(None, progress)
            _make_indexes(connection)
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


class _Writer:
    """One partition's journal, written into the new tables."""

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
        """All that is committed, or what lies before an offset."""
        start, end = self._journal.range()
        if start > self._position.next_offset:
            raise Failure(
                f"partition {self.partition} of the journal begins at {start}: it was cut, and"
                " nothing was replaced"
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
        raise Failure(f"{first_line(error)}: rebuild as whoever migrates the database") from None
    finally:
        connection.close()


def _only_one(connection: Connection[TupleRow]) -> None:
    found = connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK_KEY,)).fetchone()
    if found is None or not found[0]:
        raise Failure("another rebuild runs on this database")


def _run(connection: Connection[TupleRow], statement: str, rest: str = "", **names: str) -> None:
    """`rest` follows on the statement, as Postgres has told it."""
    identifiers = {name: sql.Identifier(value) for name, value in names.items()}
    composed = sql.SQL(statement).format(**identifiers).as_bytes(connection)
    connection.execute(composed + rest.encode())


class _Make(NamedTuple):
    options: list[str] | None
    keys: list[str]
    indexes: list[str]


def _make_of(connection: Connection[TupleRow], table: str) -> _Make:
    found = connection.execute(STATEMENTS["tables"], {"table": f"{SCHEMA}.{table}"}).fetchone()
    assert found is not None, "a table that is there is described"
    return _Make(*found)


def _make_tables(connection: Connection[TupleRow]) -> None:
    """1. What an earlier attempt has left is made again."""
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
            made = _make_of(connection, table)
            for key in made.keys:
                _run(connection, "ALTER TABLE {new}.{table} ", key, **names)
            if made.options:
                options = f"({', '.join(made.options)})"
                _run(connection, "ALTER TABLE {new}.{table} SET ", options, **names)


def _make_indexes(connection: Connection[TupleRow]) -> None:
    """3. As they are on the live tables."""
    for table in BOOKS:
        for definition in _make_of(connection, table).indexes:
            here, there = f" ON {SCHEMA}.", f" ON {REBUILT}."
            assert here in definition, "an index names its table's schema"
            connection.execute(definition.replace(here, there, 1).encode())
        _run(connection, "ANALYZE {new}.{table}", new=REBUILT, table=table)


def _switch(connection: Connection[TupleRow], writers: list[_Writer], progress: Progress) -> str:
    """4."""
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
    """The tables that were replaced, for good."""
    assert replaced.startswith(REPLACED), "only what a rebuild has put aside"
    with _connected(database_url) as connection:
        _run(connection, "DROP SCHEMA {old} CASCADE", old=replaced)
