"""verify on real topics and tables: whole histories agree, and it reports each copy that was
changed, lost or stalled."""

import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
import psycopg
import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from compose.cli import main
from processor.rules.evolve import evolve
from schemas import journal, state
from schemas.encoding import codecs
from schemas.journal import JournalRecord
from schemas.published_records import DeadLetter, TransactionRecord
from schemas.topics import Names
from sinks.verify import postgres_comparison
from sinks.verify.report import Difference, VerifyReport
from sinks.verify.verification import VerifyOptions, verify
from tests import conftest
from tests.testkit import histories, naive_rows, recorded_topics
from tests.testkit.histories import Kept
from tests.testkit.naive_rows import Rows

SEED = 21
WHOLE = histories.of_seed(SEED).partitions
N = len(WHOLE)
Letter = tuple[int, bytes | None, DeadLetter]


class Copies(NamedTuple):
    bootstrap: str
    names: Names
    database: str

    def verify(self, **options: Any) -> VerifyReport:
        verify_options = VerifyOptions(
            config={"bootstrap.servers": self.bootstrap},
            names=self.names,
            partitions=N,
            database_url=self.database,
            **options,
        )
        seen: list[tuple[int, int]] = []
        report = verify(verify_options, lambda done, total: seen.append((done, total)))
        assert seen[-1][0] == seen[-1][1]
        assert report.agree is (not report.differences)
        assert msgspec.json.decode(report.json(), type=VerifyReport) == report
        return report


@contextmanager
def copies(
    kafka: str,
    postgres: str,
    template: str,
    history: list[Kept],
    rows: list[Kept] | None = None,
    states: list[Kept] | None = None,
    results: list[Kept] | None = None,
    change_results: recorded_topics.ChangeResults = list,
    journaled_ms: int = 0,
) -> Iterator[Copies]:
    """The history in topics; tables and state as they were at other times, unless not given;
    results as the tables.
    """
    name = secrets.token_hex(5)
    names = recorded_topics.make(kafka, f"v{name}-", N)
    results = results if results is not None else rows
    recorded_topics.write(kafka, names, history, states, results, change_results, journaled_ms)
    conftest.create(postgres, f"verify_{name}", template)
    database = conftest.beside(postgres, f"verify_{name}")
    naive_rows.copy(database, rows_of(rows if rows is not None else history))
    yield Copies(kafka, names, database)
    conftest.drop(postgres, f"verify_{name}")


def rows_of(history: list[Kept]) -> Rows:
    rows = Rows()
    for one in history:
        rows.fold(histories.LEDGER_ID, one.number, enumerate(value for _, value in one.journal))
    return rows


@pytest.fixture(scope="module")
def whole(kafka: str, postgres: str, template: str) -> Iterator[Copies]:
    with copies(kafka, postgres, template, WHOLE) as ledger_copies:
        yield ledger_copies


def first(report: VerifyReport, copy: str) -> Difference:
    found = [each for each in report.differences if each.copy == copy]
    assert found, report.text()
    return found[0]


# Agreement


@pytest.mark.parametrize("against_rules", [False, True])
def test_a_whole_history_agrees(whole: Copies, against_rules: bool) -> None:
    report = whole.verify(against_rules=against_rules)
    assert report.agree, report.text()
    records = sum(len(one.journal) for one in WHOLE)
    assert report.compared["journal records"] == records
    assert report.compared["commands"] == sum(len(one.commands) for one in WHOLE)
    assert report.compared["state keys"] == sum(len(one.changelog()) - 1 for one in WHOLE)
    assert report.compared["decisions" if against_rules else "rows"] > 0
    assert report.compared["transactions"] == sum(len(one.transactions) for one in WHOLE)
    assert report.compared["results"] == sum(len(recorded_topics.results_of(one)) for one in WHOLE)
    assert report.compared["dead letters"] == sum(len(one.letters) for one in WHOLE) > 0
    assert "all copies agree" in report.text()
    assert [each.sequence for each in report.partitions] == [len(one.journal) for one in WHOLE]


@pytest.mark.usefixtures("impatient")
def test_a_copy_that_stands_still_is_named_with_how_much_it_lacks(
    kafka: str, postgres: str, template: str
) -> None:
    """In the middle of things: messages in flight, commands that wait; what the copies have is
    right, and nothing else is named."""
    dice = random.Random(34)
    history = histories.in_flight(1, 900, N).partitions
    tables = [one.until(dice.choice(one.whole_steps()[:-9])) for one in history]
    results = [one.until(dice.choice(one.whole_steps()[:9])) for one in tables]
    with copies(kafka, postgres, template, history, tables, results=results) as ledger_copies:
        report = ledger_copies.verify(against_rules=True)
    assert report.difference_counts == {"postgres": N, "results": N}, report.text()
    for partition, one, rows in zip(report.partitions, history, tables, strict=True):
        assert (partition.sequence, partition.postgres) == (len(one.journal), len(rows.journal))
        assert partition.waiting == len(one.waiting)
        behind = f"{partition.sequence - len(rows.journal):,} journal records behind"
        assert f"stalled at sequence {len(rows.journal)}, {behind}" in report.text()


def test_a_copy_that_catches_up_is_no_difference(kafka: str, postgres: str, template: str) -> None:
    """It moves while it is waited for; the report says by how much it is behind."""
    behind = [one.until(one.whole_steps()[-40]) for one in SMALL]
    with (
        pytest.MonkeyPatch.context() as patch,
        copies(kafka, postgres, template, SMALL, behind) as ledger_copies,
    ):
        patch.setattr("sinks.verify.topic_reader.CATCH_UP_S", 0.3)
        # Where it was seen first: further back than it is.
        there = postgres_comparison.sequences(ledger_copies.database)
        seen = iter([{number: at - 5 for number, at in there.items()}])
        patch.setattr("sinks.verify.postgres_comparison.sequences", lambda url: next(seen, there))
        report = ledger_copies.verify()
    assert report.agree, report.text()
    assert {each.copy for each in report.behind} == {"postgres"}
    assert "postgres, partition 0: catching up, " in report.text()


@pytest.mark.usefixtures("impatient")
def test_tables_without_rows(kafka: str, postgres: str, template: str) -> None:
    with copies(kafka, postgres, template, SMALL, [], results=SMALL) as ledger_copies:
        report = ledger_copies.verify()
    assert {each.postgres for each in report.partitions} == {0}
    # Each partition is stalled, and its results are ahead of it.
    assert report.difference_counts == {"postgres": N, "results": N}, report.text()
    assert "results, partition 0: published up to sequence" in report.text()
    length = len(SMALL[0].journal)
    assert f"stalled at sequence 0, {length:,} journal records behind" in report.text()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("results", ["results", "results and positions", "positions"])
def test_results_that_were_emptied(kafka: str, postgres: str, template: str, results: str) -> None:
    """As by a topic that was made again, or by somebody who deleted its records."""
    with copies(kafka, postgres, template, SMALL) as ledger_copies:
        emptied = {
            "results": [ledger_copies.names.results],
            "results and positions": [
                ledger_copies.names.results,
                ledger_copies.names.results_positions,
            ],
            "positions": [ledger_copies.names.results_positions],
        }[results]
        for topic in emptied:
            recorded_topics.empty(kafka, topic)
        report = ledger_copies.verify()
    assert report.difference_counts.keys() == {"results"}, report.text()
    if results == "results":
        there = sum(len(recorded_topics.results_of(one)) for one in SMALL)
        assert report.difference_counts["results"] == there, report.text()
    else:
        assert report.difference_counts["results"] == N, report.text()
        assert "stalled at sequence 0" in report.text()


# Tampering: with the journal


def record_at(place: int) -> JournalRecord:
    return msgspec.json.decode(WHOLE[0].journal[place][1], type=JournalRecord)


def places(step: str) -> list[int]:
    return [n for n in range(len(WHOLE[0].journal)) if record_at(n).step == step]


def with_journal(values: list[tuple[bytes | None, bytes]]) -> list[Kept]:
    return [replace(WHOLE[0], journal=values), *WHOLE[1:]]


def changed(place: int, value: bytes) -> list[Kept]:
    values = list(WHOLE[0].journal)
    values[place] = values[place][0], value
    return with_journal(values)


def resealed(place: int, value: bytes) -> list[Kept]:
    """With all later hashes made good again: only what the record says is wrong."""
    values = list(WHOLE[0].journal)
    values[place] = values[place][0], value
    last = journal.hash_of(value)
    for n in range(place + 1, len(values)):
        key, old = values[n]
        before = msgspec.json.decode(old, type=JournalRecord).previous_hash
        new = old.replace(before.encode(), last.encode(), 1)
        values[n] = key, new
        last = journal.hash_of(new)
    return with_journal(values)


def journal_of(kafka: str, postgres: str, template: str, history: list[Kept]) -> VerifyReport:
    with copies(kafka, postgres, template, history, WHOLE, WHOLE) as ledger_copies:
        return ledger_copies.verify()


def test_one_byte_in_a_journal_record(kafka: str, postgres: str, template: str) -> None:
    place = next(n for n in places("posted") if record_at(n).entries and n > 200)
    value = WHOLE[0].journal[place][1]
    at = value.index(b'"amount":') + len(b'"amount":')
    flipped = value[:at] + (b"7" if value[at : at + 1] != b"7" else b"3") + value[at + 1 :]
    report = journal_of(kafka, postgres, template, changed(place, flipped))
    assert not report.agree
    differences = [each for each in report.differences if each.copy == "journal"]
    chain = next(each for each in differences if "previous_hash is" in each.what)
    assert (chain.partition, chain.offset) == (0, place + 1)
    assert f"(offset {place})" in chain.what
    named = next(each for each in report.differences if each.offset == place)
    assert named.transaction_id == record_at(place).transaction_id


def test_a_byte_that_leaves_no_json(kafka: str, postgres: str, template: str) -> None:
    place = places("posted")[50]
    value = WHOLE[0].journal[place][1]
    report = journal_of(kafka, postgres, template, changed(place, value[:-1] + b"]"))
    difference = first(report, "journal")
    assert (difference.partition, difference.offset) == (0, place)
    assert "cannot be decoded" in difference.what


def test_the_last_record_of_the_journal(kafka: str, postgres: str, template: str) -> None:
    """No later hash tells: the state's and the tables' do."""
    place = len(WHOLE[0].journal) - 1
    value = WHOLE[0].journal[place][1]
    report = journal_of(kafka, postgres, template, changed(place, value.replace(b"}", b" }", 1)))
    assert "last hash" in first(report, "state").what
    assert "last_hash" in first(report, "postgres").what


def test_a_journal_record_that_is_missing(kafka: str, postgres: str, template: str) -> None:
    values = list(WHOLE[0].journal)
    del values[77]
    difference = first(journal_of(kafka, postgres, template, with_journal(values)), "journal")
    assert (difference.partition, difference.offset) == (0, 77)


def test_a_forged_balance_with_whole_hashes(kafka: str, postgres: str, template: str) -> None:
    """One who can make all hashes good again has still to make the books good."""
    place = next(n for n in places("posted") if len(record_at(n).entries) == 2 and n > 100)
    entry = record_at(place).entries[-1]
    assert isinstance(entry.balance, int)
    value = (
        WHOLE[0]
        .journal[place][1]
        .replace(f'"balance":{entry.balance},'.encode(), f'"balance":{entry.balance + 1},'.encode())
    )
    difference = first(journal_of(kafka, postgres, template, resealed(place, value)), "journal")
    assert (difference.offset, difference.account) == (place, entry.account)
    assert "balance" in difference.what


def test_a_decision_that_the_rules_do_not_make(kafka: str, postgres: str, template: str) -> None:
    """Books and copies agree on a wrong reason: only the rules can tell."""
    place = next(n for n in places("rejected") if record_at(n).reason == "insufficient_funds")
    value = WHOLE[0].journal[place][1].replace(b"insufficient_funds", b"account_frozen")
    forged = resealed(place, value)
    one = forged[0]
    after = histories.MemoryState(0)
    for _, each in one.journal:
        evolve(after, msgspec.json.decode(each, type=JournalRecord))
    consistent = [
        replace(one, state=after, last_hash=journal.hash_of(one.journal[-1][1])),
        *WHOLE[1:],
    ]
    with copies(kafka, postgres, template, consistent) as ledger_copies:
        plain = ledger_copies.verify()
        assert plain.agree, plain.text()
        difference = first(ledger_copies.verify(against_rules=True), "rules")
        assert (difference.partition, difference.offset) == (0, place)
        assert "insufficient_funds" in difference.what


# Tampering: with what the journal answers


def test_a_command_that_was_changed(kafka: str, postgres: str, template: str) -> None:
    offset = record_at(places("posted")[60]).source.offset
    commands = list(WHOLE[0].commands)
    commands[offset] = commands[offset]._replace(value=commands[offset].value + b" ")
    history = [replace(WHOLE[0], commands=commands), *WHOLE[1:]]
    with copies(kafka, postgres, template, history, WHOLE, WHOLE) as ledger_copies:
        report = ledger_copies.verify()
        difference = first(report, "commands")
        assert difference.partition == 0 and f"commands {offset} has digest" in difference.what


def test_a_command_that_the_journal_passed_over(kafka: str, postgres: str, template: str) -> None:
    """A record of `commands` without an outcome, though later ones have theirs."""
    place = places("rejected")[5]
    offset = record_at(place).source.offset
    values = [pair for n, pair in enumerate(WHOLE[0].journal) if n != place]
    with copies(kafka, postgres, template, with_journal(values), WHOLE, WHOLE) as ledger_copies:
        difference = first(ledger_copies.verify(), "commands")
        assert f"commands {offset} has no outcome" in difference.what


# Tampering: with Postgres


BY_HAND = {
    "one balance": (
        "UPDATE ledger.accounts SET balance = balance + 1 WHERE id = '{account}'",
        "accounts {account}: balance is",
    ),
    "an account's metadata": (
        """UPDATE ledger.accounts SET metadata = '{{"name": "forged"}}' WHERE id = '{account}'""",
        "accounts {account}: metadata is {{'name': 'forged'}}, expected ",
    ),
    "one row removed": (
        "DELETE FROM ledger.entries WHERE account = '{account}' AND version = 2",
        "entries has no row version 2",
    ),
    "one row doubled": (
        "INSERT INTO ledger.entries SELECT version + 1000000, amount, balance, held, sequence,"
        " time, transaction_id, direction, partition, account FROM ledger.entries"
        " WHERE account = '{account}' AND version = 2",
        "entries has a row version 1000002 that is not in the journal",
    ),
    "an entry's amount": (
        "UPDATE ledger.entries SET amount = amount + 1 WHERE account = '{account}' AND version = 2",
        "entries version 2: amount is",
    ),
    "a transaction's status": (
        "UPDATE ledger.transactions SET status = 'rejected', reason = 'account_frozen'"
        " WHERE id = '{id}'",
        "transactions {id}: status is rejected, expected posted",
    ),
    "a transaction removed": (
        "DELETE FROM ledger.transactions WHERE id = '{id}'",
        "transactions has no row {id}",
    ),
    "a reversal forgotten": (
        "UPDATE ledger.transactions SET reversed_by = NULL WHERE id = '{reversed}'",
        "transactions reversed_by is None",
    ),
    "an outcome": (
        "UPDATE ledger.commands SET label = 'another' WHERE transaction_id = '{id}'"
        " AND outcome = 'posted'",
        "label is another",
    ),
    "a system account": (
        "UPDATE ledger.system_accounts SET balance = balance - 1 WHERE id = '{shard}'",
        "system_accounts {shard}: balance is",
    ),
    "a hold": (
        "UPDATE ledger.holds SET captured = captured + 1 WHERE id = '{hold}'",
        "holds {hold}: captured is",
    ),
    "an account's partition": (
        "UPDATE ledger.accounts SET partition = 2 WHERE id = '{account}'",
        "accounts has no row {account}",
    ),
    "a partition's position": (
        "UPDATE ledger.positions SET next_offset = next_offset + 1 WHERE partition = 0",
        "positions next_offset is",
    ),
    "a partition's format level": (
        "UPDATE ledger.positions SET format_level = 2 WHERE partition = 0",
        "positions format_level is 2, expected 1",
    ),
}


@pytest.mark.parametrize("what", BY_HAND)
def test_rows_changed_by_hand(whole: Copies, what: str) -> None:
    rows = rows_of(WHOLE)
    entry = next(
        row
        for row in rows.of("entries", partition=0, version=2)
        if rows.tables["transactions"][row["transaction_id"]]["reversed_by"] is None
    )
    names = {
        "account": entry["account"],
        "id": entry["transaction_id"],
        "shard": rows.of("system_accounts", partition=0)[0]["id"],
        "hold": next(h["id"] for h in rows.of("holds", partition=0) if h["amount"] > h["captured"]),
        "reversed": next(t["id"] for t in rows.of("transactions") if t["reversed_by"]),
    }
    statement, words = BY_HAND[what]
    with psycopg.connect(whole.database) as connection:
        undo = _copy_of_tables(connection)
        connection.execute(statement.format(**names).encode())
    try:
        report = whole.verify()
    finally:
        _put_back(whole.database, undo)
    assert not report.agree
    assert report.difference_counts.keys() == {"postgres"}, report.text()
    differences = [str(each) for each in report.differences]
    assert any(words.format(**names) in each for each in differences), report.text()
    if "{account}" in statement or "{id}" in statement:
        assert any(names["account"] in each or names["id"] in each for each in differences), (
            report.text()
        )


def _copy_of_tables(connection: psycopg.Connection[Any]) -> str:
    schema = f"kept_{secrets.token_hex(4)}"
    connection.execute(f"CREATE SCHEMA {schema}".encode())
    for table in naive_rows.TABLES:
        connection.execute(f"CREATE TABLE {schema}.{table} AS TABLE ledger.{table}".encode())
    return schema


def _put_back(database: str, schema: str) -> None:
    with psycopg.connect(database) as connection:
        for table in naive_rows.TABLES:
            columns = connection.execute(
                "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid ="
                " %s::regclass AND attnum > 0 AND attgenerated = ''",
                (f"ledger.{table}",),
            ).fetchone()
            assert columns is not None
            listed = columns[0]
            connection.execute(f"TRUNCATE ledger.{table}".encode())
            put_back = f"SELECT {listed} FROM {schema}.{table}"
            connection.execute(f"INSERT INTO ledger.{table} ({listed}) {put_back}".encode())
        connection.execute(f"DROP SCHEMA {schema} CASCADE".encode())


def test_tables_ahead_of_the_journal(kafka: str, postgres: str, template: str) -> None:
    shorter = [one.until(one.whole_steps()[-3]) for one in WHOLE]
    with (
        pytest.MonkeyPatch.context() as patch,
        copies(kafka, postgres, template, shorter, WHOLE, shorter) as ledger_copies,
    ):
        patch.setattr("sinks.verify.topic_reader.CATCH_UP_S", 0.5)
        difference = first(ledger_copies.verify(), "postgres")
        assert "but the journal ends at" in difference.what


# Tampering: with published records


SMALL = histories.of_seed(SEED, 900).partitions
# An entry that is the only one of its record.
_records = [each.sequence for each in SMALL[0].transactions]
PLACE = next(n for n in range(20, len(_records)) if _records.count(_records[n]) == 1)
ENTRY = SMALL[0].transactions[PLACE]
RESULT = recorded_topics.results_of(SMALL[0])[30]
SEQUENCE, KEY, LETTER = SMALL[0].letters[1]
MISPLACED = "is not in the journal, or is out of place or repeated"
_where = f"{RESULT.value['partition']}:{RESULT.value['offset']}"


def with_entries(change: Callable[[list[TransactionRecord]], list[TransactionRecord]]) -> Kept:
    return replace(SMALL[0], transactions=change(SMALL[0].transactions))


def with_letters(change: Callable[[list[Letter]], list[Letter]]) -> Kept:
    return replace(SMALL[0], letters=change(SMALL[0].letters))


ENTRIES: dict[str, tuple[Kept, str]] = {
    "changed": (
        with_entries(
            lambda all: [
                msgspec.structs.replace(each, balance=each.balance + 1) if each == ENTRY else each
                for each in all
            ]
        ),
        f"balance is {ENTRY.balance + 1}, expected {ENTRY.balance}",
    ),
    "removed": (
        with_entries(lambda all: [each for each in all if each != ENTRY]),
        f"version {ENTRY.version} of {ENTRY.account_id} is missing",
    ),
    "removed at the end": (with_entries(lambda all: all[:-1]), "is missing"),
    "doubled": (with_entries(lambda all: [*all[: PLACE + 1], *all[PLACE:]]), MISPLACED),
    "doubled at the end": (with_entries(lambda all: [*all, ENTRY]), MISPLACED),
    "made up": (
        with_entries(lambda all: [*all, msgspec.structs.replace(ENTRY, sequence=10**6)]),
        MISPLACED,
    ),
    "of another partition": (
        with_entries(lambda all: [*all, msgspec.structs.replace(ENTRY, partition=2)]),
        "belongs to partition 2",
    ),
}
LETTERS: dict[str, tuple[Kept, str]] = {
    "changed": (
        with_letters(
            lambda all: [
                (n, key, msgspec.structs.replace(each, size=7) if n == SEQUENCE else each)
                for n, key, each in all
            ]
        ),
        "differs from the journal",
    ),
    "removed": (
        with_letters(lambda all: [each for each in all if each[0] != SEQUENCE]),
        "is missing",
    ),
    "doubled": (with_letters(lambda all: [*all, all[1]]), "is repeated"),
    "made up": (
        with_letters(lambda all: [*all, (0, KEY, msgspec.structs.replace(LETTER, offset=10**6))]),
        "is unexpected: the journal refuses no such command",
    ),
}
RESULTS: dict[str, tuple[recorded_topics.ChangeResults, str]] = {
    "changed": (
        lambda all: [
            each._replace(value=each.value | {"reason": "account_frozen"})
            if each == RESULT
            else each
            for each in all
        ],
        f"the result of {_where}: reason is account_frozen, expected ",
    ),
    "by another key": (
        lambda all: [each._replace(key="x") if each == RESULT else each for each in all],
        "key is b'x'",
    ),
    "removed": (
        lambda all: [each for each in all if each != RESULT],
        f"the result of {_where} is missing",
    ),
    "doubled": (
        lambda all: [*all, RESULT] if RESULT in all else all,
        f"the result of {_where} {MISPLACED}",
    ),
    "of nobody": (
        lambda all: [*all, RESULT._replace(partition=7)] if RESULT in all else all,
        "partition 7 of the topic, offset 0, belongs to no partition of the ledger",
    ),
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sinks.verify.topic_reader.CATCH_UP_S", 0.3)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", ENTRIES)
def test_changed_entries_are_reported(kafka: str, postgres: str, template: str, what: str) -> None:
    tampered, words = ENTRIES[what]
    with copies(kafka, postgres, template, [tampered, *SMALL[1:]]) as ledger_copies:
        only(ledger_copies.verify(), "transactions", words)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", LETTERS)
def test_changed_dead_letters_are_reported(
    kafka: str, postgres: str, template: str, what: str
) -> None:
    tampered, words = LETTERS[what]
    with copies(kafka, postgres, template, [tampered, *SMALL[1:]]) as ledger_copies:
        only(ledger_copies.verify(), "commands.dead", words)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", RESULTS)
def test_changed_results_are_reported(kafka: str, postgres: str, template: str, what: str) -> None:
    change_results, words = RESULTS[what]
    with copies(kafka, postgres, template, SMALL, change_results=change_results) as ledger_copies:
        only(ledger_copies.verify(), "results", words)


def only(report: VerifyReport, copy: str, words: str) -> None:
    """One difference, and that one."""
    assert report.difference_counts == {copy: 1}, report.text()
    (difference,) = report.differences
    assert words in difference.what, report.text()
    assert difference.partition == 0 or "no partition" in words


@pytest.mark.parametrize("encoding", ["single object", "confluent"])
def test_entries_in_avro(kafka: str, postgres: str, template: str, encoding: str) -> None:
    """The encoding may change at some point, while the contents stay the same."""
    write = codecs.transactions_as_single_objects()
    if encoding == "confluent":
        write = codecs.transactions_as_confluent(7)
    later = [replace(one, transactions=[]) for one in SMALL]
    with copies(kafka, postgres, template, later, SMALL) as ledger_copies:
        producer = Producer({"bootstrap.servers": kafka})
        for one in SMALL:
            for number, entry in enumerate(one.transactions):
                value = write(entry) if number > 9 else msgspec.json.encode(entry)
                topic, key = ledger_copies.names.transactions, entry.account_id.encode()
                producer.produce(topic, value, key, one.number)
        assert producer.flush(30) == 0
        report = ledger_copies.verify()
        assert report.agree, report.text()
        assert report.compared["transactions"] == sum(len(one.transactions) for one in SMALL)


@pytest.mark.usefixtures("impatient")
def test_results_of_what_postgres_does_not_have(kafka: str, postgres: str, template: str) -> None:
    behind = [one.until(one.whole_steps()[-40]) for one in SMALL]
    with copies(kafka, postgres, template, SMALL, behind, results=SMALL) as ledger_copies:
        report = ledger_copies.verify()
        assert report.difference_counts == {"results": N, "postgres": N}, report.text()
        assert "but Postgres has only" in first(report, "results").what


@pytest.mark.usefixtures("impatient")
def test_what_was_deleted_after_its_time_is_no_difference(
    kafka: str, postgres: str, template: str
) -> None:
    """Results are kept for seven days; entries for good, or as long as the topic's settings say."""
    gone = 15
    with copies(kafka, postgres, template, SMALL, journaled_ms=days_ago(8)) as ledger_copies:
        before = ledger_copies.verify().compared
        for topic in (ledger_copies.names.results, ledger_copies.names.transactions):
            recorded_topics.empty(kafka, topic, gone)
        report = ledger_copies.verify()
        assert report.difference_counts == {"transactions": gone * N}, report.text()
        assert "is missing" in report.text()
        assert report.compared["results"] == before["results"] - gone * N
        recorded_topics.keep(kafka, ledger_copies.names.transactions, days=7)
        report = ledger_copies.verify()
        assert report.agree, report.text()
        assert report.compared["transactions"] == before["transactions"] - gone * N


@pytest.mark.usefixtures("impatient")
def test_what_was_deleted_before_its_time(kafka: str, postgres: str, template: str) -> None:
    with copies(kafka, postgres, template, SMALL, journaled_ms=days_ago(6)) as ledger_copies:
        recorded_topics.empty(kafka, ledger_copies.names.results, 15)
        report = ledger_copies.verify()
    assert report.difference_counts == {"results": 15 * N}, report.text()


def days_ago(days: int) -> int:
    return int(time.time() * 1_000) - days * 24 * 3_600_000


# Tampering: with the state


def state_with(kept: Kept, changes: dict[bytes, Any]) -> list[Kept]:
    copied = kept.state.copy()
    for key, value in changes.items():
        copied.put(key, value)
    return [replace(kept, state=copied), *WHOLE[1:]]


def test_values_of_the_state(kafka: str, postgres: str, template: str) -> None:
    values = WHOLE[0].state.values()
    account_key, account = next(
        (key, value) for key, value in values.items() if isinstance(value, state.AccountState)
    )
    gone_key = next(key for key, value in values.items() if isinstance(value, state.HoldState))
    posted_key, posted = next(
        (key, value)
        for key, value in values.items()
        if isinstance(value, state.TransactionState)
        and value.status == "posted"
        and not value.reversal
    )
    reversed_key, was_reversed = next(
        (key, value)
        for key, value in values.items()
        if isinstance(value, state.TransactionState) and value.reversal
    )
    changes: dict[bytes, Any] = {
        account_key: msgspec.structs.replace(account, balance=account.balance + 1),
        gone_key: None,
        posted_key: msgspec.structs.replace(posted, fee=posted.fee + 1),
        reversed_key: msgspec.structs.replace(was_reversed, reversal=None, reversed=False),
        b"aintruder": account,
    }
    with copies(
        kafka, postgres, template, WHOLE, WHOLE, state_with(WHOLE[0], changes)
    ) as ledger_copies:
        report = ledger_copies.verify()
    assert report.difference_counts == {"state": len(changes)}, report.text()
    what_by_id = {each.account or each.transaction_id: each.what for each in report.differences}
    assert "has balance" in what_by_id[account_key[1:].decode()]
    assert "intruder" in what_by_id
    for key in (gone_key, posted_key, reversed_key):
        assert histories.ids.to_text(key[1:]) in what_by_id, report.text()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("state", ["never written", "deleted", "of earlier", "without its end"])
def test_a_lost_state(kafka: str, postgres: str, template: str, state: str) -> None:
    states = {
        "never written": [],
        "deleted": SMALL,
        "of earlier": [SMALL[0].until(SMALL[0].whole_steps()[-30]), *SMALL[1:]],
        "without its end": SMALL,
    }[state]
    with copies(kafka, postgres, template, SMALL, SMALL, states) as ledger_copies:
        if state == "deleted":
            recorded_topics.empty(kafka, ledger_copies.names.state)
        elif state == "without its end":
            producer = Producer({"bootstrap.servers": kafka})
            producer.produce(ledger_copies.names.state, None, b"aanother", 0)
            assert producer.flush(30) == 0
        report = ledger_copies.verify()
    assert report.difference_counts.keys() == {"state"}, report.text()
    one = state in ("of earlier", "without its end")
    named = [each for each in report.differences if "stalled" in each.what]
    assert [each.partition for each in named] == ([0] if one else list(range(N)))


# Tampering: with messages between partitions


@pytest.mark.usefixtures("impatient")
def test_messages_that_were_deleted_before_they_were_read(
    kafka: str, postgres: str, template: str
) -> None:
    history = histories.in_flight(1, 900, N).partitions
    number = next(
        one.number for one in history if any(b'"number":' in each.value for each in one.unread)
    )
    with copies(kafka, postgres, template, history) as ledger_copies:
        assert ledger_copies.verify().agree
        recorded_topics.empty(
            kafka, ledger_copies.names.coordination, len(history[number].messages), number
        )
        assert ledger_copies.verify().agree
        recorded_topics.empty(kafka, ledger_copies.names.coordination, partition=number)
        report = ledger_copies.verify()
    missing = [each for each in report.differences if each.copy == "coordination"]
    assert {each.partition for each in missing} == {number}, report.text()
    assert all(
        "neither in the topic nor in the receiver's journal" in each.what for each in missing
    )
    numbered = [each for each in history[number].unread if b'"number":' in each.value]
    assert report.difference_counts["coordination"] == len(numbered) > 0


# By the command line


def test_the_command(whole: Copies) -> None:
    environment = {
        "KAFKA_BROKERS": whole.bootstrap,
        "TOPIC_PREFIX": whole.names.prefix,
        "PARTITIONS": str(N),
        "LEDGER_ID": histories.LEDGER_ID,
        "DATABASE_URL": whole.database,
    }
    with psycopg.connect(whole.database) as connection:
        undo = _copy_of_tables(connection)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main.app, ["verify", *arguments], env=environment)

    said = run()
    assert said.exit_code == 0 and "all copies agree" in said.stdout
    said = run("--json", "--against-rules")
    report = msgspec.json.decode(said.stdout, type=VerifyReport)
    assert said.exit_code == 0 and report.agree and report.compared["decisions"] > 0
    try:
        with psycopg.connect(whole.database) as connection:
            connection.execute("DELETE FROM ledger.holds")
        said = run("--json")
        assert said.exit_code == 1
        assert not msgspec.json.decode(said.stdout, type=VerifyReport).agree
        said = run("--no-postgres")
        assert said.exit_code == 0 and "all copies agree" in said.stdout
    finally:
        _put_back(whole.database, undo)
