"""Wrong passwords, counted in Postgres: so many for one e-mail address and from one place, then one
more now and then. Registrations from one place are counted alike.

Keeps the rules that what is counted never depends on whether there is such an account, that an
answer which tells something of a password is counted first, and that strangers' attempts keep
nobody out who has signed in from where they are. It does not know what a password is.
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

# Counts are of microseconds.
ROUNDING_S = 0.001


class AttemptCount(NamedTuple):
    """What is counted for, and how much of the window one wrong password takes."""

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
        """`was_here`: whether the user of that e-mail has signed in from that place."""
        place = network_of(address)
        who = f"email {email.lower()}"
        # Counted apart, or a stranger could keep anybody from signing in.
        counts = [self._count(f"{who} at {place}" if known_network else who, self._by_email_s)]
        if place is not None:
            # An account of one's own must not buy more guesses at others', nor neighbours behind
            # the same address keep out who has been there.
            cost_s = self._by_address_s
            counts.append(
                self._count(
                    f"place {place}", cost_s, success_resets=False, refuses=not known_network
                )
            )
        return counts

    def counts_for_user(self, user_id: str) -> list[AttemptCount]:
        return [self._count(f"user {user_id}", self._by_email_s)]

    def place_key(self, address: str | None) -> bytes:
        return self._key(f"place {network_of(address)}")

    def _count(self, what: str, cost_s: float, **more: bool) -> AttemptCount:
        return AttemptCount(self._key(what), cost_s, **more)

    def _key(self, what: str) -> bytes:
        return self._keys.mac("attempts", what.encode())

    async def registering(self, connection: queries.Connection, address: str | None) -> None:
        """Counts one, whatever comes of it: the hash is what it costs. Raises a Problem where it is
        one too many."""
        count = self._count(f"registration {network_of(address)}", self._registration_s)
        await self._spend(connection, [count], Code.TOO_MANY_REGISTRATIONS)

    async def check(
        self,
        connection: queries.Connection,
        counts: Sequence[AttemptCount],
        refusal: Code = Code.TOO_MANY_ATTEMPTS,
    ) -> None:
        """Raises a Problem where no further attempt is taken now."""
        wait_s = await self._wait_s(connection, [each for each in counts if each.refuses])
        if wait_s > ROUNDING_S:
            raise _too_many(refusal, wait_s)

    async def failed(self, connection: queries.Connection, counts: Sequence[AttemptCount]) -> None:
        """Of many at once, those that are too many are told nothing."""
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
            # Others were counted between the two; the transaction ends with the Problem.
            raise _too_many(refusal, await self._wait_s(connection, refused))

    async def succeeded(
        self, connection: queries.Connection, counts: Sequence[AttemptCount]
    ) -> None:
        """As `failed`: a right guess among too many is told nothing either."""
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
        assert row is not None, "an aggregate is a row"
        return row.wait_s


def _too_many(code: Code, wait_s: float) -> HttpProblem:
    return HttpProblem(code, headers={"Retry-After": str(max(1, math.ceil(wait_s)))})


def _count_arrays(counts: Sequence[AttemptCount]) -> dict[str, list[bytes] | list[float]]:
    return {"keys": [each.key for each in counts], "costs": [each.cost_s for each in counts]}
