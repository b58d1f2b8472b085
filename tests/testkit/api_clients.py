"""Concurrent clients of the HTTP API, each in its own process.

They are forked from a small program, so that fifty of them start as fast as one.
"""

import http.client
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

TIMEOUT_S = 60.0
RUN_S = 300.0


class Reply(NamedTuple):
    status: int
    replayed: bool
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Client(NamedTuple):
    """Sends these request bodies one after the other."""

    token: str
    bodies: Sequence[Any]


def send_at_once(port: int, path: str, clients: Sequence[Client]) -> list[list[Reply]]:
    """The replies to each client, in the order of its bodies."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.testkit.api_clients"],
        input=json.dumps([port, path, clients]),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    replies = json.loads(finished.stdout)
    assert len({pid for _, pid, _ in replies}) == len(clients)
    return [
        [Reply(*answer) for answer in replies_of_client]
        for _, _, replies_of_client in sorted(replies)
    ]


def _run_client(
    number: int, port: int, path: str, client: Client, ready: Barrier, replies: "SimpleQueue[Any]"
) -> None:
    try:
        replies.put((number, os.getpid(), _answers(port, path, client, ready)))
    except Exception as error:
        # Otherwise all others would wait at the barrier until it times out.
        ready.abort()
        replies.put((number, os.getpid(), repr(error)))


def _answers(port: int, path: str, client: Client, ready: Barrier) -> list[Reply]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.connect()
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {client.token}",
        "Prefer": "wait=30",  # the longest wait
    }
    ready.wait(TIMEOUT_S)
    replies_of_client = []
    for body in client.bodies:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        replies_of_client.append(Reply(answer.status, replayed, answer.read().decode()))
    return replies_of_client


def main() -> None:
    port, path, clients = json.load(sys.stdin)
    forking = multiprocessing.get_context("fork")
    ready, replies = forking.Barrier(len(clients)), forking.SimpleQueue()
    for number, client in enumerate(clients):
        arguments = (number, port, path, Client(*client), ready, replies)
        forking.Process(target=_run_client, args=arguments, daemon=True).start()
    results = [replies.get() for _ in clients]
    failed = [
        replies_of_client
        for _, _, replies_of_client in results
        if isinstance(replies_of_client, str)
    ]
    if failed:
        sys.exit("\n".join(failed))
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
