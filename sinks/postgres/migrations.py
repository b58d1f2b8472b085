"""Postgres tables change by migrations only: plain .sql files, in the order of their names.

Each is applied once, whole, in its own transaction, and recorded with its checksum there; an
advisory lock makes that safe when many start at once. A file that was changed after it was applied,
or a schema made by a newer program, is refused: nothing is guessed, nothing is undone.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from plumbing.failures import Failure
from plumbing.postgres import connection_pool
from plumbing.postgres.sql_files import SqlFiles

# Any number that nobody else locks; the same in every version for ever.
LOCK_KEY = 7_305_812_274
LOCK_TIMEOUT = "10min"
CONNECT_TIMEOUT_S = 10
# The roles of least rights, which `0004_rights` makes and each later migration keeps.
INGRESS_ROLE: Final = "streamledger_ingress"
SINK_ROLE: Final = "streamledger_sink"


class MigrationRefused(Failure):
    pass


@dataclass(frozen=True, slots=True)
class Migration:
    name: str
    sql: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


def of_this_program() -> list[Migration]:
    files = SqlFiles("sinks", "sql", "migrations").files
    return [Migration(name, sql) for name, sql in files.items()]


def migrate(
    database_url: str,
    migrations: list[Migration] | None = None,
    passwords: Mapping[str, str] | None = None,
) -> list[str]:
    """Applies what is missing and returns its names. Waits for others that are at it. Each role
    with a password may sign in with it afterwards."""
    wanted = of_this_program() if migrations is None else migrations
    try:
        with psycopg.connect(
            database_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        ) as connection:
            applied = _migrate(connection, wanted)
            for role, password in (passwords or {}).items():
                _let_in(connection, role, password)
            return applied
    except psycopg.errors.LockNotAvailable:
        raise MigrationRefused(
            f"another migration has been running for {LOCK_TIMEOUT}: see what holds it, then again"
        ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        first = connection_pool.first_line(error)
        raise Failure(f"Postgres: {first}: migrate as the owner of the database") from None
    except psycopg.Error as error:
        raise connection_pool.connection_failure(error) from None


def _migrate(connection: Connection[TupleRow], wanted: list[Migration]) -> list[str]:
    connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    # Held until the connection closes, also when this process dies.
    connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
    missing = _missing(_applied(connection), wanted)
    for migration in missing:
        with connection.transaction():
            try:
                connection.execute(migration.sql)
            except psycopg.Error as error:
                text = str(error).strip()
                raise MigrationRefused(
                    f"migration {migration.name} cannot be applied, nothing of it was: {text}"
                ) from error
            connection.execute(
                "INSERT INTO ledger.migrations (name, sha256) VALUES (%s, %s)",
                (migration.name, migration.sha256),
            )
    return [migration.name for migration in missing]


def _let_in(connection: Connection[TupleRow], role: str, password: str) -> None:
    """The server gets a verifier, so that its log never has the password."""
    encoding = connection.info.encoding
    verifier = connection.pgconn.encrypt_password(
        password.encode(encoding), role.encode(encoding), b"scram-sha-256"
    ).decode(encoding)
    statement = sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}")
    try:
        connection.execute(statement.format(sql.Identifier(role), sql.Literal(verifier)))
    except psycopg.errors.UndefinedObject:
        raise Failure(
            f"the role {role} does not exist: make it, CALL ledger.grant_rights(), then migrate"
        ) from None


def _applied(connection: Connection[TupleRow]) -> dict[str, str]:
    there = connection.execute("SELECT to_regclass('ledger.migrations')").fetchone()
    if there is None or there[0] is None:
        return {}
    rows = connection.execute("SELECT name, sha256 FROM ledger.migrations").fetchall()
    return dict(rows)


def _missing(applied: dict[str, str], wanted: list[Migration]) -> list[Migration]:
    """What is to be applied now; refuses what the files of this program cannot have made."""
    refused = [
        f"migration {name} is in the database and not in this program: a newer version made the"
        " schema; run that one, or restore the database"
        for name in sorted(applied.keys() - {each.name for each in wanted})
    ]
    last = max(applied, default="")
    for each in wanted:
        if each.name not in applied and each.name < last:
            refused.append(f"migration {each.name} comes before {last}, which was applied already")
        if each.name in applied and applied[each.name] != each.sha256:
            refused.append(
                f"migration {each.name} was changed after it was applied: put its text back and"
                " write a new one"
            )
    if refused:
        raise MigrationRefused(*refused)
    return [each for each in wanted if each.name not in applied]
