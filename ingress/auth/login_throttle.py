"""The rate limit of wrong passwords, counted in Postgres for each e-mail address and network.

At the limit, one more attempt is accepted now and then. Registrations from one network are limited
alike. Keeps three rules. Counting never depends on whether the account exists. An attempt is
counted before its result is revealed. Strangers' attempts do not lock a user out of a network that
the user has signed in from. It does not know what a password is.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import Struct

from ingress.auth.signing_keys import SigningKeys
from ingress.http.client_address import network_of
from ingress.http.problems import Code, HttpProblem
from ingress.settings import IngressSettings
from ingress.sql import queries

# Postgres rounds intervals to microseconds.
ROUNDING_S = 0.001


class AttemptCount(NamedTuple):
    """A key to count for, and how much of its window one attempt uses up."""

    key: bytes
    cost_s: float
    success_resets: bool = True
    refuses: bool = True


class _Wait(Struct, frozen=True):
    wait_s: float


class _CountedKey(Struct, frozen=True):
    key: bytes


class LoginThrottle:
    def __init__(self, settings: IngressSettings, keys: SigningKeys) -> None:
        self._window_s = float(settings.login_window_s)
        self._by_email_s = self._window_s / settings.login_failures_per_email
        self._by_address_s = self._window_s / settings.login_failures_per_address
        self._registration_s = self._window_s / settings.registrations_per_address
        self._keys = keys

    def counts_for_sign_in(
        self, email: str, address: str | None, known_network: bool
    ) -> list[AttemptCount]:
        """`known_network`: whether the user has signed in from this network before."""
        network = network_of(address)
        who = f"email {email.lower()}"
        # A known network has its own count, so that strangers cannot lock the user out.
        counts = [self._count(f"{who} at {network}" if known_network else who, self._by_email_s)]
        if network is not None:
            # Signing in to one's own account must not reset the network's count. The count does
            # not lock out users who have signed in from this network.
            cost_s = self._by_address_s
            counts.append(
                self._count(
                    f"place {network}", cost_s, success_resets=False, refuses=not known_network
                )
            )
        return counts

    def counts_for_user(self, user_id: str) -> list[AttemptCount]:
        return [self._count(f"user {user_id}", self._by_email_s)]

    def network_key(self, address: str | None) -> bytes:
        return self._key(f"place {network_of(address)}")

    def _count(self, what: str, cost_s: float, **more: bool) -> AttemptCount:
        return AttemptCount(self._key(what), cost_s, **more)

    def _key(self, what: str) -> bytes:
        return self._keys.mac("attempts", what.encode())

    async def count_registration(self, connection: queries.Connection, address: str | None) -> None:
        """Counts an attempt, even if it fails later: its cost is the hash. Raises an HttpProblem
        beyond the limit."""
        count = self._count(f"registration {network_of(address)}", self._registration_s)
        await self._spend(connection, [count], Code.TOO_MANY_REGISTRATIONS)

    async def check(
        self,
        connection: queries.Connection,
        counts: Sequence[AttemptCount],
        refusal: Code = Code.TOO_MANY_ATTEMPTS,
    ) -> None:
        """Raises an HttpProblem if no further attempt is accepted now."""
        wait_s = await self._wait_s(connection, [each for each in counts if each.refuses])
        if wait_s > ROUNDING_S:
            raise _too_many(refusal, wait_s)

    async def failed(self, connection: queries.Connection, counts: Sequence[AttemptCount]) -> None:
        """Counts a wrong password. Raises an HttpProblem if concurrent ones reached the limit."""
        await self._spend(connection, counts, Code.TOO_MANY_ATTEMPTS)

    async def _spend(
        self, connection: queries.Connection, counts: Sequence[AttemptCount], refusal: Code
    ) -> None:
        await self.check(connection, counts, refusal)
        rows = await queries.every(
            connection,
            "attempts_count",
            _CountedKey,
            **_count_arrays(counts),
            window_s=self._window_s,
            rounding_s=ROUNDING_S,
        )
        counted = {each.key for each in rows}
        refused = [each for each in counts if each.refuses and each.key not in counted]
        if refused:
            # Concurrent attempts were counted since the check. The problem rolls back this one.
            raise _too_many(refusal, await self._wait_s(connection, refused))

    async def succeeded(
        self, connection: queries.Connection, counts: Sequence[AttemptCount]
    ) -> None:
        """Resets the counts. Raises an HttpProblem if concurrent attempts reached the limit: a
        correct guess among too many must not be revealed, either."""
        await self.check(connection, counts)
        for count in counts:
            if count.success_resets:
                await queries.run(connection, "attempts_forget", key=count.key)

    async def _wait_s(
        self, connection: queries.Connection, counts: Sequence[AttemptCount]
    ) -> float:
        row = await queries.one(
            connection, "attempts_wait", _Wait, **_count_arrays(counts), window_s=self._window_s
        )
        assert row is not None, "an aggregate returns a row"
        return row.wait_s


def _too_many(code: Code, wait_s: float) -> HttpProblem:
    return HttpProblem(code, headers={"Retry-After": str(max(1, math.ceil(wait_s)))})


def _count_arrays(counts: Sequence[AttemptCount]) -> dict[str, list[bytes] | list[float]]:
    return {"keys": [each.key for each in counts], "costs": [each.cost_s for each in counts]}
