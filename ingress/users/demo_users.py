"""The users of the walk-through, whose password anybody can read in its source.

Keeps the rule that nobody signs in with that password from another machine: an ingress in
production, or one that listens elsewhere than on the loopback address, refuses such a database, and
such a sign-in where the user got the password later.
"""

import asyncio
import ipaddress
from typing import Final

import structlog
from msgspec import Struct

from ingress import queries
from ingress.auth.passwords import Passwords
from ingress.settings import IngressSettings
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
        return False  # another name, or every address


def others_reach(settings: IngressSettings) -> bool:
    return settings.production or not is_loopback(settings.http_host)


def is_known(email: str, password: str) -> bool:
    """Whether anybody can read that these go together."""
    return password == PASSWORD and email.lower() in EMAILS


async def with_the_password(connection: queries.Connection, passwords: Passwords) -> list[DemoUser]:
    """Those who are enabled and have the password that anybody can read."""
    found = await queries.every(connection, "demo_users", DemoUser, emails=list(EMAILS))
    return [each for each in found if await passwords.check(PASSWORD, each.password_hash)]


async def refuse(settings: IngressSettings, pool: Pool, passwords: Passwords) -> None:
    """Raises a Failure that names them, as soon as Postgres answers."""
    if not others_reach(settings):
        return
    while True:
        try:
            async with pool.connection() as connection:
                found = await with_the_password(connection, passwords)
        except queries.AWAY as error:
            log.warning("the check for demo users waits for Postgres", error=str(error).strip())
            await asyncio.sleep(RETRY_S)
        else:
            break
    if found:
        emails = ", ".join(each.email for each in found)
        where = "APP_ENV=production" if settings.production else f"HTTP_HOST={settings.http_host}"
        raise Failure(
            f"{where}: demo users have the demo password ({emails}); change their passwords or"
            " disable them, from an ingress on the loopback address in development"
        )
