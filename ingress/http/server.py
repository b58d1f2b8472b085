"""Takes each request to its route's handler: authenticates, authorizes, validates, and responds.

Keeps the rules that every error is a problem document that leaks nothing, and that a refused
request has written nothing. It is a single layer, because every request passes it. It knows no
route.
"""

import asyncio
import os
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, Protocol

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from confluent_kafka import KafkaException
from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter

from ingress.http import client_address, problems, request_parsing
from ingress.http.concurrent_waits import ConcurrentWaits
from ingress.http.problems import Code, HttpProblem
from ingress.http.request_headers import WaitQuery
from ingress.http.routes import Answer, Call, Caller, Query, ResponseModel, Route
from ingress.sql import queries
from plumbing import metrics
from schemas.validation import command_validation

RETRY_AFTER_S: Final = "1"
# From the first byte of a request's head to the last. The body has its own timeout.
HEAD_TIMEOUT_S: Final = 10.0
# How long an idle connection is kept: longer than common proxies keep theirs.
IDLE_TIMEOUT_S: Final = 75.0
# How long a refused body is still read, so that its sender can read the response.
LINGER_S: Final = 3.0
# How long a response may stay unread.
UNREAD_TIMEOUT_S: Final = 30.0
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
TRACE: Final = web.RequestKey("trace", str)
REQUEST_ID: Final = web.RequestKey("request_id", str)
CALLER: Final = web.RequestKey("caller", Caller)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z").match
_TRACE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z").match

# Errors while Kafka or Postgres is unavailable; they do not say which.
_UNAVAILABLE = (*queries.UNAVAILABLE, KafkaException)
_CODES_BY_STATUS = {
    404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED,
    408: Code.BODY_TOO_SLOW,
    413: Code.BODY_TOO_LARGE,
    415: Code.UNSUPPORTED_MEDIA_TYPE,
}

log = structlog.stdlib.get_logger(__name__)


class Runner(web.AppRunner):
    """Returns a problem document even for malformed HTTP, and closes the connections of clients
    that are slow on purpose."""

    def __init__(
        self,
        app: web.Application,
        *,
        shutdown_timeout: float,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        unread_timeout_s: float = UNREAD_TIMEOUT_S,
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            shutdown_timeout=shutdown_timeout,
            keepalive_timeout=idle_timeout_s,
            unread_timeout_s=unread_timeout_s,  # of _Connection
            lingering_time=LINGER_S,
            # A small compressed body may expand without limit.
            auto_decompress=False,
        )

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        return server


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    """aiohttp's handler, with a timeout for the head of a request and for an unread response."""

    __slots__ = ("_head_timer", "_unread_timeout_s")

    def __init__(self, manager: web.Server, *, unread_timeout_s: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._unread_timeout_s = unread_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux only
            # Otherwise a response that the client never reads is kept forever.
            connection = transport.get_extra_info("socket")
            unread_ms = int(self._unread_timeout_s * 1000)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waiter = self._waiter
        # If it still waits for a request after these bytes, they are part of its head.
        if self._request_count == 0 or (waiter is not None and not waiter.done()):
            # A line ending left over after a body does not start a head.
            if self._head_timer is None and data.strip(b"\r\n"):
                self._head_timer = self._loop.call_later(HEAD_TIMEOUT_S, self._head_too_slow)
        elif self._head_timer is not None:
            self._stop_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self.transport is not None:
            self.transport.write(_head_too_slow())
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        code = _CODES_BY_STATUS.get(status, Code.MALFORMED_REQUEST)
        answer = problems.answer(HttpProblem(code), os.urandom(16).hex())
        answer.headers["Server"] = "streamledger"
        answer.force_close()
        return answer


def _head_too_slow() -> bytes:
    """The raw bytes of the response, because there is no request object to respond to."""
    answer = problems.answer(HttpProblem(Code.HEAD_TOO_SLOW), os.urandom(16).hex())
    assert isinstance(answer.body, bytes), "a document"
    head = (
        "HTTP/1.1 408 Request Timeout\r\n"
        f"Content-Type: {problems.CONTENT_TYPE}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Server: streamledger\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + answer.body


class AuthenticatorPort(Protocol):
    """Identifies the caller of a request."""

    def caller(self, request: web.Request) -> Awaitable[Caller | None]:
        """Returns None without credentials. Raises an HttpProblem for invalid ones."""


def handler(
    route: Route, authenticator: AuthenticatorPort, waits: ConcurrentWaits
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Authenticates, authorizes and validates a request, then calls the route's handler."""
    body_model = TypeAdapter(route.body) if route.body is not None else None
    query_model = TypeAdapter(route.query) if route.query is not None else None
    path_model = TypeAdapter(route.params) if route.params is not None else None
    roles, act, may_wait = route.roles, route.handler, route.waits

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = None
        if roles is not None:
            caller = await authenticator.caller(request)
            if caller is None:
                raise HttpProblem(Code.UNAUTHENTICATED, headers={"WWW-Authenticate": "Bearer"})
            request[CALLER] = caller
            _check_allowed(route, caller)
        path = request.match_info
        if path:
            if command_validation.unfit_text(dict(path)):
                raise HttpProblem(Code.NOT_FOUND)
            if path_model is not None:
                request_parsing.validated(path_model, dict(path), Code.QUERY_INVALID)
        query = None
        if query_model is not None:
            query = request_parsing.query(request, query_model)
        elif roles is not None and request.query_string:
            request_parsing.query(request, _NO_QUERY)
        body = None
        if body_model is not None and (route.body_required or request.body_exists):
            body = request_parsing.validated(
                body_model, await request_parsing.json_body(request), Code.FIELDS_INVALID
            )
        call = Call(request, request[REQUEST_ID], request[TRACE], body, query, path, caller)
        # `Prefer` does not exempt a command: it may wait for its wallet and for Kafka.
        polls = isinstance(query, WaitQuery) and query.wait == 0
        if caller is not None and may_wait and not polls:
            with waits.one(caller.id):
                answer = await act(call)
        else:
            answer = await act(call)
        return answer if isinstance(answer, web.StreamResponse) else response(answer)

    return handle


def response(answer: Answer) -> web.Response:
    value = answer.value
    if isinstance(value, ResponseModel):
        value = value.encoded()
    if value is None:
        return web.Response(status=answer.status, headers=answer.headers)
    return web.Response(
        status=answer.status, body=value, headers=answer.headers, content_type=answer.content_type
    )


_NO_QUERY: TypeAdapter[Any] = TypeAdapter(Query)


def _check_allowed(route: Route, caller: Caller) -> None:
    assert route.roles is not None, "a public route is not authorized"
    if caller.role not in route.roles:
        raise HttpProblem(Code.FORBIDDEN)
    if caller.scopes is not None and (route.scope is None or route.scope not in caller.scopes):
        raise HttpProblem(Code.FORBIDDEN, "The scopes of this API key do not permit this.")


def add(
    app: web.Application,
    routes: Iterable[Route],
    authenticator: AuthenticatorPort,
    waits: ConcurrentWaits,
    prefix: str,
) -> None:
    for route in routes:
        # add_get adds HEAD, too.
        if route.method == "GET":
            app.router.add_get(route.full_path(prefix), handler(route, authenticator, waits))
        else:
            app.router.add_route(
                route.method, route.full_path(prefix), handler(route, authenticator, waits)
            )


def edge(
    registry: CollectorRegistry,
    trusted: Sequence[client_address.Network] = (),
    on_problem: Callable[[web.Request, HttpProblem], None] | None = None,
) -> Middleware:
    """The middleware around every handler and around the router's own refusals. `on_problem` gets
    each problem before it is answered."""
    requests = metrics.counter(registry, metrics.HTTP_REQUESTS)
    seconds = metrics.histogram(registry, metrics.HTTP_SECONDS)
    # Looking up a child by its labels takes a lock, and longer than counting does.
    count_of = cache(requests.labels)
    seconds_of = cache(seconds.labels)

    @web.middleware
    async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        if trusted:
            request = client_address.behind_proxies(request, trusted)
        _identify(request)
        response = await _answer(request, handler, on_problem)
        headers = response.headers
        if not response.prepared:
            headers["X-Request-Id"] = request[REQUEST_ID]
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Server"] = "streamledger"
            headers.setdefault("Cache-Control", "no-store")
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        # A client may invent methods, but a label must have few values.
        method = request.method if request.method in hdrs.METH_ALL else "other"
        seconds_of(method, route).observe(time.perf_counter() - started)
        count_of(method, route, str(response.status)).inc()
        return response

    return serve


def _identify(request: web.Request) -> None:
    trace = request.headers.get("traceparent", "")
    if not _TRACE(trace):
        new = os.urandom(16).hex()
        trace = f"00-{new}-{new[:16]}-01"
    request[TRACE] = trace
    request_id = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = request_id if _REQUEST_ID(request_id) else trace[3:35]


async def _answer(
    request: web.Request,
    handler: Handler,
    on_problem: Callable[[web.Request, HttpProblem], None] | None,
) -> web.StreamResponse:
    request_id = request[REQUEST_ID]
    try:
        return await handler(request)
    except HttpProblem as problem:
        if on_problem is not None:
            on_problem(request, problem)
        return problems.answer(problem, request_id)
    except web.HTTPException as raised:
        if raised.status < 400:
            raise
        code = _CODES_BY_STATUS.get(raised.status, Code.MALFORMED_REQUEST)
        allow = raised.headers.get("Allow")
        headers = {"Allow": allow} if allow is not None else None
        return problems.answer(HttpProblem(code, headers=headers), request_id)
    except _UNAVAILABLE as error:
        log.warning(
            "request failed: Kafka or Postgres unavailable",
            request_id=request_id,
            error=str(error).strip(),
        )
        headers = {"Retry-After": RETRY_AFTER_S}
        return problems.answer(HttpProblem(Code.UNAVAILABLE, headers=headers), request_id)
    except Exception:
        # A bug must not affect other requests, and only the log may contain its text.
        log.exception("request failed", request_id=request_id, path=request.path)
        return problems.answer(HttpProblem(Code.INTERNAL_ERROR), request_id)
