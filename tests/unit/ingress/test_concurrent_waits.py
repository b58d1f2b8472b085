"""Every request that may wait counts against its user's limit, whatever `Prefer` says."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from ingress.http import server
from ingress.http.concurrent_waits import ConcurrentWaits
from ingress.http.request_headers import WaitHeaders, WaitQuery
from ingress.http.roles import SIGNED_IN, UserRole
from ingress.http.routes import Answer, Call, Caller, Route

MAX_WAITS = 2
Client = TestClient[web.Request, web.Application]


class OneCaller:
    async def caller(self, request: web.Request) -> Caller:
        return Caller("ada", 1, UserRole.USER)


@pytest.fixture
def released() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def client(released: asyncio.Event) -> AsyncIterator[Client]:
    async def handle(call: Call[None, None]) -> Answer:
        """Like a POST that waits until the wallet is open, whatever `Prefer` says."""
        await released.wait()
        return Answer(status=204)

    app = web.Application(middlewares=[server.edge(CollectorRegistry())])
    routes = [
        Route(
            method="POST",
            path="/transactions",
            handler=handle,
            summary="",
            tag="",
            roles=SIGNED_IN,
            headers=WaitHeaders,
        ),
        Route(
            method="GET",
            path="/commands",
            handler=handle,
            summary="",
            tag="",
            roles=SIGNED_IN,
            query=WaitQuery,
        ),
    ]
    server.add(app, routes, OneCaller(), ConcurrentWaits(MAX_WAITS), "")
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_request_that_does_not_wait_for_its_outcome_counts_too(
    client: Client, released: asyncio.Event
) -> None:
    async def post() -> int:
        headers = {"Prefer": "respond-async"}
        async with client.post("/transactions", headers=headers) as answer:
            return answer.status

    requests = [asyncio.create_task(post()) for _ in range(MAX_WAITS + 1)]
    done, _ = await asyncio.wait(requests, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert [request.result() for request in done] == [429]
    released.set()
    assert sorted([await request for request in requests]) == [204, 204, 429]


async def test_a_poll_that_does_not_wait_does_not_count(
    client: Client, released: asyncio.Event
) -> None:
    async def get(wait_s: int) -> int:
        async with client.get(f"/commands?wait={wait_s}") as answer:
            return answer.status

    waiting = [asyncio.create_task(get(5)) for _ in range(MAX_WAITS + 1)]
    done, _ = await asyncio.wait(waiting, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert [request.result() for request in done] == [429]
    at_once = [asyncio.create_task(get(0)) for _ in range(MAX_WAITS + 1)]
    released.set()
    assert [await request for request in at_once] == [204, 204, 204]
    assert sorted([await request for request in waiting]) == [204, 204, 429]
