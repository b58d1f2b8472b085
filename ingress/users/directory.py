"""The directory of users: looks them up by either id or by e-mail, and caches them.

An account's owner is a user's `id`, a uuid; `number` is the integer id. It does not know passwords.
"""

import re
import uuid
from datetime import datetime
from typing import Final

from msgspec import Struct

from ingress.http.roles import READERS, UserRole
from ingress.http.routes import Caller, Instant, ResponseModel
from ingress.sql import queries
from ingress.users import emails
from plumbing.postgres.connection_pool import Pool

MAX_CACHED_USERS: Final = 50_000
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,17}\Z").match


class User(Struct, frozen=True, kw_only=True):
    id: str
    number: int
    email: str
    first_name: str
    last_name: str
    role: str
    disabled: bool
    created_at: datetime


class UserResponse(ResponseModel):
    id: int
    uuid: str
    first_name: str
    last_name: str
    email: str
    role: UserRole
    created_at: Instant


def user_response(user: User) -> UserResponse:
    return UserResponse(
        id=user.number,
        uuid=user.id,
        first_name=user.first_name,
        last_name=user.last_name,
        email=user.email,
        role=UserRole(user.role),
        created_at=user.created_at,
    )


def parse_reference(reference: str | int) -> str | int | None:
    """The integer id or the uuid; None if it can be neither."""
    if isinstance(reference, int) or _NUMBER(reference):
        return number if 0 < (number := int(reference)) < 2**63 else None
    try:
        return str(uuid.UUID(reference))
    except ValueError:
        return None


class UserDirectory:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._cache: dict[str | int, User] = {}

    def forget(self) -> None:
        """Clears the cache: a user's role has changed."""
        self._cache.clear()

    async def by_id(self, id: str) -> User | None:
        return self._cache.get(id) or await self._find("user_by_id", id=id)

    async def by_reference(self, reference: str | int) -> User | None:
        """By the integer id or the uuid: request fields accept both."""
        id_or_number = parse_reference(reference)
        if isinstance(id_or_number, int):
            return await self._by_number(id_or_number)
        return None if id_or_number is None else await self.by_id(id_or_number)

    async def visible(self, caller: Caller, reference: str) -> User | None:
        """The caller, or another user if the caller may read all. Queries nothing otherwise."""
        if parse_reference(reference) in (caller.id, caller.number):
            return await self.by_id(caller.id)
        return await self.by_reference(reference) if caller.role in READERS else None

    async def by_email(self, text: str) -> User | None:
        email = emails.parse_email(text)
        if email is None:
            return None
        email = email.lower()
        return self._cache.get(email) or await self._find("user_by_email", email=email)

    async def _by_number(self, number: int) -> User | None:
        return self._cache.get(number) or await self._find("user_by_number", number=number)

    async def _find(self, query: str, **parameters: str | int) -> User | None:
        async with self._pool.connection() as connection:
            user = await queries.one(connection, query, User, **parameters)
        if user is not None:
            self._remember(user)
        return user

    def _remember(self, user: User) -> None:
        if len(self._cache) >= MAX_CACHED_USERS:
            self._cache.clear()
        self._cache[user.id] = self._cache[user.number] = self._cache[user.email.lower()] = user
