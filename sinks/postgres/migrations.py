"""Postgres tables change by migrations only: plain .sql files, applied in the order of their names.

Each is applied once, in a transaction of its own that also records its checksum. An advisory lock
serialises concurrent runs. A file that changed after it was applied, or a schema of a newer
version, is refused; nothing is undone.
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

# An arbitrary number that no one else locks. It must never change.
LOCK_KEY = 7_305_812_274
LOCK_TIMEOUT = "10min"
CONNECT_TIMEOUT_S = 10
# The least-privilege roles that `0004_rights` creates and later migrations keep.
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


def bundled() -> list[Migration]:
    files = SqlFiles("sinks", "sql", "migrations").files
    return [Migration(name, sql) for name, sql in files.items()]


def migrate(
    database_url: str,
    migrations: list[Migration] | None = None,
    passwords: Mapping[str, str] | None = None,
) -> list[str]:
    """Applies the missing migrations and returns their names. Waits for concurrent runs. Afterwards
    each role with a password can sign in with it."""
    wanted = bundled() if migrations is None else migrations
    try:
        with psycopg.connect(
            database_url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        ) as connection:
            applied = _migrate(connection, wanted)
            for role, password in (passwords or {}).items():
                _set_password(connection, role, password)
            return applied
    except psycopg.errors.LockNotAvailable:
        raise MigrationRefused(
            f"another migration has been running for {LOCK_TIMEOUT}: find what holds it and try"
            " again"
        ) from None
    except psycopg.errors.InsufficientPrivilege as error:
        first = connection_pool.first_line(error)
        raise Failure(f"Postgres: {first}: migrate as the owner of the database") from None
    except psycopg.Error as error:
        raise connection_pool.connection_failure(error) from None


def _migrate(connection: Connection[TupleRow], wanted: list[Migration]) -> list[str]:
    connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    # Held until the connection closes, even if this process dies.
    connection.execute("SELECT pg_advisory_lock(%s)", (LOCK_KEY,))
    missing = _missing(_applied(connection), wanted)
    for migration in missing:
        with connection.transaction():
            try:
                connection.execute(migration.sql)
            except psycopg.Error as error:
                text = str(error).strip()
                raise MigrationRefused(
                    f"migration {migration.name} failed and was rolled back: {text}"
                ) from error
            connection.execute(
                "INSERT INTO ledger.migrations (name, sha256) VALUES (%s, %s)",
                (migration.name, migration.sha256),
            )
    return [migration.name for migration in missing]


def _set_password(connection: Connection[TupleRow], role: str, password: str) -> None:
    """Sends a verifier, so that the server's log never has the password."""
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
    table = connection.execute("SELECT to_regclass('ledger.migrations')").fetchone()
    if table is None or table[0] is None:
        return {}
    rows = connection.execute("SELECT name, sha256 FROM ledger.migrations").fetchall()
    return dict(rows)


def _missing(applied: dict[str, str], wanted: list[Migration]) -> list[Migration]:
    """The migrations to apply. Refuses a schema that this program's files cannot have made."""
    refused = [
        f"migration {name} is in the database but not in this program: the schema is of a newer"
        " version; run that version, or restore the database"
        for name in sorted(applied.keys() - {migration.name for migration in wanted})
    ]
    last = max(applied, default="")
    for migration in wanted:
        if migration.name not in applied and migration.name < last:
            refused.append(
                f"migration {migration.name} comes before {last}, which is already applied"
            )
        if migration.name in applied and applied[migration.name] != migration.sha256:
            refused.append(
                f"migration {migration.name} was changed after it was applied: restore its text and"
                " write a new migration"
            )
    if refused:
        raise MigrationRefused(*refused)
    return [migration for migration in wanted if migration.name not in applied]
