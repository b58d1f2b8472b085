"""Outages of Kafka or Postgres while money is sent over HTTP: the sender always has an id, pays
once, and gets a problem only if nothing was sent.
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
        pipeline.made(
            mortal_kafka.bootstrap, server.url("postgres"), "template0", folder
        ) as running_pipeline,
        beside(running_pipeline, folder / "ingress") as ingress,
    ):
        yield System(mortal_kafka, server, running_pipeline, ingress)


@pytest.fixture
def ada(system: System) -> Person:
    """A user with 10.00, cached by the ingress."""
    person = system.ingress.person()
    assert system.ingress.post("/transactions", CREDIT, person.token).status == 201
    return person


def freeze(frozen: list[psutil.Process]) -> None:
    """Freezes a process and its children, as if the network to them were cut."""
    (parent,) = frozen
    parent.send_signal(signal.SIGSTOP)
    # On a busy machine, the signal takes a while to take effect.
    eventually(lambda: stopped(parent), BACK_S)
    # From here on no new children start; one may still exit by itself.
    frozen += parent.children(recursive=True)
    send(frozen[1:], signal.SIGSTOP)
    eventually(lambda: all(stopped(process) for process in frozen), BACK_S)


def thaw(frozen: list[psutil.Process]) -> None:
    send(frozen, signal.SIGCONT)


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def stopped(process: psutil.Process) -> bool:
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def accepted(answer: Answer, *, uncertain: bool) -> dict[str, Any]:
    """Undecided, but the sender has the id and the URL to poll."""
    assert answer.status == 202, answer
    reply: dict[str, Any] = answer.json
    assert reply["uncertain"] is uncertain, answer
    assert answer.headers["Location"] == reply["location"]
    assert reply["id"] in reply["location"]
    return reply


def unavailable(answer: Answer) -> None:
    assert (answer.status, answer.code) == (503, "unavailable"), answer
    assert int(answer.headers["Retry-After"]) >= 1


def lives_without(ingress: Ingress, part: str) -> Answer:
    """Readiness names the missing part; the process stays alive."""
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
    """A worker that loses Kafka or Postgres may exit; its supervisor restarts it."""
    for part in (system.pipeline.worker, system.pipeline.sink):
        if not part.running():
            part.start()


def becomes_posted(system: System, person: Person, reply: dict[str, Any]) -> None:
    ingress, path = system.ingress, reply["location"].removeprefix("/api/v1")

    def posted() -> bool:
        started_again(system)
        polled = ingress.get(f"{path}&wait=5", person.token)
        assert (polled.status, polled.json.get("status")) == (200, "posted"), (
            f"{polled}\n{system.pipeline.log_text()}\n{ingress.log_tail()}"
        )
        assert polled.json["transaction"]["id"] == reply["id"]
        return True

    eventually(posted, BACK_S)
    bare = ingress.get(f"/commands/{reply['id']}", person.token)
    assert (bare.status, bare.json["status"]) == (200, "posted")


def history(ingress: Ingress, person: Person) -> list[str]:
    listed = ingress.get("/transactions", person.token).json["data"]
    return [item["trans_id"] for item in reversed(listed)][1:]


def all_at_once(*requests: Callable[[], Answer]) -> list[Answer]:
    with ThreadPoolExecutor(len(requests)) as pool:
        return [future.result() for future in [pool.submit(send) for send in requests]]


def test_kafka_outage(system: System, ada: Person) -> None:
    ingress = system.ingress

    def send(key: str) -> Answer:
        request_body = {"entry": "debit", "amount": 100, "trans_id": key}
        return ingress.post("/transactions", request_body, ada.token, headers=SOON)

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
        replies = [accepted(answer, uncertain=True) for answer in answers]
        assert replies[0]["id"] == replies[2]["id"] != replies[1]["id"]
        lives_without(ingress, "kafka")
        polled = ingress.get(replies[0]["location"].removeprefix("/api/v1"), ada.token)
        assert (polled.json["status"], polled.json["uncertain"]) == ("accepted", True)
        # Requests without Kafka still succeed.
        assert (registered.status, registered.json["wallet"]["status"]) == (201, "opening")
        assert ingress.get("/wallet", ada.token).json["wallet"]["balance"] == 1_000
    finally:
        thaw(broker)
    for reply in replies:
        becomes_posted(system, ada, reply)

    def replayed() -> bool:
        started_again(system)
        again = send("a")
        assert (again.status, again.headers["Idempotent-Replayed"]) == (201, "true"), again
        return True

    eventually(replayed, BACK_S)
    assert sorted(history(ingress, ada)) == ["a", "b"]

    def opened() -> bool:
        request_body = {**CREDIT, "trans_id": "late"}
        started_again(system)
        late = ingress.post("/transactions", request_body, registered.json["access_token"])
        assert (late.status, late.json.get("balance")) == (201, 1_000), (
            f"{late}\n{system.pipeline.log_text()}\n{ingress.log_tail()}"
        )
        return True

    eventually(opened, BACK_S)
    assert ingress.get("/wallet", ada.token).json["wallet"]["balance"] == 800


def test_postgres_outage(system: System, ada: Person) -> None:
    """Postgres first hangs, then is killed."""
    ingress, server = system.ingress, system.server

    def debit(key: str, **headers: str) -> Callable[[], Answer]:
        request_body = {"entry": "debit", "amount": 100, "trans_id": key}
        return lambda: ingress.post(
            "/transactions", request_body, ada.token, headers=headers or SOON
        )

    # A user whom this ingress has not cached.
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
        # Postgres is gone before it has answered.
        server.process.child.kill()
        thaw(whole)
        server.process.kill()
    replies = [accepted(answer, uncertain=False) for answer in taken]
    for answer in (read, listed, refused, nobody):
        unavailable(answer)
    server.serve(stages.NEVER_STOPPED)
    for reply in replies:
        becomes_posted(system, ada, reply)
    assert sorted(history(ingress, ada)) == ["not waited for", "waited for"]
    wallet = ingress.get("/wallet", ada.token).json["wallet"]
    assert (wallet["balance"], wallet["held"]) == (800, 1)
    eventually(ingress.process.ready, BACK_S)


def test_an_undecodable_result_ends_the_ingress(system: System, ada: Person) -> None:
    """Otherwise it would keep serving without results."""
    ingress = system.ingress
    producer = Producer(system.cluster.client)
    producer.produce(system.pipeline.names.results, b"no result", partition=0)
    assert producer.flush(30) == 0
    assert ingress.process.wait(30) == 1, ingress.log_tail()
    ingress.start()
    assert ingress.post("/transactions", CREDIT, ada.token).status == 201
