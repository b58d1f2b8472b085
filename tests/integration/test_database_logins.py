"""One database login for each service, made by `streamledger migrate`: what each may do, tried as
that login, and what it may not.
"""

import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import errors

from compose import provisioning
from compose.embedded import postgres as servers
from compose.provisioning import INGRESS_ROLE, SINK_ROLE
from plumbing.failures import Failure
from sinks.verify import postgres_comparison
from sinks.verify.report import Differences

Logins = dict[str, str]
PEOPLE = ("users", "tokens", "spent_tokens", "wallets", "outbox", "attempts", "audit")
BOOKS = (
    "positions",
    "accounts",
    "system_accounts",
    "entries",
    "system_entries",
    "transactions",
    "holds",
    "commands",
)


def let_in(database: str) -> Logins:
    passwords = {role: secrets.token_hex(16) for role in (INGRESS_ROLE, SINK_ROLE)}
    provisioning.migrate(database, passwords)
    return {role: servers.as_user(database, role, password) for role, password in passwords.items()}


@pytest.fixture
def logins(database: str) -> Logins:
    return let_in(database)


@pytest.fixture
def audited(database: str) -> Iterator[int]:
    """The id of an audit row."""
    with psycopg.connect(database) as connection:
        made = connection.execute(
            "INSERT INTO ledger.audit (action) VALUES ('signed in') RETURNING id"
        ).fetchone()
    assert made is not None
    yield made[0]


def refused(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection, pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_each_signs_in_as_its_role_and_as_nobody_else(logins: Logins) -> None:
    for role, url in logins.items():
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (role,)
            for other in (*(set(logins) - {role}), "streamledger"):
                with pytest.raises((errors.InsufficientPrivilege, errors.InvalidParameterValue)):
                    connection.execute(f"SET ROLE {other}".encode())
                connection.rollback()


def test_the_audit_log_is_append_only_for_the_ingress(
    logins: Logins, audited: int, database: str
) -> None:
    ingress = logins[INGRESS_ROLE]
    with psycopg.connect(ingress) as connection:
        connection.execute("INSERT INTO ledger.audit (action) VALUES ('signed out')")
    for statement in (
        "UPDATE ledger.audit SET action = 'nothing'",
        "DELETE FROM ledger.audit",
        "TRUNCATE ledger.audit",
        "DROP TABLE ledger.audit",
        "ALTER TABLE ledger.audit DISABLE TRIGGER ALL",
        "CREATE TABLE ledger.another (n int)",
        "CREATE RULE nothing AS ON INSERT TO ledger.audit DO INSTEAD NOTHING",
    ):
        refused(ingress, statement)
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT action FROM ledger.audit ORDER BY id").fetchall()
    assert rows == [("signed in",), ("signed out",)]


@pytest.mark.parametrize("table", BOOKS)
def test_the_ingress_reads_the_books_and_writes_none(logins: Logins, table: str) -> None:
    ingress = logins[INGRESS_ROLE]
    with psycopg.connect(ingress) as connection:
        connection.execute(f"SELECT * FROM ledger.{table}".encode())
    for statement in (
        f"INSERT INTO ledger.{table} DEFAULT VALUES",
        f"UPDATE ledger.{table} SET partition = 0",
        f"DELETE FROM ledger.{table}",
        f"TRUNCATE ledger.{table}",
    ):
        refused(ingress, statement)


@pytest.mark.parametrize("table", PEOPLE)
def test_the_sink_sees_nobody(logins: Logins, table: str) -> None:
    for statement in (
        f"SELECT * FROM ledger.{table}",
        f"INSERT INTO ledger.{table} DEFAULT VALUES",
        f"DELETE FROM ledger.{table}",
    ):
        refused(logins[SINK_ROLE], statement)


@pytest.mark.parametrize("table", BOOKS)
def test_the_sink_deletes_no_row_of_the_books(logins: Logins, table: str) -> None:
    refused(logins[SINK_ROLE], f"DELETE FROM ledger.{table}")
    refused(logins[SINK_ROLE], f"TRUNCATE ledger.{table}")


def test_every_table_is_named_above(database: str) -> None:
    """One that comes later is thought about here, too."""
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'ledger'"
        ).fetchall()
    assert {name for (name,) in rows} == {*PEOPLE, *BOOKS, "migrations", "jobs"}


def test_another_password_takes_the_place_of_the_one_before(database: str) -> None:
    before, after = let_in(database), let_in(database)
    for role, url in after.items():
        with psycopg.connect(url):
            pass
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(before[role])


def test_who_owns_no_tables_may_give_no_passwords(logins: Logins) -> None:
    with pytest.raises(Failure, match="migrate as the owner of the database"):
        provisioning.migrate(logins[SINK_ROLE], {SINK_ROLE: "another"})


def test_a_refused_password_is_not_called_silence(database: str) -> None:
    parts = urlsplit(database)
    wrong = servers.as_user(database, parts.username or "", "wrong")
    with pytest.raises(Failure, match=r"Postgres refuses the connection: .*DATABASE_URL") as caught:
        provisioning.migrate(wrong)
    assert "wrong" not in str(caught.value)
    with pytest.raises(Failure, match="Postgres refuses the connection"):
        postgres_comparison.PostgresComparison(wrong, Differences())
