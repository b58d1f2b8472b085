"""Who sends a byte at a time holds a connection for a settled time and no longer."""

import http.client
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import psycopg

from ingress.http.request_parsing import BODY_TIMEOUT_S
from ingress.http.server import HEAD_TIMEOUT_S, LINGER_S
from tests.testkit.ledger_api import PASSWORD, Api, Ingress

PAUSE_S = 0.25
# A machine that has other things to do may be late, but not early.
LATEST_S = 40.0

LINE = b"GET /health HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /api/v1/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
ASKED = json.dumps(
    {"first_name": "Eve", "email": "slow@example.com", "password": PASSWORD}
).encode()


class Told(NamedTuple):
    after_s: float
    statuses: list[int]
    code: str | None  # of the last, where that is a problem


def trickle(ingress: Ingress, begin: bytes, byte: Callable[[], bytes]) -> Told:
    """`begin` at once, then one `byte` after the other until the connection is closed."""
    with socket.create_connection(("127.0.0.1", ingress.port), timeout=PAUSE_S) as connection:
        started = time.monotonic()
        connection.sendall(begin)
        told = b""
        while time.monotonic() < started + LATEST_S:
            try:
                if not (more := connection.recv(65_536)):
                    return Told(time.monotonic() - started, *answers(told))
                told += more
            except TimeoutError:
                # That it is closed is told by what comes next.
                with suppress(ConnectionError):
                    connection.sendall(byte())
            except ConnectionResetError:
                return Told(time.monotonic() - started, *answers(told))
    raise AssertionError(f"still open after {LATEST_S:g} s: {told!r}")


def answers(told: bytes) -> tuple[list[int], str | None]:
    statuses = []
    code = None
    while told:
        head, _, rest = told.partition(b"\r\n\r\n")
        line, _, fields = head.partition(b"\r\n")
        statuses.append(int(line.split()[1]))
        length = next(
            int(each.partition(b":")[2])
            for each in fields.split(b"\r\n")
            if each.lower().startswith(b"content-length:")
        )
        body, told = rest[:length], rest[length:]
        code = json.loads(body).get("code")
    return statuses, code


def chunk() -> bytes:
    return b"1\r\n \r\n"


def space() -> bytes:
    return b" "


def letter() -> bytes:
    return b"a"


def nothing() -> bytes:
    return b""


def test_a_connection_is_not_held_by_a_byte_at_a_time(api: Api) -> None:
    def users() -> int:
        with psycopg.connect(api.database) as connection:
            row = connection.execute("SELECT count(*) FROM ledger.users").fetchone()
            assert row is not None
            return int(row[0])

    before = users()
    length = b"Content-Length: %d\r\n\r\n" % (len(ASKED) + 1_000)
    head, body = ([408], "head_too_slow"), ([408], "body_too_slow")
    cases = [
        (b"GET /", letter, head),
        (b"G", nothing, head),
        (LINE + b"X-Slow: ", letter, head),
        (LINE + b"\r\n" + LINE + b"X-Slow: ", letter, ([200, 408], "head_too_slow")),
        (POST + b"Transfer-Encoding: chunked\r\n", nothing, head),
        (POST + length, nothing, body),
        (POST + length + ASKED, space, body),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n", chunk, body),
        # What nobody reads is not waited for longer.
        (LINE + length, space, ([200], None)),
        (LINE.replace(b"health", b"nowhere") + length, space, ([404], "not_found")),
    ]
    idle = http.client.HTTPConnection("127.0.0.1", api.ingress.port, timeout=30)
    idle.request("POST", "/api/v1/login", b"{}", {"Content-Type": "application/json"})
    assert idle.getresponse().read()
    idle.sock.sendall(b"\r\n")  # as some clients do after a body: nothing has begun
    with ThreadPoolExecutor(len(cases)) as threads:
        asked = [threads.submit(trickle, api.ingress, begin, byte) for begin, byte, _ in cases]
        for told, (begin, _, expected) in zip(asked, cases, strict=True):
            after_s, statuses, code = told.result()
            assert (statuses, code) == expected, begin
            settled_s = min(HEAD_TIMEOUT_S, BODY_TIMEOUT_S) if statuses[-1] == 408 else LINGER_S
            assert after_s > settled_s - 1, begin
    assert users() == before
    idle.request("GET", "/health")
    answer = idle.getresponse()
    assert (answer.status, bool(answer.read())) == (200, True)
    idle.close()
