"""Signing in, refreshing and creating keys against what takes them away meanwhile: a new password,
or the user being disabled.

The parts of the ingress run here, on a real Postgres; the passwords pause where a race is lost.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import SecretStr

from ingress.admin.user_routes import UserAdminRoutes, UserChange
from ingress.auth import session_store
from ingress.auth.access_tokens import AccessTokens
from ingress.auth.api_keys import ApiKeys, KeyResponse, NewKey, key_list
from ingress.auth.login_throttle import LoginThrottle
from ingress.auth.passwords import Passwords
from ingress.auth.profile_routes import PasswordChange, ProfileRoutes
from ingress.auth.registration import add_user
from ingress.auth.sign_in import Login, Refresh, SignIn, TokensResponse
from ingress.auth.signing_keys import SigningKeys
from ingress.http.position_tokens import PositionTokens
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import Scope, UserRole
from ingress.http.routes import Answer, Call, Caller
from ingress.settings import IngressSettings
from ingress.sql import queries
from ingress.users.directory import User, UserDirectory
from ingress.wallets.directory import WalletDirectory
from plumbing.postgres import connection_pool

T = TypeVar("T")
TIMES = 200
OLD, NEW = "the old password", "the new password"


class Pausing(Passwords):
    """`gate`, where it is set, holds back who has verified the old password."""

    verified: asyncio.Event | None = None
    gate: asyncio.Event | None = None

    async def check(self, password: str, hashed: str | None, clients: Sequence[bytes]) -> bool:
        fits = await super().check(password, hashed, clients)
        gate = self.gate
        if gate is not None and self.verified is not None:
            self.gate = None  # the first one only
            self.verified.set()
            await gate.wait()
        return fits


class Parts:
    def __init__(self, database: str) -> None:
        settings = IngressSettings(
            signing_key=SecretStr("x" * 40),
            login_failures_per_email=1_000,
            login_failures_per_address=1_000_000,
        )
        self.pool = connection_pool.pool(database, 6, "test")
        keys = SigningKeys.from_settings(settings)
        users = UserDirectory(self.pool)
        # Memory does not matter here: the least there is.
        self.passwords = Pausing(2, 8)
        attempts = LoginThrottle(settings, keys)
        access = AccessTokens(keys, "books", 900)
        self.sign_in = SignIn(
            settings,
            self.pool,
            keys,
            access,
            self.passwords,
            attempts,
            users,
            WalletDirectory(self.pool),
        )
        self.own = ProfileRoutes(settings, self.pool, self.passwords, attempts, users)
        self.api_keys = ApiKeys(settings, self.pool, self.passwords, attempts)
        self.users = UserAdminRoutes(self.pool, users, PositionTokens("races"))

    async def user(self, number: int) -> User:
        hashed = await self.passwords.hash_without_place(OLD)
        async with self.pool.connection() as connection:
            return await add_user(
                connection, f"u{number}@example.com", "U", "", hashed, UserRole.USER
            )

    async def signed_in(self, user: User) -> str:
        """A refresh token."""
        answer = await self.sign_in.login(call(Login(email=user.email, password=OLD), None))
        assert isinstance(answer.value, TokensResponse)
        return answer.value.refresh_token

    async def login(self, user: User, password: str = OLD) -> bool:
        try:
            answer = await self.sign_in.login(
                call(Login(email=user.email, password=password), None)
            )
        except HttpProblem as problem:
            assert problem.code == Code.CREDENTIALS_WRONG
            return False
        assert answer.status == 200
        return True

    async def refresh(self, refresh_token: str) -> str | None:
        """The next refresh token."""
        body = Refresh(refresh_token=refresh_token)
        try:
            answer = await self.sign_in.refresh(call(body, None))
        except HttpProblem as problem:
            assert problem.code == Code.REFRESH_INVALID
            return None
        assert isinstance(answer.value, TokensResponse)
        return answer.value.refresh_token

    async def create_key(self, user: User) -> bool:
        body = NewKey(name="a key", scopes=[Scope.READ], current_password=OLD)
        try:
            answer = await self.api_keys.create(call(body, caller(user)))
        except HttpProblem as problem:
            assert problem.code == Code.CREDENTIALS_WRONG
            return False
        assert answer.status == 201
        return True

    async def change_password(self, user: User) -> Answer:
        body = PasswordChange(current_password=OLD, password=NEW, end_api_keys=True)
        return await self.own.change_password(call(body, caller(user)))

    async def disable(self, user: User) -> Answer:
        admin = Caller("admin", 1, UserRole.ADMIN)
        return await self.users.change(call(UserChange(disabled=True), admin, {"user": user.id}))

    async def sessions(self, user: User) -> list[session_store.Session]:
        async with self.pool.connection() as connection:
            return await session_store.list_sessions(connection, user.id)

    async def keys(self, user: User) -> list[KeyResponse]:
        async with self.pool.connection() as connection:
            return (await key_list(connection, user.id)).data


def call(body: Any, who: Caller | None, path: dict[str, str] | None = None) -> Call[Any, Any]:
    request = make_mocked_request("POST", "/")
    return Call(request, "id", "trace", body, None, path or {}, who)


def caller(user: User) -> Caller:
    return Caller(user.id, user.number, UserRole.USER, "00000000-0000-4000-8000-000000000000")


@pytest.fixture
async def parts(database: str) -> AsyncIterator[Parts]:
    made = Parts(database)
    await made.pool.open()
    async with made.pool.connection() as connection:
        # There is always an admin.
        await add_user(connection, "admin@example.com", "A", "", None, UserRole.ADMIN)
    try:
        yield made
    finally:
        made.passwords.close()
        await made.pool.close()


Change = Callable[[Parts, User], Awaitable[Answer]]
CHANGES = pytest.mark.parametrize("change", [Parts.change_password, Parts.disable])


@CHANGES
async def test_what_was_verified_before_a_change_begins_no_session_after_it(
    parts: Parts, change: Change
) -> None:
    begun = []
    for number in range(TIMES):
        user = await parts.user(number)
        passwords = parts.passwords
        passwords.verified, passwords.gate = asyncio.Event(), asyncio.Event()
        gate = passwords.gate
        login = asyncio.create_task(parts.login(user))
        await passwords.verified.wait()
        await change(parts, user)
        gate.set()
        if await login or await parts.sessions(user):
            begun.append(number)
    assert begun == []


@CHANGES
async def test_no_session_of_an_old_password_outlives_a_change(
    parts: Parts, change: Change
) -> None:
    """Wherever the two meet."""
    dice = random.Random(16)
    left = []
    for number in range(TIMES):
        user = await parts.user(number)

        await asyncio.gather(
            later(dice, parts.login(user)),
            later(dice, parts.login(user)),
            later(dice, change(parts, user)),
        )
        if await parts.sessions(user):
            left.append(number)
    assert left == []


async def later(dice: random.Random, act: Awaitable[T]) -> T:
    await asyncio.sleep(dice.random() * 0.004)
    return await act


@CHANGES
async def test_what_was_verified_before_a_change_creates_no_key_after_it(
    parts: Parts, change: Change
) -> None:
    created = []
    for number in range(TIMES):
        user = await parts.user(number)
        passwords = parts.passwords
        passwords.verified, passwords.gate = asyncio.Event(), asyncio.Event()
        gate = passwords.gate
        creating = asyncio.create_task(parts.create_key(user))
        await passwords.verified.wait()
        await change(parts, user)
        gate.set()
        if await creating or await parts.keys(user):
            created.append(number)
    assert created == []


@CHANGES
async def test_no_key_of_an_old_password_outlives_a_change(parts: Parts, change: Change) -> None:
    dice = random.Random(20)
    left = []
    for number in range(TIMES):
        user = await parts.user(number)
        await asyncio.gather(
            later(dice, parts.create_key(user)),
            later(dice, parts.create_key(user)),
            later(dice, change(parts, user)),
        )
        if await parts.keys(user):
            left.append(number)
    assert left == []


@CHANGES
async def test_no_refresh_carries_a_session_over_a_change(parts: Parts, change: Change) -> None:
    dice = random.Random(19)
    left = []
    for number in range(TIMES):
        user = await parts.user(number)
        first = await parts.signed_in(user)
        second, _ = await asyncio.gather(
            later(dice, parts.refresh(first)), later(dice, change(parts, user))
        )
        if await parts.sessions(user) or (second is not None and await parts.refresh(second)):
            left.append(number)
    assert left == []


async def test_a_session_waits_for_a_change_that_is_not_committed(parts: Parts) -> None:
    user = await parts.user(0)
    hashed = await parts.passwords.hash_without_place(NEW)
    async with parts.pool.connection() as connection:
        await connection.execute(
            "UPDATE ledger.users SET password_hash = %s WHERE id = %s", (hashed, user.id)
        )
        login = asyncio.create_task(parts.login(user))
        async with parts.pool.connection() as other:
            while not login.done():
                waiting = await other.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND wait_event_type = 'Lock'"
                )
                row = await waiting.fetchone()
                await other.commit()
                if row is not None and row[0] > 0:
                    break
    assert not await login
    assert await parts.sessions(user) == []
    assert await parts.login(user, NEW)


async def test_a_new_hash_of_the_same_password_refuses_nobody(parts: Parts) -> None:
    """As is made at a sign-in where the old one has other parameters than today's."""
    user = await parts.user(0)
    passwords = parts.passwords
    passwords.verified, passwords.gate = asyncio.Event(), asyncio.Event()
    gate = passwords.gate
    login = asyncio.create_task(parts.login(user))
    await passwords.verified.wait()
    again = await passwords.hash_without_place(OLD)
    async with parts.pool.connection() as connection:
        found = await queries.one(
            connection, "password_hash", session_store.PasswordHash, id=user.id
        )
        assert found is not None
        changed = await queries.run(
            connection, "password_rehash", id=user.id, old=found.password_hash, new=again
        )
        assert changed == 1
    gate.set()
    assert await login
    assert len(await parts.sessions(user)) == 1
