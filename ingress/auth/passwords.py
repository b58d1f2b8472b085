"""Passwords: argon2id, beside the event loop, so many at once and no more.

Keeps the rule that a check takes the same time whether there is somebody to check or not. Each
instance is a lane of its own: those who register do not hold up those who sign in.
"""

import asyncio
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ingress.http.problems import Code, HttpProblem

T = TypeVar("T")

MIN_LENGTH, MAX_LENGTH = 8, 128
PASSES, LANES = 2, 1
# More would wait longer than a client does.
MAX_WAITING = 256


class Passwords:
    def __init__(self, concurrency: int, memory_kib: int, most_waiting: int = MAX_WAITING) -> None:
        self._hasher = PasswordHasher(PASSES, memory_kib, LANES)
        self._threads = ThreadPoolExecutor(concurrency, "passwords")
        self._most_waiting = most_waiting
        self._asked = 0
        self._nobodys: str | None = None

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who wait. Raises a Problem where there is none."""
        if self._asked >= self._most_waiting:
            raise HttpProblem(Code.BUSY, headers={"Retry-After": "2"})
        self._asked += 1
        try:
            yield
        finally:
            self._asked -= 1

    async def hash(self, password: str) -> str:
        with self.place():
            return await self.hash_in_place(password)

    async def hash_in_place(self, password: str) -> str:
        """By who has a place."""
        return await self._run(self._hasher.hash, _normal(password))

    async def check(self, password: str, hashed: str | None) -> bool:
        """False, after the same work, where there is nobody or no password."""
        if self._nobodys is None:
            self._nobodys = await self.hash("nobody's")
        with self.place():
            fits = await self._run(self._fits, hashed or self._nobodys, _normal(password))
        return fits and hashed is not None

    def is_old(self, hashed: str) -> bool:
        """Whether it was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fits(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[..., T], *given: str) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)


def _normal(password: str) -> str:
    """The same letters, however a keyboard composes them."""
    return unicodedata.normalize("NFKC", password)
