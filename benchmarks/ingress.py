"""The HTTP API under load: each user waits for the decided result before sending again.

    python -m benchmarks.ingress             # 10 s for each number of users
    python -m benchmarks.ingress --full      # every load at every number of users, 30 s

Prints a JSON line for each measurement: how long users wait, and where the time goes. Kafka,
Postgres, a processor, a sink, the ingress and the users are real and share the machine. The run
fails unless every answer is 201 and `streamledger verify` agrees at the end.
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
from benchmarks.users import LoadResult, LoadSpec, Person
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
    """One ingress with its users."""

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
            f"the ingress has exited:\n{self._log.read_text()[-3000:]}"
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
        """A registered user with money."""
        person = self._register(f"user{number}@example.com")
        self._succeed("POST", PATH, {"entry": "credit", "amount": MONEY}, person.token)
        return person

    def _register(self, email: str) -> Person:
        body = {"name": "A user", "email": email, "password": PASSWORD}
        response = self._succeed("POST", "/api/v1/register", body)
        return Person(response["access_token"], response["user"]["id"], response["wallet"]["id"])

    def operator(self) -> str:
        """The token of an operator."""

        def sign_in(email: str) -> str:
            body = {"email": email, "password": PASSWORD}
            token: str = self._succeed("POST", "/api/v1/login", body)["access_token"]
            return token

        number = self._register(OPERATOR).number
        role = {"role": "operator"}
        self._succeed("PATCH", f"/api/v1/users/{number}", role, sign_in(ADMIN))
        return sign_in(OPERATOR)

    def open(self, account: str, token: str) -> None:
        body = {"id": account, "account_type": "asset"}
        self._succeed("POST", "/api/v1/accounts", body, token)

    def _succeed(self, method: str, path: str, body: object, token: str | None = None) -> Any:
        status, response = self.call(method, path, body, token)
        assert status in (HTTPStatus.OK, HTTPStatus.CREATED), response
        return response

    def run_users(self, bodies: list[tuple[str, list[bytes]]], seconds: float) -> LoadResult:
        return users.run_users(LoadSpec(HOST, self._port, PATH, bodies, WARM_UP_S, seconds))

    def kill(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait()


class Crowd(NamedTuple):
    """The users, and one asset account in each partition."""

    people: list[Person]
    operator: str
    asset_ids: list[str]

    def partition(self, at: int) -> int:
        return partition_of(self.people[at].wallet_id, len(self.asset_ids))


# From the number of a user: the token, and the bodies that this user sends in turn.
Load = Callable[[Crowd, int], tuple[str, list[bytes]]]


def _body(**fields: object) -> bytes:
    text = json.dumps({**fields, "trans_id": "NUMBER"}, separators=(",", ":"))
    return text.replace("%", "%%").replace("NUMBER", "%d").encode()


def _credits(crowd: Crowd, at: int) -> tuple[str, list[bytes]]:
    return crowd.people[at].token, [_body(entry="credit", amount=100)]


def _transfers(crowd: Crowd, at: int) -> tuple[str, list[bytes]]:
    """Each to a user in another partition, if there is one."""
    dice, own = random.Random(at), crowd.partition(at)
    others = [p for n, p in enumerate(crowd.people) if crowd.partition(n) != own]
    receivers = dice.sample(others, min(20, len(others)))
    return crowd.people[at].token, [
        _body(receiver_id=person.number, amount=100) for person in receivers
    ]


def _posts(crowd: Crowd, at: int) -> tuple[str, list[bytes]]:
    return crowd.operator, [_post(crowd, at, crowd.asset_ids[crowd.partition(at)])]


def _posts_between(crowd: Crowd, at: int) -> tuple[str, list[bytes]]:
    own = crowd.asset_ids[crowd.partition(at)]
    return crowd.operator, [_post(crowd, at, id) for id in crowd.asset_ids if id != own]


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


class _CommandPosition(msgspec.Struct):
    partition: int
    offset: int


class _Key(msgspec.Struct):
    idempotency_key: str | None = None


_decode_position = msgspec.json.Decoder(_CommandPosition).decode
_decode_key = msgspec.json.Decoder(_Key).decode
Ends = tuple[list[int], list[int], list[int]]
# From sending to the append, to the decision, to the commit in Postgres, to the answer.
STAGES = ("ingress", "decision", "postgres", "result")


class Appending:
    """Appends records to a separate topic during the load, with a producer like the ingress's, to
    measure how long Kafka takes for one."""

    def __init__(self, settings: dict[str, str], client: dict[str, Any]) -> None:
        self._topic = f"{settings['TOPIC_PREFIX']}appended"
        admin = AdminClient(client)
        admin.create_topics([NewTopic(self._topic, 1, 1)])[self._topic].result(START_S)
        own = provisioning.ProvisionSettings.model_validate(settings)
        self._producer = clients.command_producer(own, "benchmark-appending")

    @contextmanager
    def measured(self) -> Iterator[list[float]]:
        """The milliseconds of each append."""
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
        self, host: Machine, ledger: Ledger, sink: Sink, api: Api, database: str, server: int
    ) -> None:
        self.api = api
        self._machine = host
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
        operator, asset_ids = self.api.operator(), []
        for partition in range(self._ledger.partitions):
            names = (f"asset-{number}" for number in itertools.count())
            own = (n for n in names if partition_of(n, self._ledger.partitions) == partition)
            asset_ids.append(next(own))
            self.api.open(asset_ids[-1], operator)
        return Crowd(people, operator, asset_ids)

    def measure(self, crowd: Crowd, load: Load, count: int, seconds: float) -> dict[str, Any]:
        user_loads = [load(crowd, at) for at in range(count)]
        begin, cpu = self._ends(), self._cpu_s()
        with self._appending.measured() as appends:
            result = self.api.run_users(user_loads, seconds)
        used = {part: now - cpu[part] for part, now in self._cpu_s().items()}
        waits = sorted(1_000 * (request.answered - request.sent) for request in result.requests)
        whole = (WARM_UP_S + seconds) / seconds * len(waits)
        return {
            "users": count,
            "per_second": round(len(waits) / seconds),
            "mean_ms": round(sum(waits) / len(waits), 1),
            **{f"p{part}_ms": round(percentile(waits, part), 1) for part in (50, 95, 99)},
            "errors": sum(n for status, n in result.statuses.items() if status != 201),
            "statuses": result.statuses,
            "stages_ms": self._stages(begin, result, appends),
            **{f"{part}_cpu_us": round(s / whole * 1e6) for part, s in used.items()},
            "load_average": machine.load_average(),
        }

    def _ends(self) -> Ends:
        return self._commands.read(), self._journal.read(), self._results.read()

    def _stages(self, begin: Ends, load_result: LoadResult, appends: list[float]) -> dict[str, Any]:
        """How the time between request and answer divides, by the timestamps of brokers and
        producers. The time until the append divides into Kafka's part, as measured separately, and
        the ingress's. The means add up to the mean of the whole."""
        names, client, end = self._ledger.names, self._ledger.client, self._ends()
        sent = {str(request.number): request for request in load_result.requests}
        placed: dict[tuple[int, int], tuple[users.Request, float]] = {}
        for message in outcomes.records(client, names.commands, begin[0], end[0]):
            request = sent.get(_decode_key(message.value() or b"{}").idempotency_key or "")
            if request is not None:
                position = (message.partition() or 0, message.offset() or 0)
                placed[position] = request, message.timestamp()[1] / 1_000
        decided: dict[tuple[int, int], float] = {}
        for message in outcomes.records(client, names.journal, begin[1], end[1]):
            decision = outcomes.outcome_of_record(message)
            if decision is not None:
                decided[decision] = message.timestamp()[1] / 1_000
        stages: dict[str, list[float]] = {name: [] for name in STAGES}
        for message in outcomes.records(client, names.results, begin[2], end[2]):
            result = _decode_position(message.value() or b"")
            position = (result.partition, result.offset)
            if position in placed and position in decided:
                request, appended = placed[position]
                rows = message.timestamp()[1] / 1_000
                moments = (request.sent, appended, decided[position], rows, request.answered)
                for name, (one, other) in zip(STAGES, itertools.pairwise(moments), strict=True):
                    stages[name].append(1_000 * (other - one))
        if not stages["ingress"] or not appends:
            return {}
        mean = {name: sum(waits) / len(waits) for name, waits in stages.items()}
        p50 = {name: percentile(sorted(waits), 50) for name, waits in stages.items()}
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
        verified = subprocess.run(
            [sys.executable, "-m", "compose.cli.main", "verify"],
            env={**inherited, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        if verified.returncode != 0:
            sys.stderr.write(verified.stdout + verified.stderr)
        return verified.returncode == 0


@contextmanager
def running(partitions: int) -> Iterator[Bench]:
    never = threading.Event()
    folder = Path(tempfile.mkdtemp(prefix="streamledger-benchmark-"))
    started: list[Sink | Api] = []
    with machine.running() as running_machine, brokers.data_folder() as data_folder:
        server = programs.server(
            data_folder, postgres.PostgresOptions(first_port=brokers.some_port()), never
        )
        try:
            database = server.start(never)
            assert server.process is not None
            pid = server.process.child.pid
            children.end_with_us(pid)
            provisioning.migrate(database)
            ledger = running_machine.ledger("ingress", partitions, 1)
            ledger.start()
            settings = {**ledger.settings, "DATABASE_URL": database}
            sink = Sink(0, folder, settings)
            started.append(sink)
            api = Api(folder, settings)
            started.append(api)
            yield Bench(running_machine, ledger, sink, api, database, pid)
        finally:
            for process in started:
                process.kill()
            running_machine.kill()
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ingress", description=__doc__)
    parser.add_argument("--full", action="store_true", help="every load, 30 s each")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--warm-up-seconds", type=float, default=15.0)
    parser.add_argument("--users", type=int, nargs="+", default=list(USERS))
    parser.add_argument("--partitions", type=int, default=2)
    options = parser.parse_args()
    seconds = options.seconds or (30.0 if options.full else 10.0)
    tell(
        "machine",
        partitions=options.partitions,
        **machine.described(),
    )
    with running(options.partitions) as bench:
        began = time.monotonic()
        crowd = bench.crowd(max(options.users))
        tell("registered", people=len(crowd.people), seconds=round(time.monotonic() - began, 1))
        # A broker that has just started is still compiling its code.
        count = min(TARGET_USERS, len(crowd.people))
        warm = bench.measure(crowd, _credits, count, options.warm_up_seconds)
        tell("warm-up", per_second=warm["per_second"])
        for name, load in LOADS.items():
            for count in options.users:
                if not options.full and load is not _credits and count != TARGET_USERS:
                    continue
                measured = bench.measure(crowd, load, count, seconds)
                targets = {}
                if count == TARGET_USERS and load is _credits:
                    targets = {
                        "rate": at_least(PER_SECOND, measured["per_second"]),
                        "p95": at_most(P95_MS, measured["p95_ms"]),
                    }
                tell(name, **measured, **targets)
        tell("verify", agree=bench.verify())


if __name__ == "__main__":
    main()
