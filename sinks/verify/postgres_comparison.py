"""The rows of Postgres beside what the journal makes of them, in one snapshot.

History comes in the journal's order and is compared record by record, so that little of it is in
memory; what is only now, accounts and holds, is compared once the books stand where Postgres does.
It shares no code with the sink.
"""

from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Any, Final

import psycopg
from psycopg import Connection, IsolationLevel
from psycopg.rows import TupleRow

from plumbing.failures import Failure
from plumbing.postgres import connection_pool
from schemas import commands
from schemas.journal import JournalRecord
from sinks.verify import expected_rows
from sinks.verify.expected_rows import Values
from sinks.verify.replayed_books import ReplayedBooks
from sinks.verify.report import Differences

CONNECT_TIMEOUT_S: Final = 10
CHUNK: Final = 5_000
_OWNS: Final = frozenset({"posted", "rejected", "pending"})


class _Rows:
    """A table's rows in their order, a few at a time."""

    def __init__(self, connection: Connection[TupleRow], table: str) -> None:
        self.table = table
        self.count = 0
        self._cursor = connection.cursor(name=f"verify_{table}")
        self._cursor.itersize = CHUNK
        self._cursor.execute(_sql(table))
        self._rows: Iterator[TupleRow] = iter(self._cursor)
        self.head: TupleRow | None = next(self._rows, None)

    def close(self) -> None:
        self._cursor.close()

    def next(self) -> TupleRow:
        row = self.head
        assert row is not None, "asked only where there is one"
        self.head = next(self._rows, None)
        self.count += 1
        return row

    def below(self, *key: int) -> Iterator[TupleRow]:
        """The rows that stand before a key, and were not taken."""
        while self.head is not None and self.head[: len(key)] < key:
            yield self.next()

    def at(self, *key: int) -> list[Values]:
        """The rows of a key, without it."""
        found = []
        while self.head is not None and self.head[: len(key)] == key:
            found.append(list(self.next()[len(key) :]))
        return found


def _connect(database_url: str) -> Connection[TupleRow]:
    try:
        connection = psycopg.connect(
            database_url, connect_timeout=CONNECT_TIMEOUT_S, options="-c TimeZone=UTC"
        )
    except psycopg.OperationalError as error:
        raise connection_pool.failure(error) from None
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    return connection


def _positions(connection: Connection[TupleRow]) -> dict[int, Values]:
    try:
        found = connection.execute(_sql("positions")).fetchall()
    except psycopg.errors.UndefinedTable:
        connection.close()
        raise Failure("the database has no ledger: `streamledger migrate` makes it") from None
    return {partition: list(rest) for partition, *rest in found}


def sequences(database_url: str) -> dict[int, int]:
    """By partition how many journal records the tables have now."""
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
        self._now = {
            name: _Rows(connection, name) for name in ("accounts", "system_accounts", "holds")
        }
        # What may still change: by transaction its row, if any, and what must stand there.
        self._undecided: dict[str, tuple[Values | None, Values]] = {}
        self._asked: dict[str, tuple[Values | None, Values]] = {}
        # By the original: the reversals that rows name, and those that the journal posted.
        self._told_reversals: dict[str, str] = {}
        self._reversals: dict[str, str] = {}

    def close(self) -> None:
        for rows_of in (*self._history.values(), *self._now.values()):
            rows_of.close()
        self._connection.close()

    def sequence(self, partition: int) -> int:
        """How many journal records of a partition are in the tables."""
        position = self._positions.get(partition)
        return 0 if position is None else int(position[2])

    @property
    def compared(self) -> int:
        return sum(each.count for each in (*self._history.values(), *self._now.values()))

    def check_partitions(self, partitions: int) -> None:
        for partition in self._positions:
            if not 0 <= partition < partitions:
                self._note("positions", f"has partition {partition} of {partitions}", partition)

    # History

    def fold(self, partition: int, offset: int, record: JournalRecord) -> None:
        """Called for each record that the tables have, in order, after the books have it."""
        at = (partition, record.sequence)
        for each in self._history.values():
            for extra in each.below(*at):
                self._extra(each.table, extra)
        place = partition, offset, record
        self._entries(place)
        if record.source.topic == "commands":
            self._command(place)
        else:
            self._none("transactions", at)
            self._none("commands", at)
        if record.command_offset is not None:
            self._decision(place)
        if record.step == "posted" and isinstance(record.command, commands.Reverse):
            self._reversals[record.command.transaction_id] = record.transaction_id or ""

    def _entries(self, place: tuple[int, int, JournalRecord]) -> None:
        partition, _, record = place
        at, time, id = (
            (partition, record.sequence),
            expected_rows.moment(record.time_ms),
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
        for table, wanted in expected.items():
            found = self._history[table].at(*at)
            if wanted or found:
                wanted.sort(key=expected_rows.account_version)
                self._same_list(table, expected_rows.ENTRY, found, wanted, place)

    def _command(self, place: tuple[int, int, JournalRecord]) -> None:
        partition, _, record = place
        at, id = (partition, record.sequence), record.transaction_id or ""
        found = self._history["commands"].at(*at)
        wanted = expected_rows.command_row(record)
        if record.step == "pending":
            self._asked[id] = (found.pop(0) if found else None), wanted
            self._extras("commands", found, at)
        else:
            self._same_list("commands", expected_rows.COMMAND, found, [wanted], place)
        found = self._history["transactions"].at(*at)
        if record.step not in _OWNS or record.command is None:
            self._extras("transactions", found, at)
            return
        for row in found:
            if row[expected_rows.REVERSED_BY] is not None:
                self._told_reversals[row[0]] = row[expected_rows.REVERSED_BY]
                row[expected_rows.REVERSED_BY] = None
        wanted = expected_rows.transaction_row(record, record.command)
        if record.step == "pending":
            self._undecided[id] = (found.pop(0) if found else None), wanted
            self._extras("transactions", found, at)
        else:
            self._same_list("transactions", expected_rows.TRANSACTION, found, [wanted], place)

    def _decision(self, place: tuple[int, int, JournalRecord]) -> None:
        _, _, record = place
        id = record.transaction_id or ""
        if id in self._undecided:
            row, wanted = self._undecided.pop(id)
            wanted[1:7] = (
                record.step,
                record.reason,
                record.sequence,
                expected_rows.moment(record.time_ms),
                record.fee,
                record.commission_bps,
            )
            self._same("transactions", expected_rows.TRANSACTION, row, wanted, place)
        if id in self._asked:
            row, wanted = self._asked.pop(id)
            wanted[1:4] = record.step, record.reason, record.detail
            self._same("commands", expected_rows.COMMAND, row, wanted, place)

    # Now

    def compare(self, books: ReplayedBooks) -> None:
        """Once the books have just the records that the tables have of this partition."""
        partition = books.partition
        for each in self._history.values():
            for extra in each.below(partition + 1, 0):
                self._extra(each.table, extra)
        for row, wanted in self._undecided.values():
            self._same(
                "transactions", expected_rows.TRANSACTION, row, wanted, (partition, None, None)
            )
        for row, wanted in self._asked.values():
            self._same("commands", expected_rows.COMMAND, row, wanted, (partition, None, None))
        for id in self._told_reversals.keys() | self._reversals.keys():
            told, posted = self._told_reversals.get(id), self._reversals.get(id)
            if told != posted:
                what = f"reversed_by is {told}, by the journal {posted}"
                self._note("transactions", what, partition, transaction_id=id)
        for waiting in (self._undecided, self._asked, self._told_reversals, self._reversals):
            waiting.clear()
        self._same_table(
            "accounts", expected_rows.ACCOUNT, partition, expected_rows.accounts(books)
        )
        self._same_table(
            "system_accounts", expected_rows.SHARD, partition, expected_rows.shards(books)
        )
        self._same_table("holds", expected_rows.HOLD, partition, expected_rows.holds(books))
        self._same_position(books)

    def _same_position(self, books: ReplayedBooks) -> None:
        found = self._positions.get(books.partition)
        if found is None and not books.sequence:
            return
        wanted = [
            books.ledger_id,
            books.last_offset + 1,
            books.sequence,
            books.hash,
            expected_rows.moment(books.time_ms),
            None if books.settings is None else books.settings.format_level,
        ]
        if found is None:
            self._note("positions", "has no row", books.partition)
            return
        for name, told, expected in zip(expected_rows.POSITION, found, wanted, strict=True):
            if told != expected:
                what = f"{name} is {told}, by the journal {expected}"
                self._note("positions", what, books.partition)

    def _same_table(
        self, table: str, columns: tuple[str, ...], partition: int, wanted: dict[str, Values]
    ) -> None:
        there = self._now[table]
        for extra in there.below(partition):
            self._extra(table, extra)
        for row in there.at(partition):
            expected = wanted.pop(row[0], None)
            if expected is None:
                self._extra(table, (partition, *row))
            else:
                self._same(table, columns, row, expected, (partition, None, None))
        for expected in wanted.values():
            self._same(table, columns, None, expected, (partition, None, None))

    def finish(self) -> None:
        """Rows of partitions that there are not."""
        for each in (*self._history.values(), *self._now.values()):
            while each.head is not None:
                self._extra(each.table, each.next())

    # Differences

    def _same_list(
        self,
        table: str,
        columns: tuple[str, ...],
        found: list[Values],
        wanted: list[Values],
        place: tuple[int, int, JournalRecord],
    ) -> None:
        """Rows of one record, in order. Paired by what names a row, so that one that is missing
        does not make all after it differ."""
        if found == wanted:
            return
        names = 2 if columns is expected_rows.ENTRY else 1
        left = {tuple(row[:names]): row for row in found}
        for expected in wanted:
            self._same(table, columns, left.pop(tuple(expected[:names]), None), expected, place)
        self._extras(table, list(left.values()), (place[0], place[2].sequence))

    def _same(
        self,
        table: str,
        columns: tuple[str, ...],
        found: Values | None,
        wanted: Values,
        place: tuple[int, int | None, JournalRecord | None],
    ) -> None:
        if found == wanted:
            return
        partition, offset, record = place
        name, account, id = _names(columns, wanted)
        if found is None:
            what = f"has no row {name}"
        else:
            pairs = zip(columns, found, wanted, strict=True)
            told = [f"{column} is {a}, by the journal {b}" for column, a, b in pairs if a != b]
            what = f"{name}: {'; '.join(told)}"
        self._note(
            table,
            what,
            partition,
            offset=offset,
            sequence=None if record is None else record.sequence,
            account=account,
            transaction_id=id,
        )

    def _none(self, table: str, at: tuple[int, int]) -> None:
        self._extras(table, self._history[table].at(*at), at)

    def _extras(self, table: str, found: list[Values], at: tuple[int, int]) -> None:
        for row in found:
            self._extra(table, (*at, *row))

    def _extra(self, table: str, row: TupleRow) -> None:
        """A row that the journal knows nothing of."""
        partition, *rest = row
        of_history = table in self._history
        values = rest[1:] if of_history else rest
        name, account, id = _names(_COLUMNS[table], values)
        self._note(
            table,
            f"has a row {name} that the journal has not",
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


def _names(columns: tuple[str, ...], values: Sequence[Any]) -> tuple[str, str | None, str | None]:
    """What a row is called, and the account and the transaction that it is about."""
    named = dict(zip(columns, values, strict=True))
    if columns is expected_rows.ENTRY:
        return f"version {named['version']}", named["account"], named["transaction_id"]
    account = (
        named["id"] if columns in (expected_rows.ACCOUNT, expected_rows.SHARD) else named["account"]
    )
    id = named["id"] if columns is expected_rows.TRANSACTION else named.get("transaction_id")
    return str(values[0]), account, id


def _sql(name: str) -> bytes:
    return (resources.files("sinks") / "sql" / "verify" / f"{name}.sql").read_bytes()
