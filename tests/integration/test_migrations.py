"""Migrations on a real Postgres: each once, whole, in order, whoever starts at the same time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from psycopg import conninfo, sql

from compose import provisioning
from plumbing.failures import Failure
from plumbing.postgres import migrations
from plumbing.postgres.migrations import Migration, MigrationRefused

FIRST = migrations.bundled("sinks")[0]
MORE = Migration(
    "sinks/9001_more", b"CREATE TABLE ledger.more (n int); INSERT INTO ledger.more VALUES (1);"
)
ALONE = Migration("sinks/9002_alone", b"CREATE TABLE ledger.alone (n int)")
LAST = Migration("sinks/9002_last", b"ALTER TABLE ledger.more ADD COLUMN m int;")


@pytest.fixture
def empty(postgres: str) -> Iterator[str]:
    """The URL of a database of its own, with nothing in it."""
    name = f"migrations_{uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield conninfo.make_conninfo(postgres, dbname=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT name FROM ledger.migrations ORDER BY name").fetchall()
    return [name for (name,) in rows]


def test_they_are_applied_once_in_order(empty: str) -> None:
    sinks, ingress = migrations.bundled("sinks"), migrations.bundled("ingress")
    for package in (sinks, ingress):
        assert package == sorted(package, key=lambda migration: migration.name)
    every = [migration.name for migration in (*sinks, *ingress)]
    assert provisioning.migrate(empty) == every
    assert provisioning.migrate(empty) == []
    assert names(empty) == sorted(every)


def test_the_tables_of_the_sink_need_no_other_package(empty: str) -> None:
    wanted = migrations.bundled("sinks")
    assert migrations.migrate(empty, wanted) == [migration.name for migration in wanted]
    with psycopg.connect(empty) as connection:
        migrations.check_applied(connection, "sinks")
        with pytest.raises(Failure, match=r"missing: ingress/0001_users, .*streamledger migrate"):
            migrations.check_applied(connection, "ingress")


def test_a_package_is_checked_for_its_own_migrations_only(empty: str) -> None:
    provisioning.migrate(empty)
    with psycopg.connect(empty) as connection:
        connection.execute(
            "INSERT INTO ledger.migrations (name, sha256) VALUES ('ingress/9999_newer', '')"
        )
        migrations.check_applied(connection, "sinks")
        with pytest.raises(Failure, match=r"newer version \(ingress/9999_newer\)"):
            migrations.check_applied(connection, "ingress")


def test_each_package_has_an_order_of_its_own(empty: str) -> None:
    own = Migration("ingress/9001_own", b"CREATE TABLE ledger.own (n int)")
    migrations.migrate(empty, [FIRST, MORE, own])
    earlier = Migration("ingress/9000_earlier", b"SELECT 1")
    with pytest.raises(MigrationRefused, match="9000_earlier comes before ingress/9001_own"):
        migrations.migrate(empty, [FIRST, MORE, earlier, own])
    before_own = Migration("aside/0001_first", b"CREATE TABLE ledger.aside (n int)")
    assert migrations.migrate(empty, [before_own, FIRST, MORE, LAST, own]) == [
        before_own.name,
        LAST.name,
    ]


def test_tables_of_an_unreleased_version_are_refused_in_one_line(empty: str) -> None:
    provisioning.migrate(empty)
    with psycopg.connect(empty) as connection:
        connection.execute(
            "UPDATE ledger.migrations SET name = split_part(name, '/', 2) WHERE name LIKE 'sinks/%'"
        )
    with pytest.raises(
        Failure, match="create an empty database and run `streamledger mi"
    ) as caught:
        provisioning.migrate(empty)
    assert len(caught.value.lines) == 1
    with psycopg.connect(empty) as connection, pytest.raises(Failure, match="unreleased version"):
        migrations.check_applied(connection, "sinks")


def test_rights_can_be_granted_again(empty: str) -> None:
    provisioning.migrate(empty)
    with psycopg.connect(empty) as connection:
        before = rights(connection)
        assert before
        connection.execute(
            "REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM streamledger_sink, streamledger_ingress"
        )
        connection.execute("CALL ledger.grant_rights()")
        assert rights(connection) == before


def rights(connection: psycopg.Connection[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return connection.execute(
        "SELECT grantee, table_name, privilege_type FROM information_schema.table_privileges"
        " WHERE table_schema = 'ledger' AND grantee LIKE 'streamledger\\_%' ORDER BY 1, 2, 3"
    ).fetchall()


def test_only_what_is_new_is_applied(empty: str) -> None:
    migrations.migrate(empty, [FIRST])
    assert migrations.migrate(empty, [FIRST, MORE, LAST]) == [MORE.name, LAST.name]
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT n, m FROM ledger.more").fetchall() == [(1, None)]


def test_many_may_start_at_once(empty: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        each = pool.map(lambda _: migrations.migrate(empty, [FIRST, MORE, LAST]), range(6))
        applied = [name for names in each for name in names]
    assert sorted(applied) == [FIRST.name, MORE.name, LAST.name]
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT count(*) FROM ledger.more").fetchone() == (1,)


def test_a_file_that_was_changed_is_refused(empty: str) -> None:
    migrations.migrate(empty, [FIRST, MORE])
    changed = Migration(MORE.name, MORE.sql + b" ")
    with pytest.raises(MigrationRefused, match="9001_more was changed after it was applied"):
        migrations.migrate(empty, [FIRST, changed, LAST])
    assert names(empty) == [FIRST.name, MORE.name]


def test_a_schema_of_a_newer_program_is_refused(empty: str) -> None:
    migrations.migrate(empty, [FIRST, MORE, LAST])
    with pytest.raises(MigrationRefused, match="9002_last is in the database but not in this prog"):
        migrations.migrate(empty, [FIRST, MORE])


def test_a_file_that_was_put_between_is_refused(empty: str) -> None:
    migrations.migrate(empty, [FIRST, ALONE])
    between = Migration("sinks/9001_between", b"SELECT 1")
    with pytest.raises(
        MigrationRefused,
        match="sinks/9001_between comes before sinks/9002_alone, which is already applied",
    ):
        migrations.migrate(empty, [FIRST, between, ALONE])


def test_one_that_fails_leaves_nothing_of_itself_and_all_before_it(empty: str) -> None:
    broken = Migration(
        "sinks/9002_broken", b"CREATE TABLE ledger.half (n int); SELECT no_such_column;"
    )
    with pytest.raises(MigrationRefused, match="9002_broken failed and was rolled back"):
        migrations.migrate(empty, [FIRST, MORE, broken])
    assert names(empty) == [FIRST.name, MORE.name]
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT to_regclass('ledger.half')").fetchone() == (None,)
    assert migrations.migrate(empty, [FIRST, MORE, LAST]) == [LAST.name]


def test_a_database_that_gives_no_answer_is_one_line() -> None:
    with pytest.raises(Failure, match="Postgres does not answer") as caught:
        provisioning.migrate("postgresql://nobody@127.0.0.1:1/none?connect_timeout=2")
    assert len(caught.value.lines) == 1
    assert "\n" not in caught.value.lines[0]
