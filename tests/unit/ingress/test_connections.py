"""A connection on which nothing is asked, or whose answer nobody reads, is closed in time; one that
is read slowly is not."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ingress.http.server import IDLE_TIMEOUT_S, UNREAD_TIMEOUT_S, Runner
from tests.testkit.waiting import eventually

TIMEOUT_S = 1.0
# A machine that has other things to do may be late, but not early.
LATEST_S = 40.0
# More than any buffers between the two hold.
LARGE = bytes(32 * 2**20)
ASKED = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def runner() -> AsyncIterator[Runner]:
    async def tell(request: web.Request) -> web.Response:
        return web.Response(body=LARGE if request.path == "/large" else b"small")

    app = web.Application()
    app.router.add_get("/{size}", tell)
    made = Runner(app, shutdown_timeout=1, idle_timeout_s=TIMEOUT_S, unread_timeout_s=TIMEOUT_S)
    await made.setup()
    await web.TCPSite(made, "127.0.0.1", 0).start()
    yield made
    await made.cleanup()


async def connected(runner: Runner) -> socket.socket:
    """What is not read here stays with the server."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    made.setblocking(False)
    await asyncio.get_running_loop().sock_connect(made, runner.addresses[0])
    return made


async def closed_after_s(runner: Runner) -> float:
    """How long the server keeps its one connection."""
    server, started = runner.server, time.monotonic()
    assert server is not None and server.connections
    await asyncio.to_thread(eventually, lambda: not server.connections, LATEST_S)
    return time.monotonic() - started


async def test_one_on_which_nothing_is_asked(runner: Runner) -> None:
    loop = asyncio.get_running_loop()
    with await connected(runner) as client:
        await loop.sock_sendall(client, ASKED % b"small")
        assert b"200 OK" in await loop.sock_recv(client, 4_096)
        assert await closed_after_s(runner) > TIMEOUT_S / 2


if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux

    async def test_one_whose_answer_is_not_read(runner: Runner) -> None:
        loop = asyncio.get_running_loop()
        with await connected(runner) as client:
            await loop.sock_sendall(client, ASKED % b"large")
            assert b"200 OK" in await loop.sock_recv(client, 4_096)
            assert await closed_after_s(runner) > TIMEOUT_S / 2


async def test_one_whose_answer_is_read_slowly(runner: Runner) -> None:
    loop = asyncio.get_running_loop()
    with await connected(runner) as client:
        await loop.sock_sendall(client, ASKED % b"large")
        until = time.monotonic() + 2 * TIMEOUT_S
        while time.monotonic() < until:
            assert await loop.sock_recv(client, 4_096)
            await asyncio.sleep(TIMEOUT_S / 10)
        rest = 0
        async with asyncio.timeout(LATEST_S):
            while rest < len(LARGE) // 2:
                rest += len(await loop.sock_recv(client, 2**20))


def test_that_is_what_the_documentation_says() -> None:
    assert (IDLE_TIMEOUT_S, UNREAD_TIMEOUT_S) == (75, 30)
