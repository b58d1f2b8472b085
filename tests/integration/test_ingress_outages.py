"""Kafka or Postgres away while money is sent over HTTP: who sent it is never in doubt, pays once,
and is told by a problem where nothing was done.
"""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import psutil
import pytest
from confluent_kafka import Producer

from compose.embedded import kafka, postgres
from tests.testkit import brokers, pipeline
from tests.testkit import environment as stages
from tests.testkit.ledger_api import PASSWORD, Answer, Ingress, Person, beside
from tests.testkit.pipeline import Pipeline
from tests.testkit.waiting import eventually

SOON = {"Prefer": "wait=1"}
CREDIT = {"entry": "credit", "amount": 1_000}
BACK_S = 90.0


class System(NamedTuple):
    cluster: kafka.Cluster
    server: postgres.Server
    pipeline: Pipeline
    ingress: Ingress


@pytest.fixture(scope="module")
def system(
    mortal_kafka: kafka.Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("away")
    with (
        brokers.data_folder() as own,
        stages.running_postgres(own) as server,
        pipeline.made(mortal_kafka.bootstrap, server.url("postgres"), "template0", folder) as made,
        beside(made, folder / "ingress") as ingress,
    ):
        yield System(mortal_kafka, server, made, ingress)


@pytest.fixture
def ada(system: System) -> Person:
    """Somebody with 10.00, whom the ingress knows."""
    person = system.ingress.person()
    assert system.ingress.post("/transactions", CREDIT, person.token).status == 201
    return person


def freeze(frozen: list[psutil.Process]) -> None:
    """As if the network to a process and its children were cut; these are added to it."""
    (parent,) = frozen
    parent.send_signal(signal.SIGSTOP)
    # On a busy machine the signal takes a while to be noticed.
    eventually(lambda: stands_still(parent), BACK_S)
    # From here on it has no new ones; one of them may still end by itself.
    frozen += parent.children(recursive=True)
    send(frozen[1:], signal.SIGSTOP)
    eventually(lambda: all(stands_still(each) for each in frozen), BACK_S)


def thaw(frozen: list[psutil.Process]) -> None:
    send(frozen, signal.SIGCONT)


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)


def stands_still(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def accepted(answer: Answer, *, uncertain: bool) -> dict[str, Any]:
    """Not decided yet, but the sender has its id and the address to poll at."""
    assert answer.status == 202, answer
    told: dict[str, Any] = answer.json
    assert told["uncertain"] is uncertain, answer
    assert answer.headers["Location"] == told["location"]
    assert told["id"] in told["location"]
    return told


def unavailable(answer: Answer) -> None:
    assert (answer.status, answer.code) == (503, "unavailable"), answer
    assert int(answer.headers["Retry-After"]) >= 1


def lives_without(ingress: Ingress, part: str) -> Answer:
    """It says which part is away, and is itself alive."""
    other = {"kafka": "postgres", "postgres": "kafka"}[part]

    def noticed() -> bool:
        health = ingress.get("/health", prefix="")
        assert (health.status, health.json["status"]) == (200, "degraded"), health
        assert health.json[other] == {"reachable": True}
        assert health.json[part] == {"reachable": False}
        return True

    eventually(noticed, BACK_S)
    ready = ingress.get("/ready", prefix="")
    assert ready.status == 503
    assert ready.json == {"ready": False, part: False, other: True}
    return ready


def started_again(system: System) -> None:
    """Who loses what it works with may end: whoever runs it starts it again."""
    for part in (system.pipeline.worker, system.pipeline.sink):
        if not part.running():
            part.start()


def becomes_posted(system: System, person: Person, told: dict[str, Any]) -> None:
    ingress, path = system.ingress, told["location"].removeprefix("/api/v1")

    def posted() -> bool:
        started_again(system)
        polled = ingress.get(f"{path}&wait=5", person.token)
        assert (polled.status, polled.json.get("status")) == (200, "posted"), (
            f"{polled}\n{system.pipeline.told()}\n{ingress.told()}"
        )
        assert polled.json["transaction"]["id"] == told["id"]
        return True

    eventually(posted, BACK_S)
    bare = ingress.get(f"/commands/{told['id']}", person.token)
    assert (bare.status, bare.json["status"]) == (200, "posted")


def history(ingress: Ingress, person: Person) -> list[str]:
    listed = ingress.get("/transactions", person.token).json["data"]
    return [each["trans_id"] for each in reversed(listed)][1:]


def all_at_once(*asked: Callable[[], Answer]) -> list[Answer]:
    with ThreadPoolExecutor(len(asked)) as pool:
        return [each.result() for each in [pool.submit(ask) for ask in asked]]


def test_kafka_away(system: System, ada: Person) -> None:
    ingress = system.ingress

    def send(key: str) -> Answer:
        asked = {"entry": "debit", "amount": 100, "trans_id": key}
        return ingress.post("/transactions", asked, ada.token, headers=SOON)

    newcomer = {"name": "Eve", "email": "eve@example.com", "password": PASSWORD}
    broker = [psutil.Process(system.cluster.processes[1].child.pid)]
    try:
        freeze(broker)
        *answers, registered = all_at_once(
            lambda: send("a"),
            lambda: send("b"),
            lambda: send("a"),
            lambda: ingress.post("/register", newcomer, headers=SOON),
        )
        told = [accepted(answer, uncertain=True) for answer in answers]
        assert told[0]["id"] == told[2]["id"] != told[1]["id"]
        lives_without(ingress, "kafka")
        polled = ingress.get(told[0]["location"].removeprefix("/api/v1"), ada.token)
        assert (polled.json["status"], polled.json["uncertain"]) == ("accepted", True)
        # What needs no Kafka goes on.
        assert (registered.status, registered.json["wallet"]["status"]) == (201, "opening")
        assert ingress.get("/wallet", ada.token).json["wallet"]["balance"] == 1_000
    finally:
        thaw(broker)
    for each in told:
        becomes_posted(system, ada, each)

    def replayed() -> bool:
        started_again(system)
        again = send("a")
        assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true"), again
        return True

    eventually(replayed, BACK_S)
    assert sorted(history(ingress, ada)) == ["a", "b"]

    def opened() -> bool:
        asked = {**CREDIT, "trans_id": "late"}
        started_again(system)
        late = ingress.post("/transactions", asked, registered.json["access_token"])
        assert (late.status, late.json.get("balance")) == (201, 1_000), (
            f"{late}\n{system.pipeline.told()}\n{ingress.told()}"
        )
        return True

    eventually(opened, BACK_S)
    assert ingress.get("/wallet", ada.token).json["wallet"]["balance"] == 800


def test_postgres_away(system: System, ada: Person) -> None:
    """First it gives no answer, then it is killed."""
    ingress, server = system.ingress, system.server

    def debit(key: str, **headers: str) -> Callable[[], Answer]:
        asked = {"entry": "debit", "amount": 100, "trans_id": key}
        return lambda: ingress.post("/transactions", asked, ada.token, headers=headers or SOON)

    # Somebody whom this ingress has not heard of: it has to ask.
    unknown = {"receiver_id": 10**6, "amount": 100, "trans_id": "never"}
    assert server.process is not None
    whole = [psutil.Process(server.process.child.pid)]
    try:
        freeze(whole)
        *taken, read, listed, refused, nobody, _ = all_at_once(
            debit("waited for"),
            debit("not waited for", Prefer="respond-async"),
            lambda: ingress.post("/holds", {"amount": 1}, ada.token, headers=SOON),
            lambda: ingress.get("/wallet", ada.token),
            lambda: ingress.get("/transactions", ada.token),
            lambda: ingress.post("/transactions", unknown, ada.token, headers=SOON),
            lambda: ingress.login(ada.email),
            lambda: lives_without(ingress, "postgres"),
        )
    finally:
        # It is gone before it has answered anything.
        server.process.child.kill()
        thaw(whole)
        server.process.kill()
    told = [accepted(answer, uncertain=False) for answer in taken]
    for answer in (read, listed, refused, nobody):
        unavailable(answer)
    server.serve(stages.NEVER_STOPPED)
    for each in told:
        becomes_posted(system, ada, each)
    assert sorted(history(ingress, ada)) == ["not waited for", "waited for"]
    wallet = ingress.get("/wallet", ada.token).json["wallet"]
    assert (wallet["balance"], wallet["held"]) == (800, 1)
    eventually(ingress.process.ready, BACK_S)


def test_what_is_no_result_ends_it(system: System, ada: Person) -> None:
    """Rather than that it serves on, and is told of no result any more."""
    ingress = system.ingress
    producer = Producer(system.cluster.client)
    producer.produce(system.pipeline.names.results, b"no result", partition=0)
    assert producer.flush(30) == 0
    assert ingress.process.wait(30) == 1, ingress.told()
    ingress.start()
    assert ingress.post("/transactions", CREDIT, ada.token).status == 201
