"""The server closes idle connections and those whose response stays unread, but not those of slow
readers."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ingress.http.server import IDLE_TIMEOUT_S, UNREAD_TIMEOUT_S, Runner
from tests.testkit.waiting import eventually

TIMEOUT_S = 1.0
# A busy machine may be late, but never early.
LATEST_S = 40.0
# More than all buffers between client and server hold.
LARGE = bytes(32 * 2**20)
REQUEST = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
async def runner() -> AsyncIterator[Runner]:
    async def respond(request: web.Request) -> web.Response:
        return web.Response(body=LARGE if request.path == "/large" else b"small")

    app = web.Application()
    app.router.add_get("/{size}", respond)
    runner = Runner(app, shutdown_timeout=1, idle_timeout_s=TIMEOUT_S, unread_timeout_s=TIMEOUT_S)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner
    await runner.cleanup()


async def connected(runner: Runner) -> socket.socket:
    """With a small receive buffer, so that an unread response stays with the server."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, runner.addresses[0])
    return client


async def closed_after_s(runner: Runner) -> float:
    """How long the server keeps its only connection."""
    server, started = runner.server, time.monotonic()
    assert server is not None and server.connections
    await asyncio.to_thread(eventually, lambda: not server.connections, LATEST_S)
    return time.monotonic() - started


async def test_an_idle_connection_is_closed(runner: Runner) -> None:
    loop = asyncio.get_running_loop()
    with await connected(runner) as client:
        await loop.sock_sendall(client, REQUEST % b"small")
        assert b"200 OK" in await loop.sock_recv(client, 4_096)
        assert await closed_after_s(runner) > TIMEOUT_S / 2


if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only

    async def test_a_connection_with_an_unread_answer_is_closed(runner: Runner) -> None:
        loop = asyncio.get_running_loop()
        with await connected(runner) as client:
            await loop.sock_sendall(client, REQUEST % b"large")
            assert b"200 OK" in await loop.sock_recv(client, 4_096)
            assert await closed_after_s(runner) > TIMEOUT_S / 2


async def test_a_slow_reader_keeps_its_connection(runner: Runner) -> None:
    loop = asyncio.get_running_loop()
    with await connected(runner) as client:
        await loop.sock_sendall(client, REQUEST % b"large")
        until = time.monotonic() + 2 * TIMEOUT_S
        while time.monotonic() < until:
            assert await loop.sock_recv(client, 4_096)
            await asyncio.sleep(TIMEOUT_S / 10)
        rest = 0
        async with asyncio.timeout(LATEST_S):
            while rest < len(LARGE) // 2:
                rest += len(await loop.sock_recv(client, 2**20))


def test_the_timeouts_are_those_of_the_documentation() -> None:
    assert (IDLE_TIMEOUT_S, UNREAD_TIMEOUT_S) == (75, 30)
