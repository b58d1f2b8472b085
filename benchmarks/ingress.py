"""The HTTP API under load: users who each wait for the decided result before they ask again.

    python -m benchmarks.ingress             # 10 s for each number of users
    python -m benchmarks.ingress --full      # every load at every number of users, 30 s

Prints a JSON line for each measure: how long they wait, and where the time goes. Kafka, Postgres, a
processor, a sink, the ingress and the users are real and share the machine. Every answer must be
201, and at the end `streamledger verify` must agree: nothing fast is wrong.
"""

import argparse
import http.client
import itertools
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
from typing import Any, NamedTuple

import msgspec
import psutil
from confluent_kafka import KafkaError, Message
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks import children, machine, outcomes, users
from benchmarks.machine import Ledger, Machine
from benchmarks.processor import at_least, at_most, percentile, tell
from benchmarks.sink import Sink
from benchmarks.users import Asked, Person, Told
from compose import provisioning
from compose.embedded import ports, postgres, programs
from plumbing.kafka import clients
from schemas.partitioning import partition_of
from schemas.topics import RESULTS
from tests.testkit import brokers
from tests.testkit.waiting import eventually

HOST = "127.0.0.1"
PATH = "/api/v1/transactions"
START_S = 60.0
WARM_UP_S = 3.0
APPEND_EVERY_S = 0.02
USERS = (10, 25, 50, 200)
TARGET_USERS, PER_SECOND, P95_MS = 50, 1_000, 60
ADMIN, OPERATOR = "admin@example.com", "operator@example.com"
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
            "REGISTRATIONS_PER_ADDRESS": "1000000",
            "WAITS_PER_USER": "100000",
            "ADMIN_EMAIL": ADMIN,
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
        made = self._registered(f"user{number}@example.com")
        self._made("POST", PATH, {"entry": "credit", "amount": MONEY}, made.token)
        return made

    def _registered(self, email: str) -> Person:
        asked = {"name": "A user", "email": email, "password": PASSWORD}
        told = self._made("POST", "/api/v1/register", asked)
        return Person(told["access_token"], told["user"]["id"], told["wallet"]["id"])

    def operator(self) -> str:
        """The token of somebody who may post entries."""

        def signed_in(email: str) -> str:
            asked = {"email": email, "password": PASSWORD}
            token: str = self._made("POST", "/api/v1/login", asked)["access_token"]
            return token

        number = self._registered(OPERATOR).number
        role = {"role": "operator"}
        self._made("PATCH", f"/api/v1/users/{number}", role, signed_in(ADMIN))
        return signed_in(OPERATOR)

    def open(self, account: str, token: str) -> None:
        asked = {"id": account, "account_type": "asset"}
        self._made("POST", "/api/v1/accounts", asked, token)

    def _made(self, method: str, path: str, body: object, token: str | None = None) -> Any:
        status, told = self.call(method, path, body, token)
        assert status in (HTTPStatus.OK, HTTPStatus.CREATED), told
        return told

    def ask(self, bodies: list[tuple[str, list[bytes]]], seconds: float) -> Told:
        return users.ask(Asked(HOST, self._port, PATH, bodies, WARM_UP_S, seconds))

    def kill(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class Crowd(NamedTuple):
    """Who asks, and an account of the house in each partition."""

    people: list[Person]
    operator: str
    houses: list[str]

    def partition(self, at: int) -> int:
        return partition_of(self.people[at].wallet_id, len(self.houses))


# What each user sends in turn, by its number among the people, and by whose token.
Load = Callable[[Crowd, int], tuple[str, list[bytes]]]


def _body(**fields: object) -> bytes:
    text = json.dumps({**fields, "trans_id": "NUMBER"}, separators=(",", ":"))
    return text.replace("%", "%%").replace("NUMBER", "%d").encode()


def _credits(crowd: Crowd, at: int) -> tuple[str, list[bytes]]:
    return crowd.people[at].token, [_body(entry="credit", amount=100)]


def _transfers(crowd: Crowd, at: int) -> tuple[str, list[bytes]]:
    """Each to somebody in another partition, where there is one."""
    dice, own = random.Random(at), crowd.partition(at)
    others = [p for n, p in enumerate(crowd.people) if crowd.partition(n) != own]
    chosen = dice.sample(others, min(20, len(others)))
    return crowd.people[at].token, [_body(receiver_id=each.number, amount=100) for each in chosen]


def _posts(crowd: Crowd, at: int) -> tuple[str, list[bytes]]:
    return crowd.operator, [_post(crowd, at, crowd.houses[crowd.partition(at)])]


def _posts_between(crowd: Crowd, at: int) -> tuple[str, list[bytes]]:
    own = crowd.houses[crowd.partition(at)]
    return crowd.operator, [_post(crowd, at, each) for each in crowd.houses if each != own]


def _post(crowd: Crowd, at: int, to: str) -> bytes:
    entries = [
        {"account_id": crowd.people[at].wallet_id, "direction": "debit", "amount": 100},
        {"account_id": to, "direction": "credit", "amount": 100},
    ]
    return _body(currency="NGN", entries=entries)


LOADS: dict[str, Load] = {
    "wallet credits": _credits,
    "posts of two entries in one partition": _posts,
    "posts of two entries in two partitions": _posts_between,
    "transfers between partitions": _transfers,
}


class _Place(msgspec.Struct):
    partition: int
    offset: int


class _Key(msgspec.Struct):
    idempotency_key: str | None = None


_place = msgspec.json.Decoder(_Place).decode
_key = msgspec.json.Decoder(_Key).decode
Ends = tuple[list[int], list[int], list[int]]
# From sending to Kafka's having it, to the decision, to its rows' commit, to the answer.
STAGES = ("ingress", "decision", "postgres", "result")


class Appending:
    """Beside the commands, records like them by a producer like the ingress's, in a topic of their
    own: how long Kafka takes to have one."""

    def __init__(self, settings: dict[str, str], client: dict[str, Any]) -> None:
        self._topic = f"{settings['TOPIC_PREFIX']}appended"
        admin = AdminClient(client)
        admin.create_topics([NewTopic(self._topic, 1, 1)])[self._topic].result(START_S)
        own = provisioning.ProvisionSettings.model_validate(settings)
        self._producer = clients.command_producer(own, "benchmark-appending")

    @contextmanager
    def measured(self) -> Iterator[list[float]]:
        """Milliseconds, of each."""
        waits: list[float] = []
        ended = threading.Event()
        thread = threading.Thread(target=self._append, args=(waits, ended))
        thread.start()
        try:
            yield waits
        finally:
            ended.set()
            thread.join()

    def _append(self, waits: list[float], ended: threading.Event) -> None:
        while not ended.wait(APPEND_EVERY_S):
            began = time.perf_counter()

            def delivered(error: KafkaError | None, _: Message, began: float = began) -> None:
                assert error is None, error
                waits.append(1_000 * (time.perf_counter() - began))

            self._producer.produce(self._topic, bytes(300), on_delivery=delivered)
            self._producer.flush(START_S)


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
        self._appending = Appending(ledger.settings, dict(ledger.client))
        names, client = ledger.names, ledger.client
        self._commands = outcomes.Ends(client, names.commands, ledger.partitions)
        self._journal = outcomes.Ends(client, names.journal, ledger.partitions)
        self._results = outcomes.Ends(client, names.results, RESULTS.partitions or 0)

    def crowd(self, count: int) -> Crowd:
        people = [self.api.person(number) for number in range(count)]
        operator, houses = self.api.operator(), []
        for partition in range(self._ledger.partitions):
            names = (f"house-{number}" for number in itertools.count())
            own = (n for n in names if partition_of(n, self._ledger.partitions) == partition)
            houses.append(next(own))
            self.api.open(houses[-1], operator)
        return Crowd(people, operator, houses)

    def measure(self, crowd: Crowd, load: Load, count: int, seconds: float) -> dict[str, Any]:
        own = [load(crowd, at) for at in range(count)]
        begin, cpu = self._ends(), self._cpu_s()
        with self._appending.measured() as appends:
            told = self.api.ask(own, seconds)
        used = {part: now - cpu[part] for part, now in self._cpu_s().items()}
        waits = sorted(1_000 * (each.answered - each.sent) for each in told.requests)
        whole = (WARM_UP_S + seconds) / seconds * len(waits)
        return {
            "users": count,
            "per_second": round(len(waits) / seconds),
            "mean_ms": round(sum(waits) / len(waits), 1),
            **{f"p{part}_ms": round(percentile(waits, part), 1) for part in (50, 95, 99)},
            "errors": sum(n for status, n in told.statuses.items() if status != 201),
            "statuses": told.statuses,
            "stages_ms": self._stages(begin, told, appends),
            **{f"{part}_cpu_us": round(s / whole * 1e6) for part, s in used.items()},
            "load_average": machine.load_average(),
        }

    def _ends(self) -> Ends:
        return self._commands.read(), self._journal.read(), self._results.read()

    def _stages(self, begin: Ends, told: Told, appends: list[float]) -> dict[str, Any]:
        """Where the time between sending and the answer goes, by the brokers' and the producers'
        clocks: of the way to Kafka the append is what it takes beside, the rest is the ingress's.
        The means add up to the mean of all."""
        names, client, end = self._ledger.names, self._ledger.client, self._ends()
        sent = {str(each.number): each for each in told.requests}
        placed: dict[tuple[int, int], tuple[users.Request, float]] = {}
        for message in outcomes.records(client, names.commands, begin[0], end[0]):
            request = sent.get(_key(message.value() or b"{}").idempotency_key or "")
            if request is not None:
                place = (message.partition() or 0, message.offset() or 0)
                placed[place] = request, message.timestamp()[1] / 1_000
        decided: dict[tuple[int, int], float] = {}
        for message in outcomes.records(client, names.journal, begin[1], end[1]):
            decision = outcomes.outcome_of_record(message)
            if decision is not None:
                decided[decision] = message.timestamp()[1] / 1_000
        stages: dict[str, list[float]] = {name: [] for name in STAGES}
        for message in outcomes.records(client, names.results, begin[2], end[2]):
            result = _place(message.value() or b"")
            place = (result.partition, result.offset)
            if place in placed and place in decided:
                request, appended = placed[place]
                rows = message.timestamp()[1] / 1_000
                moments = (request.sent, appended, decided[place], rows, request.answered)
                for name, (one, other) in zip(STAGES, itertools.pairwise(moments), strict=True):
                    stages[name].append(1_000 * (other - one))
        if not stages["ingress"] or not appends:
            return {}
        mean = {name: sum(each) / len(each) for name, each in stages.items()}
        p50 = {name: percentile(sorted(each), 50) for name, each in stages.items()}
        mean["append"], p50["append"] = sum(appends) / len(appends), percentile(sorted(appends), 50)
        mean["ingress"] -= mean["append"]
        p50["ingress"] -= p50["append"]
        order = ("ingress", "append", *STAGES[1:])
        return {
            "mean": {name: round(mean[name], 1) for name in order},
            "p50": {name: round(p50[name], 1) for name in order},
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
            [sys.executable, "-m", "compose.cli.main", "verify"],
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
        server = programs.server(
            where, postgres.PostgresOptions(first_port=brokers.some_port()), never
        )
        try:
            database = server.start(never)
            assert server.process is not None
            pid = server.process.child.pid
            children.end_with_us(pid)
            provisioning.migrate(database)
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
    parser.add_argument("--partitions", type=int, default=2)
    given = parser.parse_args()
    seconds = given.seconds or (30.0 if given.full else 10.0)
    tell(
        "machine",
        partitions=given.partitions,
        **machine.described(),
    )
    with running(given.partitions) as bench:
        began = time.monotonic()
        crowd = bench.crowd(max(given.users))
        tell("registered", people=len(crowd.people), seconds=round(time.monotonic() - began, 1))
        # A broker that has just started is still being compiled.
        count = min(TARGET_USERS, len(crowd.people))
        warm = bench.measure(crowd, _credits, count, given.warm_up_seconds)
        tell("warm-up", per_second=warm["per_second"])
        for name, load in LOADS.items():
            for count in given.users:
                if not given.full and load is not _credits and count != TARGET_USERS:
                    continue
                told = bench.measure(crowd, load, count, seconds)
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
