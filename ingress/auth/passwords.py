"""Passwords: argon2id in threads beside the event loop, with bounded concurrency.

Keeps the rules that a check takes the same time whether or not the user exists, and that no client
fills the queue alone. Each instance is a queue of its own: registrations do not delay sign-ins.
"""

import asyncio
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ingress.http.problems import Code, HttpProblem

T = TypeVar("T")

MIN_LENGTH, MAX_LENGTH = 8, 128
ITERATIONS, PARALLELISM = 2, 1
# A longer queue would outlast the patience of a client.
MAX_WAITING = 256
MAX_WAITING_PER_CLIENT = 32


class Passwords:
    def __init__(self, concurrency: int, memory_kib: int, max_waiting: int = MAX_WAITING) -> None:
        self._hasher = PasswordHasher(ITERATIONS, memory_kib, PARALLELISM)
        self._threads = ThreadPoolExecutor(concurrency, "passwords")
        self._max_waiting = max_waiting
        self._waiting = 0
        self._waiting_by_client: Counter[bytes] = Counter()
        self._hash_of_nobody: str | None = None

    @contextmanager
    def place(self, clients: Sequence[bytes]) -> Iterator[None]:
        """A place in the queue, counted for each of `clients`: a network address, a user. Raises an
        HttpProblem if the queue is full, or one of them has too many places."""
        if self._waiting >= self._max_waiting:
            raise HttpProblem(Code.BUSY, headers={"Retry-After": "2"})
        if any(self._waiting_by_client[key] >= MAX_WAITING_PER_CLIENT for key in clients):
            raise HttpProblem(Code.TOO_MANY_WAITS, headers={"Retry-After": "2"})
        self._waiting += 1
        self._waiting_by_client.update(clients)
        try:
            yield
        finally:
            self._waiting -= 1
            for key in clients:
                self._waiting_by_client[key] -= 1
                if not self._waiting_by_client[key]:
                    del self._waiting_by_client[key]

    async def hash(self, password: str, clients: Sequence[bytes]) -> str:
        with self.place(clients):
            return await self.hash_without_place(password)

    async def hash_without_place(self, password: str) -> str:
        """For a caller that already has a place, and for the ingress itself."""
        return await self._run(self._hasher.hash, normalized(password))

    async def check(self, password: str, hashed: str | None, clients: Sequence[bytes]) -> bool:
        """If `hashed` is None, returns False after the same work."""
        with self.place(clients):
            return await self.check_without_place(password, hashed)

    async def check_without_place(self, password: str, hashed: str | None) -> bool:
        if self._hash_of_nobody is None:
            self._hash_of_nobody = await self.hash_without_place("nobody's")
        fits = await self._run(self._fits, hashed or self._hash_of_nobody, normalized(password))
        return fits and hashed is not None

    def needs_rehash(self, hashed: str) -> bool:
        """Whether it was hashed with other parameters than the current ones."""
        return self._hasher.check_needs_rehash(hashed)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _fits(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[..., T], *arguments: str) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def normalized(password: str) -> str:
    """One form for the same letters, however a keyboard composes them."""
    return unicodedata.normalize("NFKC", password)
