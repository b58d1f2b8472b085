"""Limits how many requests of one user wait for an outcome at once, at this ingress.

Keeps the rule that one user cannot occupy an ingress: each wait holds a connection and polls
Postgres. It does not know what a request waits for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from ingress.http.problems import Code, HttpProblem

RETRY_AFTER_S = "1"


class ConcurrentWaits:
    def __init__(self, limit_per_user: int) -> None:
        self._limit_per_user = limit_per_user
        self._counts: dict[str, int] = {}

    @contextmanager
    def one(self, user_id: str) -> Iterator[None]:
        """Raises an HttpProblem beyond the limit."""
        count = self._counts.get(user_id, 0)
        if count >= self._limit_per_user:
            raise HttpProblem(Code.TOO_MANY_WAITS, headers={"Retry-After": RETRY_AFTER_S})
        self._counts[user_id] = count + 1
        try:
            yield
        finally:
            remaining = self._counts[user_id] - 1
            if remaining:
                self._counts[user_id] = remaining
            else:
                del self._counts[user_id]
