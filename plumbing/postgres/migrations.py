"""Postgres tables change by migrations only: plain .sql files, in the folder of the package that
owns the tables.

Each is applied once, in a transaction of its own that also records its checksum: package after
package, and within one in the order of their names. An advisory lock serialises concurrent runs. A
file that changed after it was applied, or a schema of a newer version, is refused; nothing is
undone. It knows no table but that of the migrations, which the first migration creates.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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


class MigrationRefused(Failure):
    pass


@dataclass(frozen=True, slots=True)
class Migration:
    """`name` is `package/file`: two packages may have files of the same name."""

    name: str
    sql: bytes

    @property
    def package(self) -> str:
        return _package(self.name)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


def bundled(*packages: str) -> list[Migration]:
    """The migrations of these packages, in the order in which they are applied."""
    return [
        Migration(f"{package}/{name}", sql)
        for package in packages
        for name, sql in SqlFiles(package, "sql", "migrations").files.items()
    ]


def migrate(
    database_url: str, wanted: list[Migration], passwords: Mapping[str, str] | None = None
) -> list[str]:
    """Applies the missing migrations and returns their names. Waits for concurrent runs. Afterwards
    each role with a password can sign in with it."""
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


def _package(name: str) -> str:
    return name.partition("/")[0]


def _missing(applied: dict[str, str], wanted: list[Migration]) -> list[Migration]:
    """The migrations to apply. Refuses a schema that this program's files cannot have made."""
    _refuse_unreleased(applied)
    refused = [
        f"migration {name} is in the database but not in this program: the schema is of a newer"
        " version; run that version, or restore the database"
        for name in sorted(applied.keys() - {migration.name for migration in wanted})
    ]
    last = {_package(name): name for name in sorted(applied)}
    for migration in wanted:
        last_of_package = last.get(migration.package, "")
        if migration.name not in applied and migration.name < last_of_package:
            refused.append(
                f"migration {migration.name} comes before {last_of_package}, which is already"
                " applied"
            )
        if migration.name in applied and applied[migration.name] != migration.sha256:
            refused.append(
                f"migration {migration.name} was changed after it was applied: restore its text and"
                " write a new migration"
            )
    if refused:
        raise MigrationRefused(*refused)
    return [migration for migration in wanted if migration.name not in applied]


def _refuse_unreleased(applied: Iterable[str]) -> None:
    """Programs before the first release named migrations without their package."""
    if any("/" not in name for name in applied):
        raise MigrationRefused(
            "the tables were made by an unreleased version and cannot be upgraded: create an empty"
            " database and run `streamledger migrate`"
        )


def check_applied(connection: Connection[TupleRow], package: str) -> None:
    """Raises a Failure unless the tables of a package have exactly this program's migrations."""
    try:
        applied = _applied(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        first = connection_pool.first_line(error)
        raise Failure(f"Postgres: {first} (docs/deploying.md)") from None
    if not applied:
        raise Failure("the database has no ledger tables: run `streamledger migrate`")
    _refuse_unreleased(applied)
    applied_here = {name for name in applied if _package(name) == package}
    wanted = {migration.name for migration in bundled(package)}
    if newer := sorted(applied_here - wanted):
        raise Failure(
            f"the tables are of a newer version ({', '.join(newer)}): run that version, or restore"
            " the database"
        )
    if missing := sorted(wanted - applied_here):
        raise Failure(
            f"the tables are of an older version (missing: {', '.join(missing)}): run `streamledger"
            " migrate`"
        )
