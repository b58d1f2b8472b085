"""Clients of the HTTP API that all ask at the same time, each in a process of its own.

They are forked from a program that has nothing but them, so that fifty of them cost no more than
one. What is asked and what it proves is for the tests to say.
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


class Told(NamedTuple):
    status: int
    replayed: bool
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Client(NamedTuple):
    """Sends these bodies, one after the other."""

    token: str
    bodies: Sequence[Any]


def at_once(port: int, path: str, clients: Sequence[Client]) -> list[list[Told]]:
    """What each of them was told."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.testkit.api_clients"],
        input=json.dumps([port, path, clients]),
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert len({pid for _, pid, _ in told}) == len(clients)
    return [[Told(*answer) for answer in answers] for _, _, answers in sorted(told)]


def _ask(
    number: int, port: int, path: str, client: Client, ready: Barrier, told: "SimpleQueue[Any]"
) -> None:
    try:
        told.put((number, os.getpid(), _answers(port, path, client, ready)))
    except Exception as error:
        # Else all would wait for this one, until somebody loses patience.
        ready.abort()
        told.put((number, os.getpid(), repr(error)))


def _answers(port: int, path: str, client: Client, ready: Barrier) -> list[Told]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.connect()
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {client.token}",
        "Prefer": "wait=30",  # as long as a slow machine takes
    }
    ready.wait(TIMEOUT_S)
    answers = []
    for body in client.bodies:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        replayed = answer.headers.get("Idempotent-Replayed") == "true"
        answers.append(Told(answer.status, replayed, answer.read().decode()))
    return answers


def main() -> None:
    port, path, clients = json.load(sys.stdin)
    forking = multiprocessing.get_context("fork")
    ready, told = forking.Barrier(len(clients)), forking.SimpleQueue()
    for number, client in enumerate(clients):
        asked = (number, port, path, Client(*client), ready, told)
        forking.Process(target=_ask, args=asked, daemon=True).start()
    everybody = [told.get() for _ in clients]
    failed = [answers for _, _, answers in everybody if isinstance(answers, str)]
    if failed:
        sys.exit("\n".join(failed))
    json.dump(everybody, sys.stdout)


if __name__ == "__main__":
    main()
