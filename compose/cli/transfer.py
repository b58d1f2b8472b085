"""`streamledger transfer`: many transfers between two people over HTTP, from several processes.

Each has one outcome. An undecided one is polled for. After a broken connection the same request is
sent again with the same key, which takes effect at most once.
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


def run(transfers: TransferRun, processes: int) -> Iterator[dict[str, int]]:
    """What became of the transfers, by status or reason: of each process as it ends."""
    shares = [
        transfers.count // processes + (n < transfers.count % processes) for n in range(processes)
    ]
    own = [TransferRun(**{**vars(transfers), "count": share}) for share in shares if share]
    with multiprocessing.get_context("spawn").Pool(len(own)) as pool:
        yield from pool.imap_unordered(_send, own)


def _send(transfers: TransferRun) -> dict[str, int]:
    client = _Client(transfers.url, transfers.prefix)
    signed_in = client.call(
        "POST", "/login", {"email": transfers.sender, "password": transfers.password}
    )
    if signed_in[0] != HTTPStatus.OK:
        raise Failure(f"{transfers.sender} cannot sign in: {_why(signed_in[1])}")
    client.token = signed_in[1]["access_token"]
    statuses: Counter[str] = Counter()
    for _ in range(transfers.count):
        statuses[_transfer(client, transfers)] += 1
    return dict(statuses)


def _transfer(client: "_Client", transfers: TransferRun) -> str:
    body = {
        "receiver_email": transfers.receiver,
        "amount": int(transfers.amount) if transfers.amount.isdecimal() else transfers.amount,
        "trans_id": str(uuid.uuid4()),
    }
    status, response = client.call("POST", "/transactions", body)
    deadline = time.monotonic() + AGAIN_S
    while status == HTTPStatus.ACCEPTED and time.monotonic() < deadline:
        # The Location has a query already.
        path = response["location"].removeprefix(client.prefix)
        polled, command = client.call("GET", f"{path}&wait=10")
        if polled == HTTPStatus.OK and command["status"] == "posted":
            return "posted"
        if polled == HTTPStatus.OK and command["status"] == "rejected":
            return str(command["problem"]["code"])
    if status == HTTPStatus.CREATED:
        return "posted"
    return "undecided" if status == HTTPStatus.ACCEPTED else _why(response)


def _why(response: Any) -> str:
    return str(response.get("code", response)) if isinstance(response, dict) else str(response)


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
