"""`streamledger transfer`: many transfers between two people over HTTP, from several processes.

Each is told once: what is undecided is polled for, and where the connection breaks the same request
is sent again by the same key, which does it once at most.
"""

import http.client
import json
import multiprocessing
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from plumbing.failures import Failure

TIMEOUT_S = 60.0
AGAIN_S = 60.0
PAUSE_S = 0.2


@dataclass(frozen=True)
class TransferRun:
    url: str
    prefix: str
    sender: str
    password: str
    receiver: str
    amount: str
    count: int


def run(asked: TransferRun, processes: int) -> Iterator[dict[str, int]]:
    """What became of the transfers, by status or reason: of each process as it ends."""
    shares = [asked.count // processes + (n < asked.count % processes) for n in range(processes)]
    own = [TransferRun(**{**vars(asked), "count": share}) for share in shares if share]
    with multiprocessing.get_context("spawn").Pool(len(own)) as pool:
        yield from pool.imap_unordered(_send, own)


def _send(asked: TransferRun) -> dict[str, int]:
    client = _Client(asked.url, asked.prefix)
    signed_in = client.call("POST", "/login", {"email": asked.sender, "password": asked.password})
    if signed_in[0] != HTTPStatus.OK:
        raise Failure(f"{asked.sender} cannot sign in: {_why(signed_in[1])}")
    client.token = signed_in[1]["access_token"]
    told: Counter[str] = Counter()
    for _ in range(asked.count):
        told[_transfer(client, asked)] += 1
    return dict(told)


def _transfer(client: "_Client", asked: TransferRun) -> str:
    body = {
        "receiver_email": asked.receiver,
        "amount": int(asked.amount) if asked.amount.isdecimal() else asked.amount,
        "trans_id": str(uuid.uuid4()),
    }
    status, told = client.call("POST", "/transactions", body)
    deadline = time.monotonic() + AGAIN_S
    while status == HTTPStatus.ACCEPTED and time.monotonic() < deadline:
        # The Location has a query already.
        path = told["location"].removeprefix(client.prefix)
        polled, command = client.call("GET", f"{path}&wait=10")
        if polled == HTTPStatus.OK and command["status"] == "posted":
            return "posted"
        if polled == HTTPStatus.OK and command["status"] == "rejected":
            return str(command["problem"]["code"])
    if status == HTTPStatus.CREATED:
        return "posted"
    return "undecided" if status == HTTPStatus.ACCEPTED else _why(told)


def _why(told: Any) -> str:
    return str(told.get("code", told)) if isinstance(told, dict) else str(told)


class _Client:
    def __init__(self, url: str, prefix: str) -> None:
        parts = urlsplit(url)
        self.prefix = prefix
        self.token: str | None = None
        self._connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=TIMEOUT_S
        )

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Again, as it was, while the connection breaks."""
        deadline = time.monotonic() + AGAIN_S
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        while True:
            try:
                self._connection.request(method, self.prefix + path, data, headers)
                answer = self._connection.getresponse()
                status, text = answer.status, answer.read()
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if time.monotonic() > deadline:
                    raise Failure(f"the ingress gives no answer: {error}") from None
                time.sleep(PAUSE_S)
                continue
            if status == HTTPStatus.SERVICE_UNAVAILABLE and time.monotonic() < deadline:
                time.sleep(PAUSE_S)
                continue
            return status, json.loads(text or b"null")
