"""Postgres rebuilt from the journal, beside what lives: whole again, of the same make, and a sink
that was at work goes on."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from plumbing.failures import Failure
from sinks import rebuild
from sinks.journal_chain import JournalChain, JournalPosition, ReadJournalRecord
from sinks.postgres.ledger_writer import LedgerWriter, PartitionBatch, Superseded
from sinks.postgres.projection import Rows
from sinks.postgres.write_connection import Connections
from tests.integration.test_verify import WHOLE, Copies, N, changed, copies, rows_of
from tests.testkit import histories, naive_rows, recorded_topics
from tests.testkit.histories import Kept

MAKE = """
SELECT 'index', tablename, indexdef FROM pg_indexes WHERE schemaname = 'ledger'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'ledger'::regnamespace
UNION ALL
SELECT 'options', relname, reloptions::text FROM pg_class
WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'v')
UNION ALL
SELECT 'column', table_name, concat_ws(' ', ordinal_position, column_name, data_type, is_nullable,
       collation_name, generation_expression)
FROM information_schema.columns WHERE table_schema = 'ledger'
UNION ALL
SELECT 'grant', table_name, grantee || ' ' || privilege_type
FROM information_schema.role_table_grants WHERE table_schema = 'ledger'
UNION ALL
SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'ledger'
ORDER BY 1, 2, 3
"""


def query(url: str, text: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def sources(made: Copies) -> rebuild.PostgresSources:
    config: dict[str, str | int | float | bool] = {"bootstrap.servers": made.bootstrap}
    return rebuild.PostgresSources(config, made.names, histories.LEDGER_ID, N, made.database)


def quiet(partition: int, done: int, total: int) -> None:
    assert 0 <= partition < N and done <= total


@pytest.fixture
def made(kafka: str, postgres: str, template: str) -> Iterator[Copies]:
    with copies(kafka, postgres, template, WHOLE) as found:
        yield found


def test_damaged_books_are_whole_again(made: Copies) -> None:
    query(made.database, "INSERT INTO ledger.users (id, email) VALUES ('u', 'u@example.com')")
    before = query(made.database, MAKE)
    for table in ("entries", "accounts", "holds"):
        query(made.database, f"DELETE FROM ledger.{table} WHERE partition = 1")
    assert not made.verify().agree
    done = rebuild.rebuild(sources(made), quiet)
    assert done.sequences == tuple(len(one.journal) for one in WHOLE)
    report = made.verify()
    assert report.agree, report.text()
    assert query(made.database, MAKE) == before
    assert query(made.database, "SELECT id FROM ledger.users") == [("u",)]
    assert query(made.database, "SELECT count(*) FROM ledger.all_entries") == [
        (sum(len(rows_of(WHOLE).tables[name]) for name in ("entries", "system_entries")),)
    ]
    kept = query(made.database, f"SELECT count(*) FROM {done.replaced}.entries WHERE partition = 1")
    assert kept == [(0,)]
    rebuild.drop(made.database, done.replaced)
    schemas = query(made.database, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'ledger%'")
    assert schemas == [("ledger",)]


def test_it_can_be_done_again(made: Copies) -> None:
    first = rebuild.rebuild(sources(made), quiet)
    second = rebuild.rebuild(sources(made), quiet)
    assert first.sequences == second.sequences and first.replaced != second.replaced
    assert made.verify().agree


class Sink:
    """One partition's sink at work, as far as the tables go."""

    def __init__(self, database: str, kept: Kept) -> None:
        self._connections = Connections(database, "a sink", 1)
        self._kept = kept
        self._ledger = LedgerWriter(
            self._connections,
            histories.LEDGER_ID,
            threading.Event(),
            lambda step: None,
        )
        self._position = self._ledger.position(kept.number)
        self._chain = JournalChain(histories.LEDGER_ID, kept.number, self._position)

    def write(self, count: int) -> JournalPosition:
        """So many more records."""
        rows, start = Rows(self._kept.number), self._position.next_offset
        for offset, (_, value) in enumerate(self._kept.journal[start : start + count], start):
            rows.add(self._chain.follow(ReadJournalRecord(offset, value)))
        self._ledger.write([PartitionBatch(self._position, self._chain.position, rows)])
        self._position = self._chain.position
        return self._position

    def close(self) -> None:
        self._connections.close()


@pytest.fixture
def halves(kafka: str, postgres: str, template: str) -> Iterator[Copies]:
    """Topics with the first half of the journal; tables and state with nothing."""
    with copies(kafka, postgres, template, HALF, [], []) as found:
        yield found


HALF = [one.until(one.whole_steps()[len(one.whole_steps()) // 2]) for one in WHOLE]


def test_a_sink_at_work_goes_on_as_if_nothing_had_been(halves: Copies) -> None:
    """What it writes while the new tables are filled is in them when they change places."""
    sinks = [Sink(halves.database, one) for one in WHOLE]
    for sink, half in zip(sinks, HALF, strict=True):
        sink.write(len(half.journal))
    grown = False

    def progress(partition: int, done: int, total: int) -> None:
        nonlocal grown
        if partition == N - 1 and not grown:
            grown = True
            rest = [
                Kept(
                    one.number,
                    one.state,
                    one.commands[len(half.commands) :],
                    one.messages[len(half.messages) :],
                    one.journal[len(half.journal) :],
                    one.last_hash,
                    one.transactions[len(half.transactions) :],
                    one.letters[len(half.letters) :],
                )
                for one, half in zip(WHOLE, HALF, strict=True)
            ]
            recorded_topics.write(halves.bootstrap, halves.names, rest, WHOLE, WHOLE)
            for sink in sinks:
                sink.write(50)

    done = rebuild.rebuild(sources(halves), progress)
    assert done.sequences == tuple(len(one.journal) + 50 for one in HALF)
    for sink in sinks:
        sink.write(10_000)
        sink.close()
    report = halves.verify()
    assert report.agree, report.text()
    assert [each.postgres for each in report.partitions] == [len(one.journal) for one in WHOLE]


def test_a_sink_that_was_behind_finds_itself_superseded(made: Copies) -> None:
    """It begins again where the new tables are."""
    behind = [one.until(one.whole_steps()[100]) for one in WHOLE]
    query(made.database, "TRUNCATE " + ", ".join(f"ledger.{each}" for each in naive_rows.TABLES))
    naive_rows.copy(made.database, rows_of(behind))
    sink = Sink(made.database, WHOLE[0])
    rebuild.rebuild(sources(made), quiet)
    with pytest.raises(Superseded):
        sink.write(5)
    sink.close()
    again = Sink(made.database, WHOLE[0])
    assert again._position.sequence == len(WHOLE[0].journal)
    again.close()
    assert made.verify().agree


def test_a_broken_journal_replaces_nothing(kafka: str, postgres: str, template: str) -> None:
    value = WHOLE[0].journal[300][1]
    broken = changed(300, value.replace(b'"time_ms":1', b'"time_ms":2', 1))
    with copies(kafka, postgres, template, broken, WHOLE, WHOLE) as made:
        before = query(made.database, "SELECT 'ledger.entries'::regclass::oid")
        with pytest.raises(Failure, match=r"nothing was replaced: .* offset 301"):
            rebuild.rebuild(sources(made), quiet)
        assert query(made.database, "SELECT 'ledger.entries'::regclass::oid") == before
        wrong = sources(made)._replace(ledger_id="another")
        with pytest.raises(Failure, match=r"nothing was replaced.*has previous_hash"):
            rebuild.rebuild(wrong, quiet)


def test_two_at_once_are_one_too_many(made: Copies) -> None:
    with psycopg.connect(made.database) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (rebuild.LOCK_KEY,))
        with pytest.raises(Failure, match="another rebuild"):
            rebuild.rebuild(sources(made), quiet)


def test_readers_that_hold_on_make_it_give_up(
    made: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "LOCK_TIMEOUT_MS", 50)
    with psycopg.connect(made.database) as reader:
        reader.execute("SELECT count(*) FROM ledger.entries")
        with pytest.raises(Failure, match="the live tables are busy, nothing was replaced"):
            rebuild.rebuild(sources(made), quiet)
    assert made.verify().agree


def test_every_table_that_the_sink_copies_into_is_rebuilt() -> None:
    rows = rows_of(WHOLE)
    assert set(rebuild.BOOKS) == set(rows.tables)
