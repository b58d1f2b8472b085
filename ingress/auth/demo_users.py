"""The demo users, whose password is published in the README.

Keeps the rule that nobody signs in with that password from another machine. An ingress that others
can reach (in production, or not on the loopback address) refuses a database that has such users,
and such sign-ins. It lets nobody choose the password or register the e-mail addresses.
"""

import asyncio
import ipaddress
from typing import Final

import structlog
from msgspec import Struct

from ingress.auth.passwords import Passwords, normalized
from ingress.http.problems import Code, FieldError, HttpProblem
from ingress.settings import IngressSettings
from ingress.sql import queries
from plumbing.failures import Failure
from plumbing.postgres.connection_pool import Pool

PASSWORD: Final = "password"
OPERATOR: Final = "operator@example.com"
PEOPLE: Final = (("Kelvin", "Ade", "kelvin@example.com"), ("Tolu", "Bello", "tolu@example.com"))
EMAILS: Final = (OPERATOR, *(email for _, _, email in PEOPLE))
RETRY_S: Final = 0.5

log = structlog.stdlib.get_logger(__name__)


class DemoUser(Struct, frozen=True):
    id: str
    email: str
    password_hash: str


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False  # another host name, or all addresses


def others_reach(settings: IngressSettings) -> bool:
    return settings.production or not is_loopback(settings.http_host)


def is_demo_email(email: str) -> bool:
    return email.lower() in EMAILS


def is_demo_password(password: str) -> bool:
    """Compares the normalized form, which is what is hashed."""
    return normalized(password) == PASSWORD


def is_known(email: str, password: str) -> bool:
    """Whether these are published credentials."""
    return is_demo_password(password) and is_demo_email(email)


def check_new_password(password: str) -> None:
    """Raises an HttpProblem if it is the demo password."""
    if is_demo_password(password):
        raise _refused("password", "password_published", "is published in the documentation")


def check_new_email(email: str) -> None:
    """Raises an HttpProblem if it is the address of a demo user."""
    if is_demo_email(email):
        raise _refused("email", "email_reserved", "is reserved for a demo user")


def _refused(field: str, code: str, detail: str) -> HttpProblem:
    error = FieldError(field=field, code=code, detail=detail)
    return HttpProblem(Code.FIELDS_INVALID, errors=[error])


async def with_demo_password(
    connection: queries.Connection, passwords: Passwords
) -> list[DemoUser]:
    """The enabled demo users who have the demo password. It takes no place in the queue of
    `passwords`, so that many concurrent sign-ins cannot make it fail."""
    users = await queries.every(connection, "demo_users", DemoUser, emails=list(EMAILS))
    return [
        user for user in users if await passwords.check_without_place(PASSWORD, user.password_hash)
    ]


async def refuse_demo_password(settings: IngressSettings, pool: Pool, passwords: Passwords) -> None:
    """Raises a Failure that names the users, as soon as Postgres answers."""
    if not others_reach(settings):
        return
    while True:
        try:
            async with pool.connection() as connection:
                users = await with_demo_password(connection, passwords)
        except queries.UNAVAILABLE as error:
            log.warning("check for demo users is waiting for Postgres", error=str(error).strip())
            await asyncio.sleep(RETRY_S)
        else:
            break
    if users:
        emails = ", ".join(user.email for user in users)
        where = "APP_ENV=production" if settings.production else f"HTTP_HOST={settings.http_host}"
        raise Failure(
            f"{where}: demo users have the demo password ({emails}); change their passwords or"
            " disable them, from an ingress on the loopback address in development"
        )
