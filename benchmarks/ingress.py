"""The HTTP API under load: users who each wait for the decided result before they ask again.

    python -m benchmarks.ingress             # 10 s for each number of users
    python -m benchmarks.ingress --full      # every load at every number of users, 30 s

Prints a JSON line for each measure. Kafka, Postgres, a processor, a sink, the ingress and the users
are real and share the machine. Every answer must be 201, and at the end `streamledger verify` must
agree: nothing fast is wrong.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import psutil

from benchmarks import children, machine, outcomes, users
from benchmarks.machine import Ledger, Machine
from benchmarks.processor import at_least, at_most, percentile, tell
from benchmarks.sink import Sink
from benchmarks.users import Asked, Person, Told
from compose import provision
from compose.embedded import ports, postgres, programs
from schemas.partitioning import partition_of
from schemas.topics import RESULTS
from tests import brokers
from tests.waiting import eventually

HOST = "127.0.0.1"
PATH = "/api/v1/transactions"
START_S = 60.0
WARM_UP_S = 3.0
USERS = (10, 25, 50, 200)
TARGET_USERS, PER_SECOND, P95_MS = 50, 1_000, 60
OPERATOR = "operator@example.com"
PASSWORD = "a password of the benchmark"
MONEY = 2**40


class Api:
    """One ingress with its people."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._port = ports.next_free(brokers.some_port())
        self._log = folder / "ingress.log"
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        own = {
            "HTTP_PORT": str(self._port),
            "SIGNING_KEY": os.urandom(32).hex(),
            "PASSWORD_MEMORY_KIB": "8192",
            "ADMIN_EMAIL": OPERATOR,
            "ADMIN_PASSWORD": PASSWORD,
        }
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "ingress"],
                cwd=folder,
                env={**inherited, **settings, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        children.end_with_us(self._child.pid)
        self.process = psutil.Process(self._child.pid)
        eventually(self._is_ready, START_S)

    def _is_ready(self) -> bool:
        assert self._child.poll() is None, (
            f"the ingress has ended:\n{self._log.read_text()[-3000:]}"
        )
        with suppress(OSError):
            return self.call("GET", "/ready")[0] == HTTPStatus.OK
        return False

    def call(
        self, method: str, path: str, body: object = None, token: str | None = None
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=START_S)
        try:
            headers = {"Content-Type": "application/json"}
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()

    def person(self, number: int) -> Person:
        """Registered, with money."""
        asked = {
            "name": f"User {number}",
            "email": f"user{number}@example.com",
            "password": PASSWORD,
        }
        status, told = self.call("POST", "/api/v1/register", asked)
        assert status == HTTPStatus.CREATED, told
        made = Person(told["access_token"], told["user"]["id"], told["wallet"]["id"])
        status, told = self.call("POST", PATH, {"entry": "credit", "amount": MONEY}, made.token)
        assert status == HTTPStatus.CREATED, told
        return made

    def ask(self, bodies: list[tuple[str, list[bytes]]], seconds: float) -> Told:
        return users.ask(Asked(HOST, self._port, PATH, bodies, WARM_UP_S, seconds))

    def kill(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


# What each user sends in turn, by its number among the people.
Load = Callable[[list[Person], int, int], list[bytes]]


def _body(**fields: object) -> bytes:
    text = json.dumps({**fields, "trans_id": "NUMBER"}, separators=(",", ":"))
    return text.replace("%", "%%").replace("NUMBER", "%d").encode()


def _credits(people: list[Person], at: int, partitions: int) -> list[bytes]:
    return [_body(entry="credit", amount=100)]


def _transfers(people: list[Person], at: int, partitions: int) -> list[bytes]:
    """Each to somebody in another partition, where there is one."""
    dice, own = random.Random(at), partition_of(people[at].wallet_id, partitions)
    others = [p for p in people if partition_of(p.wallet_id, partitions) != own]
    chosen = dice.sample(others, min(20, len(others)))
    return [_body(receiver_id=each.number, amount=100) for each in chosen]


LOADS: dict[str, Load] = {"wallet credits": _credits, "transfers between partitions": _transfers}


class _Place(msgspec.Struct):
    partition: int
    offset: int


_decode = msgspec.json.Decoder(_Place).decode


class Bench:
    def __init__(
        self, made: Machine, ledger: Ledger, sink: Sink, api: Api, database: str, server: int
    ) -> None:
        self.api = api
        self._machine = made
        self._ledger = ledger
        self._sink = sink
        self._database = database
        self._server = psutil.Process(server)
        names, client = ledger.names, ledger.client
        self._commands = outcomes.Ends(client, names.commands, ledger.partitions)
        self._journal = outcomes.Ends(client, names.journal, ledger.partitions)
        self._results = outcomes.Ends(client, names.results, RESULTS.partitions or 0)

    def measure(
        self, people: list[Person], load: Load, count: int, seconds: float
    ) -> dict[str, Any]:
        own = [(people[at].token, load(people, at, self._ledger.partitions)) for at in range(count)]
        begin, cpu = self._ends(), self._cpu_s()
        told = self.api.ask(own, seconds)
        used = {part: now - cpu[part] for part, now in self._cpu_s().items()}
        waits = sorted(told.waits_ms)
        whole = (WARM_UP_S + seconds) / seconds * len(waits)
        return {
            "users": count,
            "per_second": round(len(waits) / seconds),
            "mean_ms": round(sum(waits) / len(waits), 1),
            **{f"p{part}_ms": round(percentile(waits, part), 1) for part in (50, 95, 99)},
            "errors": sum(n for status, n in told.statuses.items() if status != 201),
            "statuses": told.statuses,
            "stages_p50_ms": self._stages(begin),
            **{f"{part}_cpu_us": round(s / whole * 1e6) for part, s in used.items()},
            "load_average": machine.load_average(),
        }

    def _ends(self) -> tuple[list[int], list[int], list[int]]:
        return self._commands.read(), self._journal.read(), self._results.read()

    def _stages(self, begin: tuple[list[int], list[int], list[int]]) -> dict[str, float]:
        """From append to decision, and from there to rows in Postgres and a result, by the brokers'
        and producers' clocks; the rest of what a user waits is the ingress's."""
        names, client, end = self._ledger.names, self._ledger.client, self._ends()
        appended: dict[tuple[int, int], int] = {}
        for message in outcomes.records(client, names.commands, begin[0], end[0]):
            appended[message.partition() or 0, message.offset() or 0] = message.timestamp()[1]
        decided: dict[tuple[int, int], int] = {}
        for message in outcomes.records(client, names.journal, begin[1], end[1]):
            place = outcomes.outcome_of_record(message)
            if place is not None:
                decided[place] = message.timestamp()[1]
        decision, rows = [], []
        for message in outcomes.records(client, names.results, begin[2], end[2]):
            result = _decode(message.value() or b"")
            place = (result.partition, result.offset)
            if place in appended and place in decided:
                decision.append(decided[place] - appended[place])
                rows.append(message.timestamp()[1] - decided[place])
        if not rows:
            return {}
        return {
            "append_to_decision": percentile(sorted(map(float, decision)), 50),
            "decision_to_rows": percentile(sorted(map(float, rows)), 50),
        }

    def _cpu_s(self) -> dict[str, float]:
        times = self._server.cpu_times()
        server = float(times.user + times.system + times.children_user + times.children_system)
        for backend in self._server.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                server += machine.cpu_s(backend)
        return {
            "ingress": machine.cpu_s(self.api.process),
            "processor": self._ledger.cpu_s(),
            "sink": machine.cpu_s(self._sink.process),
            "postgres": server,
            "broker": self._machine.broker.cpu_s(),
        }

    def verify(self) -> bool:
        inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        settings = {**self._ledger.settings, "DATABASE_URL": self._database}
        settings.pop("SESSION_TIMEOUT_MS")
        ended = subprocess.run(
            [sys.executable, "-m", "compose.cli", "verify"],
            env={**inherited, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode != 0:
            sys.stderr.write(ended.stdout + ended.stderr)
        return ended.returncode == 0


@contextmanager
def running(partitions: int) -> Iterator[Bench]:
    never = threading.Event()
    folder = Path(tempfile.mkdtemp(prefix="streamledger-benchmark-"))
    started: list[Sink | Api] = []
    with machine.running() as made, brokers.data_folder() as where:
        server = programs.server(where, postgres.Options(first_port=brokers.some_port()), never)
        try:
            database = server.start(never)
            assert server.process is not None
            pid = server.process.child.pid
            children.end_with_us(pid)
            provision.migrate(database)
            ledger = made.ledger("ingress", partitions, 1)
            ledger.start()
            settings = {**ledger.settings, "DATABASE_URL": database}
            sink = Sink(0, folder, settings)
            started.append(sink)
            api = Api(folder, settings)
            started.append(api)
            yield Bench(made, ledger, sink, api, database, pid)
        finally:
            for each in started:
                each.kill()
            made.kill()
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingress", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every load, 30 s each")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--warm-up-seconds", type=float, default=15.0)
    parser.add_argument("--users", type=int, nargs="+", default=list(USERS))
    parser.add_argument("--partitions", type=int, default=8)
    given = parser.parse_args()
    seconds = given.seconds or (30.0 if given.full else 10.0)
    tell(
        "machine",
        partitions=given.partitions,
        cores=os.cpu_count(),
        load_average=machine.load_average(),
    )
    with running(given.partitions) as bench:
        began = time.monotonic()
        people = [bench.api.person(number) for number in range(max(given.users))]
        tell("registered", people=len(people), seconds=round(time.monotonic() - began, 1))
        # A broker that has just started is still being compiled.
        warm = bench.measure(
            people, _credits, min(TARGET_USERS, len(people)), given.warm_up_seconds
        )
        tell("warm-up", per_second=warm["per_second"])
        for name, load in LOADS.items():
            for count in given.users:
                if not given.full and load is not _credits and count != TARGET_USERS:
                    continue
                told = bench.measure(people, load, count, seconds)
                targets = {}
                if count == TARGET_USERS and load is _credits:
                    targets = {
                        "rate": at_least(PER_SECOND, told["per_second"]),
                        "p95": at_most(P95_MS, told["p95_ms"]),
                    }
                tell(name, **told, **targets)
        tell("verify", agree=bench.verify())


if __name__ == "__main__":
    main()
