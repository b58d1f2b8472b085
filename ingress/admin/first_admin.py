"""Creates the first admin, from the settings at the start, or any admin from the command line.

If an admin exists, the settings create none, so a changed ADMIN_PASSWORD has no effect.
"""

import asyncio

import psycopg
import structlog
from msgspec import Struct

from ingress.auth.passwords import MAX_LENGTH, MIN_LENGTH, Passwords
from ingress.auth.registration import add_user
from ingress.background import MAX_PAUSE_S
from ingress.http.problems import HttpProblem
from ingress.http.roles import UserRole
from ingress.settings import IngressSettings
from ingress.sql import queries
from ingress.users import emails
from plumbing.failures import Failure
from plumbing.postgres import connection_pool
from plumbing.postgres.connection_pool import Pool

RETRY_S = 0.5

log = structlog.stdlib.get_logger(__name__)


class _AdminCount(Struct, frozen=True):
    admins: int


async def make_first_admin(settings: IngressSettings, pool: Pool, passwords: Passwords) -> None:
    """Creates the admin of the settings if no admin exists, as soon as Postgres answers."""
    if settings.admin_email is None or settings.admin_password is None:
        return
    email = _email(settings.admin_email)
    password = _password(settings.admin_password.get_secret_value())
    hashed = await passwords.hash_without_place(password)
    pause_s = RETRY_S
    while True:
        try:
            await _make_if_none(pool, email, hashed)
        except queries.UNAVAILABLE as error:
            log.warning(
                "creating the first admin is waiting for Postgres",
                error=str(error).strip(),
                retry_in_s=pause_s,
            )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
        except HttpProblem:
            # Anybody can register this address. That must neither grant the role nor stop the
            # ingress.
            log.error(
                "first admin not created",
                email=email,
                reason="a user who is not an admin has this e-mail address",
                remedy="set another ADMIN_EMAIL, or run `streamledger users create-admin`",
            )
            return
        else:
            return


async def _make_if_none(pool: Pool, email: str, hashed: str) -> None:
    async with pool.connection() as connection:
        # Ingresses that start at the same time create only one.
        await queries.run(connection, "users_lock")
        count = await queries.one(connection, "admins", _AdminCount)
        if count is not None and count.admins == 0:
            await add_user(connection, email, "Admin", "", hashed, UserRole.ADMIN)
            log.info("first admin created", email=email)


def create(database: str, email: str, first_name: str, last_name: str, password: str) -> None:
    """Creates another admin, for the command line. It blocks."""
    asyncio.run(_create(database, _email(email), first_name, last_name, _password(password)))


async def _create(
    database: str, email: str, first_name: str, last_name: str, password: str
) -> None:
    passwords = Passwords(1, IngressSettings.model_fields["password_memory_kib"].default)
    hashed = await passwords.hash_without_place(password)
    passwords.close()
    try:
        connection = await psycopg.AsyncConnection.connect(
            database, connect_timeout=connection_pool.CONNECT_TIMEOUT_S
        )
        async with connection:
            await add_user(connection, email, first_name, last_name, hashed, UserRole.ADMIN)
    except psycopg.Error as error:
        raise connection_pool.connection_failure(error) from None
    except HttpProblem:
        raise Failure(f"a user with the address {email} exists already") from None


def _password(text: str) -> str:
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        raise Failure(f"a password must have {MIN_LENGTH} to {MAX_LENGTH} characters")
    return text


def _email(text: str) -> str:
    email = emails.parse_email(text)
    if email is None:
        raise Failure(f"{text}: not a valid e-mail address")
    return email
