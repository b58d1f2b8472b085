"""Compares the rows of Postgres, in one snapshot, with those that the journal gives.

It reads history in the journal's order and compares it record by record, to keep memory small. It
compares current rows, accounts and holds, when the books reach the sequence of Postgres. It must
not know the sink.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg
from psycopg import Connection, IsolationLevel
from psycopg.rows import TupleRow

from plumbing.failures import Failure
from plumbing.postgres import connection_pool
from plumbing.postgres.sql_files import SqlFiles
from schemas import commands
from schemas.journal import JournalRecord
from sinks.verify import expected_rows
from sinks.verify.expected_rows import Values
from sinks.verify.replayed_books import ReplayedBooks
from sinks.verify.report import Differences

CONNECT_TIMEOUT_S: Final = 10
FETCH_ROWS: Final = 5_000
STATEMENTS: Final = SqlFiles("sinks", "sql", "verify")
_OWNING_STEPS: Final = frozenset({"posted", "rejected", "pending"})


class _Rows:
    """Reads a table's rows in order, in small fetches."""

    def __init__(self, connection: Connection[TupleRow], table: str) -> None:
        self.table = table
        self.count = 0
        self._cursor = connection.cursor(name=f"verify_{table}")
        self._cursor.itersize = FETCH_ROWS
        self._cursor.execute(STATEMENTS[table])
        self._rows: Iterator[TupleRow] = iter(self._cursor)
        self.head: TupleRow | None = next(self._rows, None)

    def close(self) -> None:
        self._cursor.close()

    def next(self) -> TupleRow:
        row = self.head
        assert row is not None, "the caller checks `head`"
        self.head = next(self._rows, None)
        self.count += 1
        return row

    def below(self, *key: int) -> Iterator[TupleRow]:
        """Takes the rows before a key: rows that the journal does not have."""
        while self.head is not None and self.head[: len(key)] < key:
            yield self.next()

    def take(self, *key: int) -> list[Values]:
        """Takes the rows with a key, without the key."""
        rows = []
        while self.head is not None and self.head[: len(key)] == key:
            rows.append(list(self.next()[len(key) :]))
        return rows


def _connect(database_url: str) -> Connection[TupleRow]:
    try:
        connection = psycopg.connect(
            database_url, connect_timeout=CONNECT_TIMEOUT_S, options="-c TimeZone=UTC"
        )
    except psycopg.OperationalError as error:
        raise connection_pool.connection_failure(error) from None
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def _positions(connection: Connection[TupleRow]) -> dict[int, Values]:
    try:
        rows = connection.execute(STATEMENTS["positions"]).fetchall()
    except psycopg.errors.UndefinedTable:
        connection.close()
        raise Failure("the database has no ledger tables: run `streamledger migrate`") from None
    return {partition: list(rest) for partition, *rest in rows}


def sequences(database_url: str) -> dict[int, int]:
    """By partition: the journal sequence that the tables have now."""
    connection = _connect(database_url)
    try:
        return {number: int(rest[2]) for number, rest in _positions(connection).items()}
    finally:
        connection.close()


class PostgresComparison:
    def __init__(self, database_url: str, differences: Differences) -> None:
        self._differences = differences
        self._connection = connection = _connect(database_url)
        self._positions = _positions(connection)
        self._history = {
            name: _Rows(connection, name)
            for name in ("entries", "system_entries", "transactions", "commands")
        }
        self._current = {
            name: _Rows(connection, name) for name in ("accounts", "system_accounts", "holds")
        }
        # By transaction id: rows that a decision may still change, as stored and as expected.
        self._undecided_transactions: dict[str, tuple[Values | None, Values]] = {}
        self._undecided_commands: dict[str, tuple[Values | None, Values]] = {}
        # By original transaction: the reversals in stored rows, and those that the journal posted.
        self._row_reversals: dict[str, str] = {}
        self._reversals: dict[str, str] = {}

    def close(self) -> None:
        for table_rows in (*self._history.values(), *self._current.values()):
            table_rows.close()
        self._connection.close()

    def sequence(self, partition: int) -> int:
        """The journal sequence of a partition that the tables have reached."""
        position = self._positions.get(partition)
        return 0 if position is None else int(position[2])

    @property
    def compared(self) -> int:
        return sum(each.count for each in (*self._history.values(), *self._current.values()))

    def check_partitions(self, partitions: int) -> None:
        for partition in self._positions:
            if not 0 <= partition < partitions:
                self._note(
                    "positions",
                    f"has partition {partition} of a ledger of {partitions}",
                    partition,
                )

    # History

    def fold(self, partition: int, offset: int, record: JournalRecord) -> None:
        """Call it with each record that the tables have, in order, after the books fold it."""
        key = (partition, record.sequence)
        for each in self._history.values():
            for extra in each.below(*key):
                self._extra(each.table, extra)
        location = partition, offset, record
        self._entries(location)
        if record.source.topic == "commands":
            self._command(location)
        else:
            self._expect_none("transactions", key)
            self._expect_none("commands", key)
        if record.command_offset is not None:
            self._decision(location)
        if record.step == "posted" and isinstance(record.command, commands.Reverse):
            self._reversals[record.command.transaction_id] = record.transaction_id or ""

    def _entries(self, location: tuple[int, int, JournalRecord]) -> None:
        partition, _, record = location
        key, time, id = (
            (partition, record.sequence),
            expected_rows.timestamp(record.time_ms),
            record.transaction_id,
        )
        expected: dict[str, list[Values]] = {"entries": [], "system_entries": []}
        for entry in record.entries:
            is_system = isinstance(entry.balance, str)
            expected["system_entries" if is_system else "entries"].append(
                [
                    entry.account,
                    entry.version,
                    entry.direction,
                    entry.amount,
                    int(entry.balance) if expected_rows.is_number(entry.balance) else entry.balance,
                    entry.held,
                    time,
                    id,
                ]
            )
        for table, expected_entries in expected.items():
            stored_rows = self._history[table].take(*key)
            if expected_entries or stored_rows:
                expected_entries.sort(key=expected_rows.account_version)
                self._expect_rows(
                    table, expected_rows.ENTRY, stored_rows, expected_entries, location
                )

    def _command(self, location: tuple[int, int, JournalRecord]) -> None:
        partition, _, record = location
        key, id = (partition, record.sequence), record.transaction_id or ""
        stored_rows = self._history["commands"].take(*key)
        expected_row = expected_rows.command_row(record)
        if record.step == "pending":
            self._undecided_commands[id] = (
                (stored_rows.pop(0) if stored_rows else None),
                expected_row,
            )
            self._extras("commands", stored_rows, key)
        else:
            self._expect_rows(
                "commands", expected_rows.COMMAND, stored_rows, [expected_row], location
            )
        stored_rows = self._history["transactions"].take(*key)
        if record.step not in _OWNING_STEPS or record.command is None:
            self._extras("transactions", stored_rows, key)
            return
        for row in stored_rows:
            if row[expected_rows.REVERSED_BY] is not None:
                self._row_reversals[row[0]] = row[expected_rows.REVERSED_BY]
                row[expected_rows.REVERSED_BY] = None
        expected_row = expected_rows.transaction_row(record, record.command)
        if record.step == "pending":
            self._undecided_transactions[id] = (
                (stored_rows.pop(0) if stored_rows else None),
                expected_row,
            )
            self._extras("transactions", stored_rows, key)
        else:
            self._expect_rows(
                "transactions", expected_rows.TRANSACTION, stored_rows, [expected_row], location
            )

    def _decision(self, location: tuple[int, int, JournalRecord]) -> None:
        _, _, record = location
        id = record.transaction_id or ""
        if id in self._undecided_transactions:
            row, expected_row = self._undecided_transactions.pop(id)
            expected_row[1:7] = (
                record.step,
                record.reason,
                record.sequence,
                expected_rows.timestamp(record.time_ms),
                record.fee,
                record.commission_bps,
            )
            self._expect_row("transactions", expected_rows.TRANSACTION, row, expected_row, location)
        if id in self._undecided_commands:
            row, expected_row = self._undecided_commands.pop(id)
            expected_row[1:4] = record.step, record.reason, record.detail
            self._expect_row("commands", expected_rows.COMMAND, row, expected_row, location)

    # Current rows

    def compare(self, books: ReplayedBooks) -> None:
        """Call it when the books have reached the sequence of the tables."""
        partition = books.partition
        for each in self._history.values():
            for extra in each.below(partition + 1, 0):
                self._extra(each.table, extra)
        for row, expected_row in self._undecided_transactions.values():
            self._expect_row(
                "transactions",
                expected_rows.TRANSACTION,
                row,
                expected_row,
                (partition, None, None),
            )
        for row, expected_row in self._undecided_commands.values():
            self._expect_row(
                "commands", expected_rows.COMMAND, row, expected_row, (partition, None, None)
            )
        for id in self._row_reversals.keys() | self._reversals.keys():
            stored, posted = self._row_reversals.get(id), self._reversals.get(id)
            if stored != posted:
                what = f"reversed_by is {stored}, expected {posted}"
                self._note("transactions", what, partition, transaction_id=id)
        for waiting in (
            self._undecided_transactions,
            self._undecided_commands,
            self._row_reversals,
            self._reversals,
        ):
            waiting.clear()
        self._expect_table(
            "accounts", expected_rows.ACCOUNT, partition, expected_rows.accounts(books)
        )
        self._expect_table(
            "system_accounts", expected_rows.SHARD, partition, expected_rows.shards(books)
        )
        self._expect_table("holds", expected_rows.HOLD, partition, expected_rows.holds(books))
        self._expect_position(books)

    def _expect_position(self, books: ReplayedBooks) -> None:
        position = self._positions.get(books.partition)
        if position is None and not books.sequence:
            return
        expected_position = [
            books.ledger_id,
            books.last_offset + 1,
            books.sequence,
            books.hash,
            expected_rows.timestamp(books.time_ms),
            None if books.settings is None else books.settings.format_level,
        ]
        if position is None:
            self._note("positions", "has no row", books.partition)
            return
        for name, actual, expected in zip(
            expected_rows.POSITION, position, expected_position, strict=True
        ):
            if actual != expected:
                what = f"{name} is {actual}, expected {expected}"
                self._note("positions", what, books.partition)

    def _expect_table(
        self, table: str, columns: tuple[str, ...], partition: int, rows_by_id: dict[str, Values]
    ) -> None:
        current_rows = self._current[table]
        for extra in current_rows.below(partition):
            self._extra(table, extra)
        for row in current_rows.take(partition):
            expected_row = rows_by_id.pop(row[0], None)
            if expected_row is None:
                self._extra(table, (partition, *row))
            else:
                self._expect_row(table, columns, row, expected_row, (partition, None, None))
        for expected_row in rows_by_id.values():
            self._expect_row(table, columns, None, expected_row, (partition, None, None))

    def finish(self) -> None:
        """Notes the rows of partitions that do not exist."""
        for each in (*self._history.values(), *self._current.values()):
            while each.head is not None:
                self._extra(each.table, each.next())

    # Differences

    def _expect_rows(
        self,
        table: str,
        columns: tuple[str, ...],
        rows: list[Values],
        expected: list[Values],
        location: tuple[int, int, JournalRecord],
    ) -> None:
        """Compares the rows of one record. Pairs them by name, so that a missing row does not make
        the later ones differ."""
        if rows == expected:
            return
        names = 2 if columns is expected_rows.ENTRY else 1
        left = {tuple(row[:names]): row for row in rows}
        for expected_row in expected:
            self._expect_row(
                table, columns, left.pop(tuple(expected_row[:names]), None), expected_row, location
            )
        self._extras(table, list(left.values()), (location[0], location[2].sequence))

    def _expect_row(
        self,
        table: str,
        columns: tuple[str, ...],
        actual: Values | None,
        expected: Values,
        location: tuple[int, int | None, JournalRecord | None],
    ) -> None:
        if actual == expected:
            return
        partition, offset, record = location
        name, account, id = _describe(columns, expected)
        if actual is None:
            what = f"has no row {name}"
        else:
            pairs = zip(columns, actual, expected, strict=True)
            differing_columns = [
                f"{column} is {actual_field}, expected {expected_field}"
                for column, actual_field, expected_field in pairs
                if actual_field != expected_field
            ]
            what = f"{name}: {'; '.join(differing_columns)}"
        self._note(
            table,
            what,
            partition,
            offset=offset,
            sequence=None if record is None else record.sequence,
            account=account,
            transaction_id=id,
        )

    def _expect_none(self, table: str, key: tuple[int, int]) -> None:
        self._extras(table, self._history[table].take(*key), key)

    def _extras(self, table: str, stored_rows: list[Values], key: tuple[int, int]) -> None:
        for row in stored_rows:
            self._extra(table, (*key, *row))

    def _extra(self, table: str, row: TupleRow) -> None:
        """Notes a row that the journal does not have."""
        partition, *rest = row
        of_history = table in self._history
        values = rest[1:] if of_history else rest
        name, account, id = _describe(_COLUMNS[table], values)
        self._note(
            table,
            f"has a row {name} that is not in the journal",
            partition,
            sequence=rest[0] if of_history else None,
            account=account,
            transaction_id=id,
        )

    def _note(
        self,
        table: str,
        what: str,
        partition: int,
        *,
        offset: int | None = None,
        sequence: int | None = None,
        account: str | None = None,
        transaction_id: str | None = None,
    ) -> None:
        self._differences.note(
            "postgres",
            f"{table} {what}",
            partition=partition,
            offset=offset,
            sequence=sequence,
            account=account,
            transaction_id=transaction_id,
        )


_COLUMNS: Final = {
    "entries": expected_rows.ENTRY,
    "system_entries": expected_rows.ENTRY,
    "transactions": expected_rows.TRANSACTION,
    "commands": expected_rows.COMMAND,
    "accounts": expected_rows.ACCOUNT,
    "system_accounts": expected_rows.SHARD,
    "holds": expected_rows.HOLD,
}


def _describe(
    columns: tuple[str, ...], values: Sequence[Any]
) -> tuple[str, str | None, str | None]:
    """A row's name, its account and its transaction."""
    fields = dict(zip(columns, values, strict=True))
    if columns is expected_rows.ENTRY:
        return f"version {fields['version']}", fields["account"], fields["transaction_id"]
    account = (
        fields["id"]
        if columns in (expected_rows.ACCOUNT, expected_rows.SHARD)
        else fields["account"]
    )
    id = fields["id"] if columns is expected_rows.TRANSACTION else fields.get("transaction_id")
    return str(values[0]), account, id
