"""Verifies the current password of a signed-in user, because the session may be stolen.

Keeps the rule that wrong passwords are counted for each user, as at sign-in.
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
        """Returns the hash that the password matches. A later write must check, under a lock, that
        this hash is still the current one."""
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
        """The keys that the caller's place in the hashing queue is counted for."""
        network = self._attempts.network_key(address_of(call.request))
        return [network, *(count.key for count in self._attempts.counts_for_user(call.caller.id))]

    async def succeeded(self, connection: queries.Connection, user_id: str) -> None:
        """Call it in the transaction that writes. Raises an HttpProblem if too many attempts were
        made meanwhile, so that a correct guess among too many writes nothing."""
        await self._attempts.succeeded(connection, self._attempts.counts_for_user(user_id))
