"""The current password, asked again of a user who is signed in: the session may be stolen.

Keeps the rule that wrong ones are counted for each user, as those at signing in are.
"""

from typing import Any

from ingress.auth import session_store
from ingress.auth.login_throttle import LoginThrottle
from ingress.auth.passwords import Passwords
from ingress.http.client_address import address_of
from ingress.http.problems import Code, HttpProblem
from ingress.http.routes import Call
from ingress.sql import queries
from plumbing.postgres.connection_pool import Pool


class CurrentPassword:
    def __init__(self, pool: Pool, passwords: Passwords, attempts: LoginThrottle) -> None:
        self._pool = pool
        self._passwords = passwords
        self._attempts = attempts

    async def verify(self, call: Call[Any, Any], password: str) -> str:
        """The hash that it fits. A write that relies on it requires that hash to be current
        still, under a lock."""
        user_id = call.caller.id
        counts = self._attempts.counts_for_user(user_id)
        async with self._pool.connection() as connection:
            row = await queries.one(
                connection, "password_hash", session_store.PasswordHash, id=user_id
            )
            await self._attempts.check(connection, counts)
        hashed = row.password_hash if row is not None else None
        fits = await self._passwords.check(password, hashed, self.clients(call))
        if not fits or hashed is None:
            async with self._pool.connection() as connection:
                await self._attempts.failed(connection, counts)
            raise HttpProblem(Code.CREDENTIALS_WRONG, subject=user_id)
        return hashed

    def clients(self, call: Call[Any, Any]) -> list[bytes]:
        """The keys that a hash of the caller's is counted by while it waits."""
        place = self._attempts.place_key(address_of(call.request))
        return [place, *(count.key for count in self._attempts.counts_for_user(call.caller.id))]

    async def succeeded(self, connection: queries.Connection, user_id: str) -> None:
        """In the transaction that writes: a right guess among too many writes nothing."""
        await self._attempts.succeeded(connection, self._attempts.counts_for_user(user_id))
