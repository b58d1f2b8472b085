"""Users of the HTTP API who each ask, wait for the answer and ask again: a closed loop, light and
in a process of its own, so that it measures the ledger and not itself.

Each has one connection, kept alive. What is asked is given as bytes; what is answered is told as
times and statuses.
"""

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple, cast

import uvloop

from benchmarks import children

TIMEOUT_S = 30.0
# More than anybody asks in one measure.
MOST_EACH = 10**7


class Person(NamedTuple):
    token: str
    number: int
    wallet_id: str


class Asked(NamedTuple):
    """`users` has for each a token and what to send in turn, for ever: `%d` in it is made the
    number of the request, so that each has a key of its own."""

    host: str
    port: int
    path: str
    users: list[tuple[str, list[bytes]]]
    warm_up_s: float
    seconds: float


class Request(NamedTuple):
    """Sent and answered in seconds since 1970."""

    number: int
    sent: float
    answered: float


class Told(NamedTuple):
    """Of what was asked and answered after the warm-up."""

    requests: list[Request]
    statuses: dict[int, int]


class _User(asyncio.Protocol):
    """Speaks just enough HTTP/1.1 for answers that have a length."""

    def __init__(
        self, asks: Iterator[tuple[int, bytes]], done: Callable[[int, float, int], bool]
    ) -> None:
        self._asks = asks
        self._done = done
        self._got = b""
        self._number = 0
        self._sent = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._got.lower().find(b"content-length:", 0, head)
        length = int(self._got[at + 15 : self._got.index(b"\r", at)]) if at >= 0 else 0
        if len(self._got) < head + 4 + length:
            return
        status = int(self._got[9:12])
        self._got = b""
        if self._done(self._number, self._sent, status):
            self._ask()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _ask(self) -> None:
        assert self._transport is not None, "connected"
        self._number, request = next(self._asks)
        self._sent = time.time()
        self._transport.write(request)


def _requests(
    asked: Asked, token: str, bodies: list[bytes], first: int
) -> Iterator[tuple[int, bytes]]:
    head = (
        f"POST {asked.path} HTTP/1.1\r\nHost: {asked.host}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    number = first
    while True:
        for body in bodies:
            number += 1
            made = body % number
            yield number, b"%s%d\r\n\r\n%s" % (head, len(made), made)


async def _ask(asked: Asked) -> tuple[list[tuple[int, float, float]], dict[int, int]]:
    loop = asyncio.get_running_loop()
    began = time.time() + asked.warm_up_s
    ended = began + asked.seconds
    told: list[tuple[int, float, float]] = []
    statuses: Counter[int] = Counter()

    def done(number: int, sent: float, status: int) -> bool:
        answered = time.time()
        if sent >= began and answered <= ended:
            told.append((number, sent, answered))
            statuses[status] += 1
        return answered < ended

    users = []
    first = time.time_ns() * len(asked.users) * MOST_EACH
    for at, (token, bodies) in enumerate(asked.users):
        requests = _requests(asked, token, bodies, first + at * MOST_EACH)
        _, user = await loop.create_connection(
            lambda requests=requests: _User(requests, done),  # type: ignore[misc]  # bound here
            asked.host,
            asked.port,
        )
        users.append(user)
    closed = [user.closed for user in users]
    _, waiting = await asyncio.wait(closed, timeout=asked.warm_up_s + asked.seconds + TIMEOUT_S)
    assert not waiting, f"{len(waiting)} users had no answer"
    return told, dict(statuses)


def _run(ours: Connection, asked: Asked) -> None:
    ours.send(uvloop.run(_ask(asked)))


def ask(asked: Asked) -> Told:
    """In a process of its own."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_run, args=(theirs, asked))
    process.start()
    children.end_with_us(process.pid or 0)
    theirs.close()
    try:
        assert ours.poll(TIMEOUT_S + asked.warm_up_s + asked.seconds), "the users do not end"
        requests, statuses = ours.recv()
        process.join(TIMEOUT_S)
        return Told([Request(*each) for each in requests], statuses)
    finally:
        process.kill()
