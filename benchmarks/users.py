"""Users of the HTTP API in a closed loop: each sends, waits for the answer and sends again.

They run in a light process of their own, so that the benchmark measures the ledger and not itself.
Each user keeps one connection alive. Requests are given as bytes; results are times and statuses.
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
# More than a user sends in one measurement.
MAX_REQUESTS_PER_USER = 10**7


class Person(NamedTuple):
    token: str
    number: int
    wallet_id: str


class LoadSpec(NamedTuple):
    """`users` has a token for each user and the bodies to send in turn, repeatedly. `%d` in a body
    becomes the number of the request, which makes its key unique."""

    host: str
    port: int
    path: str
    users: list[tuple[str, list[bytes]]]
    warm_up_s: float
    seconds: float


class Request(NamedTuple):
    """Times are in seconds since 1970."""

    number: int
    sent: float
    answered: float


class LoadResult(NamedTuple):
    """The requests that were sent and answered after the warm-up."""

    requests: list[Request]
    statuses: dict[int, int]


class _User(asyncio.Protocol):
    """Speaks just enough HTTP/1.1 for responses with a Content-Length."""

    def __init__(
        self, requests: Iterator[tuple[int, bytes]], on_response: Callable[[int, float, int], bool]
    ) -> None:
        self._requests = requests
        self._on_response = on_response
        self._received = b""
        self._number = 0
        self._sent = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._send_next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._received.lower().find(b"content-length:", 0, head)
        length = int(self._received[at + 15 : self._received.index(b"\r", at)]) if at >= 0 else 0
        if len(self._received) < head + 4 + length:
            return
        status = int(self._received[9:12])
        self._received = b""
        if self._on_response(self._number, self._sent, status):
            self._send_next()
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _send_next(self) -> None:
        assert self._transport is not None, "connected"
        self._number, request = next(self._requests)
        self._sent = time.time()
        self._transport.write(request)


def _numbered_requests(
    spec: LoadSpec, token: str, bodies: list[bytes], first: int
) -> Iterator[tuple[int, bytes]]:
    head = (
        f"POST {spec.path} HTTP/1.1\r\nHost: {spec.host}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    number = first
    while True:
        for body in bodies:
            number += 1
            numbered_body = body % number
            yield number, b"%s%d\r\n\r\n%s" % (head, len(numbered_body), numbered_body)


async def _run_users(spec: LoadSpec) -> tuple[list[tuple[int, float, float]], dict[int, int]]:
    loop = asyncio.get_running_loop()
    measure_from = time.time() + spec.warm_up_s
    measure_until = measure_from + spec.seconds
    timed_requests: list[tuple[int, float, float]] = []
    statuses: Counter[int] = Counter()

    def on_response(number: int, sent: float, status: int) -> bool:
        answered = time.time()
        if sent >= measure_from and answered <= measure_until:
            timed_requests.append((number, sent, answered))
            statuses[status] += 1
        return answered < measure_until

    users = []
    first = time.time_ns() * len(spec.users) * MAX_REQUESTS_PER_USER
    for at, (token, bodies) in enumerate(spec.users):
        requests = _numbered_requests(spec, token, bodies, first + at * MAX_REQUESTS_PER_USER)
        _, user = await loop.create_connection(
            lambda requests=requests: _User(requests, on_response),  # type: ignore[misc]  # bound here
            spec.host,
            spec.port,
        )
        users.append(user)
    closed = [user.closed for user in users]
    _, waiting = await asyncio.wait(closed, timeout=spec.warm_up_s + spec.seconds + TIMEOUT_S)
    assert not waiting, f"{len(waiting)} users got no answer"
    return timed_requests, dict(statuses)


def _run(connection: Connection, spec: LoadSpec) -> None:
    connection.send(uvloop.run(_run_users(spec)))


def run_users(spec: LoadSpec) -> LoadResult:
    """Runs the users in their own process."""
    spawning = multiprocessing.get_context("spawn")
    receiver, sender = spawning.Pipe()
    process = spawning.Process(target=_run, args=(sender, spec))
    process.start()
    children.end_with_us(process.pid or 0)
    sender.close()
    try:
        assert receiver.poll(TIMEOUT_S + spec.warm_up_s + spec.seconds), "the users did not finish"
        requests, statuses = receiver.recv()
        process.join(TIMEOUT_S)
        return LoadResult([Request(*request) for request in requests], statuses)
    finally:
        process.kill()
