"""What a sink refuses: records that cannot be, tables that do not go with them, and what an
operator must see to. It stops at the record and names it, once all before it is written.
"""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psycopg
import pytest
from psycopg import sql

from processor.rules import chain
from schemas import journal
from schemas.journal import JournalRecord
from tests.simulation.cluster import LEDGER_ID
from tests.testkit import programs, sink_rig
from tests.testkit.sink_rig import Rig, Sink, history, records
from tests.testkit.waiting import eventually

# They share a lane.
PARTITION, NEIGHBOUR = 2, 0
Change = Callable[[JournalRecord], JournalRecord]


@pytest.fixture
def rig(kafka: str, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    with sink_rig.running_rig(kafka, database, topic_prefix, tmp_path) as rig:
        yield rig


def whole() -> list[bytes]:
    return list(history().partitions[PARTITION].whole)


def place_of(wanted: Callable[[JournalRecord], bool]) -> int:
    """Of such a record well inside the journal."""
    found = [n for n, record in enumerate(records(history(), PARTITION)) if wanted(record)]
    return found[len(found) // 2]


def sealed_again(place: int, change: Change) -> list[bytes]:
    """The journal with another record in one place, and a chain that fits."""
    values, last = [], journal.genesis_hash(LEDGER_ID, PARTITION)
    for number, record in enumerate(records(history(), PARTITION)):
        values.append(chain.seal(change(record) if number == place else record, last))
        last = journal.hash_of(values[-1])
    return values


def stops_at(rig: Rig, values: list[bytes], place: int, reason: str) -> None:
    """The sink stops at the record, and has written what comes before it in its partition."""
    rig.publish(NEIGHBOUR, list(history().partitions[NEIGHBOUR].whole))
    rig.publish(PARTITION, values)
    sink = rig.sink().start()
    assert sink.wait(60) == 1, sink.log_text()
    assert reason in sink.log_text(), sink.log_text()
    assert f"journal partition {PARTITION}, record at offset" in sink.log_text()
    assert rig.sequences()[PARTITION] == place
    published = {
        result.value["sequence"]
        for result in rig.results()
        if result.value["partition"] == PARTITION
    }
    assert published == {
        record.sequence
        for record in records(history(), PARTITION)[:place]
        if record.step in journal.OUTCOMES
    }


def test_a_record_that_cannot_be_decoded(rig: Rig) -> None:
    values = whole()
    values[200] = b'{"previous_hash":'
    stops_at(rig, values, 200, "cannot be decoded")
    # It is not skipped at the next start either.
    assert rig.sink().start().wait(60) == 1
    assert rig.sequences()[PARTITION] == 200


def test_a_record_that_was_changed(rig: Rig) -> None:
    values = whole()
    place = place_of(lambda record: bool(record.entries) and record.fee > 0)
    values[place] = values[place].replace(b'"fee":', b'"fee":1', 1)
    # Its successor says so; it itself, with another fee, is a record like any other.
    stops_at(rig, values, place + 1, "has previous_hash")


def test_a_record_that_is_missing(rig: Rig) -> None:
    values = whole()
    del values[300]
    stops_at(rig, values, 300, "has sequence 302 after 300")


def test_a_record_that_is_there_twice(rig: Rig) -> None:
    values = whole()
    values.insert(300, values[299])
    stops_at(rig, values, 300, "has sequence 300 after 300")


def test_a_journal_of_another_ledger(rig: Rig) -> None:
    rig.publish(PARTITION, whole())
    sink = rig.sink(LEDGER_ID="another").start()
    assert sink.wait(60) == 1
    assert "has previous_hash" in sink.log_text()
    assert rig.sequences() == {}


def first_entry_changed(**fields: object) -> Change:
    def change(record: JournalRecord) -> JournalRecord:
        first, *others = record.entries
        first = msgspec.structs.replace(first, **fields)
        return msgspec.structs.replace(record, entries=(first, *others))

    return change


def _is_credit(record: JournalRecord) -> bool:
    return record.step == "posted" and len(record.entries) == 2 and record.command_offset is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"version": 99_999}, "rows are in the state that the journal continues from"),
        ({"amount": 123_456_789}, "credits and debits differ by"),
    ],
)
def test_an_entry_that_does_not_follow(rig: Rig, fields: dict[str, object], reason: str) -> None:
    place = place_of(_is_credit)
    stops_at(rig, sealed_again(place, first_entry_changed(**fields)), place, reason)


def test_a_balance_that_does_not_follow(rig: Rig) -> None:
    place = place_of(_is_credit)
    record = records(history(), PARTITION)[place]
    balance = record.entries[0].balance
    wrong = str(int(balance) + 1) if isinstance(balance, str) else balance + 1
    values = sealed_again(place, first_entry_changed(balance=wrong))
    stops_at(rig, values, place, "rows are in the state that the journal continues from")


def test_a_second_outcome_of_a_command(rig: Rig) -> None:
    def owned(record: JournalRecord) -> bool:
        return record.step == "rejected" and record.source.topic == "commands"

    place = place_of(owned)

    def change(record: JournalRecord) -> JournalRecord:
        return msgspec.structs.replace(record, source=journal.InputSource("commands", 0))

    stops_at(rig, sealed_again(place, change), place, "ommand")


def test_tables_that_were_changed(rig: Rig) -> None:
    values = whole()
    rig.publish(PARTITION, values[:200])
    sink = rig.sink().start()
    eventually(lambda: rig.sequences() == {PARTITION: 200}, 60)
    rig.execute("UPDATE ledger.accounts SET balance = balance + 1, status = 'open'")
    rig.publish(PARTITION, values[200:])
    assert sink.wait(60) == 1
    (sequence,) = rig.sequences().values()
    # It stops at the first record that moves money, and names it.
    moves = next(r.sequence for r in records(history(), PARTITION)[200:] if r.entries)
    assert sequence == moves - 1
    assert "rows are in the state that the journal continues from" in sink.log_text()


def raised_journal() -> tuple[list[bytes], int]:
    """A journal in which an operator raises the format level to 2, and where."""
    settings = records(history(), PARTITION)[0].settings
    assert settings is not None, "a genesis has settings"
    configured = msgspec.structs.replace(settings, format_level=2)
    place = place_of(lambda record: record.step == "rejected")

    def change(record: JournalRecord) -> JournalRecord:
        return msgspec.structs.replace(record, settings=configured)

    return sealed_again(place, change), place


@pytest.fixture(scope="module")
def newer_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newer")
    return programs.copy_sources(folder, [programs.FORMAT_LEVEL_2])


def test_an_old_sink_is_refused_beyond_the_record_that_raised_the_format_level(
    rig: Rig, newer_sources: Path
) -> None:
    values, configured = raised_journal()
    rig.publish(PARTITION, values[: configured + 20])
    newer = rig.sink(newer_sources).start()
    eventually(lambda: rig.sequences() == {PARTITION: configured + 20}, 60)
    assert newer.stop() == 0
    old = rig.sink().start()
    assert old.wait(60) == 1, old.tail()
    assert "the ledger has format level 2; this program supports 1: upgrade it" in old.log_text()
    rig.publish(PARTITION, values[configured + 20 :])
    assert rig.sink().start().wait(60) == 1
    assert rig.sequences() == {PARTITION: configured + 20}
    rig.sink(newer_sources).start()
    eventually(lambda: rig.sequences() == {PARTITION: len(values)}, 60)
    assert rig.query("SELECT format_level FROM ledger.positions") == [{"format_level": 2}]


def test_an_old_sink_stops_at_the_record_that_raises_the_format_level(rig: Rig) -> None:
    values, configured = raised_journal()
    stops_at(rig, values, configured, "raises the format level to 2; this program supports 1")


def test_tables_made_by_a_newer_program(rig: Rig) -> None:
    rig.execute("INSERT INTO ledger.migrations (name, sha256) VALUES ('sinks/9999_newer', '')")
    sink = rig.sink().start()
    assert sink.wait(30) == 1
    assert "the tables are of a newer version (sinks/9999_newer)" in sink.log_text()


def test_tables_of_an_older_program_and_none_at_all(rig: Rig) -> None:
    rig.execute("DELETE FROM ledger.migrations WHERE name = 'sinks/0003_rights'")
    sink = rig.sink().start()
    assert sink.wait(30) == 1
    assert "missing: sinks/0003_rights" in sink.log_text()
    assert "streamledger migrate" in sink.log_text()
    rig.execute("DROP SCHEMA ledger CASCADE")
    sink = rig.sink().start()
    assert sink.wait(30) == 1
    assert "the database has no ledger tables: run `streamledger migrate`" in sink.log_text()
    assert rig.query("SELECT to_regnamespace('ledger') AS made") == [{"made": None}]


def refused(rig: Rig, database: str) -> Sink:
    sink = rig.sink(DATABASE_URL=database).start()
    assert sink.wait(30) == 1, sink.log_text()
    return sink


def test_a_wrong_password(rig: Rig) -> None:
    parts = urlsplit(rig.database)
    wrong = parts._replace(netloc=f"{parts.username}:wrong@{parts.hostname}:{parts.port}")
    assert "Postgres refuses the connection" in refused(rig, wrong.geturl()).log_text()


@pytest.fixture
def member(rig: Rig) -> Iterator[str]:
    """The name of somebody who may sign in and nothing else; their password is the name."""
    name = f"somebody_{secrets.token_hex(5)}"
    who = sql.Identifier(name)
    with psycopg.connect(rig.database, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(who, name))
        yield name
        connection.execute(sql.SQL("DROP OWNED BY {0}").format(who))
        connection.execute(sql.SQL("DROP ROLE {}").format(who))


def as_member(rig: Rig, name: str) -> str:
    parts = urlsplit(rig.database)
    return parts._replace(netloc=f"{name}:{name}@{parts.hostname}:{parts.port}").geturl()


def test_rights_that_are_missing(rig: Rig, member: str) -> None:
    assert "permission denied" in refused(rig, as_member(rig, member)).log_text()


def test_the_rights_of_the_sinks_role_are_enough_and_not_more(rig: Rig, member: str) -> None:
    rig.execute(f"GRANT streamledger_sink TO {member}")
    cluster = history()
    rig.publish_all(cluster)
    database = as_member(rig, member)
    sink = rig.sink(DATABASE_URL=database).start()
    rig.settle(cluster)
    rig.check(cluster)
    assert sink.stop() == 0
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in (
            "DELETE FROM ledger.entries",
            "TRUNCATE ledger.accounts",
            "SELECT * FROM ledger.users",
            "CREATE TABLE ledger.more (n int)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_the_ingress_reads_the_books_and_keeps_its_own(rig: Rig, member: str) -> None:
    rig.execute(f"GRANT streamledger_ingress TO {member}")
    with psycopg.connect(as_member(rig, member), autocommit=True) as connection:
        connection.execute("SELECT * FROM ledger.accounts, ledger.all_entries")
        connection.execute("INSERT INTO ledger.users (id, email) VALUES ('ada', 'ada@example.com')")
        connection.execute("INSERT INTO ledger.audit (action) VALUES ('signed in')")
        for statement in (
            "UPDATE ledger.accounts SET balance = 0",
            "INSERT INTO ledger.positions VALUES (0, 'l', 1, 1, '', now())",
            "DELETE FROM ledger.audit",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
