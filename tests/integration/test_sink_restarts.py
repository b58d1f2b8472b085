"""A sink that restarts while commands keep coming, as in every deploy: it is ready as soon as it
has what was there before it, and its lag is 0 where only a transaction's marker is left to read.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Producer

from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger
from tests.testkit.sink_rig import Sink
from tests.testkit.waiting import eventually

PARTITIONS = 2
# Of each partition. Rarely enough that most transactions hold one record, often enough that the end
# of a partition is never met.
EVERY_S = 0.025
READY_S = 20


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path, PARTITIONS) as made:
        made.ready()
        yield made


@pytest.fixture
def sink(kafka: str, topic_prefix: str, database: str, tmp_path: Path) -> Iterator[Sink]:
    settings = {
        "KAFKA_BROKERS": kafka,
        "TOPIC_PREFIX": topic_prefix,
        "PARTITIONS": str(PARTITIONS),
        "DATABASE_URL": database,
        "SESSION_TIMEOUT_MS": "3000",
    }
    made = Sink(1, tmp_path / "sink", settings)
    yield made
    made.kill()


@contextmanager
def steady_commands(ledger: WorkerLedger) -> Iterator[list[int]]:
    """How many were sent to each partition, while more are sent in the background."""
    sent = [0] * PARTITIONS
    producer = Producer({**ledger.client, "acks": "all", "linger.ms": 0})
    accounts = [ledger.account_in(partition) for partition in range(PARTITIONS)]
    stopping = threading.Event()

    def send() -> None:
        while not stopping.wait(EVERY_S):
            for partition, account in enumerate(accounts):
                command = {"kind": "credit", "account": account, "amount": 1}
                value = json.dumps({**command, "id": str(sent[partition])})
                producer.produce(ledger.names.commands, value, account, partition)
                sent[partition] += 1
            producer.poll(0)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stopping.set()
        thread.join()
        assert producer.flush(30) == 0


def written(database: str) -> list[int]:
    """How many commands of each partition the tables have."""
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT partition, count(*) FROM ledger.commands GROUP BY 1")
        found: dict[int, int] = dict(rows.fetchall())
    return [found.get(partition, 0) for partition in range(PARTITIONS)]


def lags(sink: Sink) -> list[float]:
    numbers = sink.numbers()
    name = "streamledger_sink_lag_records"
    return [numbers.get(f'{name}{{partition="{p}"}}', -1.0) for p in range(PARTITIONS)]


def test_a_sink_that_restarts_while_commands_keep_coming_becomes_ready(
    ledger: WorkerLedger, sink: Sink, database: str
) -> None:
    with steady_commands(ledger) as sent:
        sink.start()
        eventually(sink.ready, READY_S)
        for _ in range(3):
            eventually(lambda: min(written(database)) > 0, 30)
            assert sink.stop() == 0
            behind = [count + 100 for count in sent]
            eventually(lambda: all(n > b for n, b in zip(sent, behind, strict=True)), 30)  # noqa: B023
            sink.start()
            eventually(sink.ready, READY_S)
            # All that was sent before it started was there.
            assert all(n >= b for n, b in zip(written(database), behind, strict=True))
            eventually(lambda: lags(sink) == [0] * PARTITIONS, 20)
    eventually(lambda: written(database) == sent, 30)
    eventually(lambda: lags(sink) == [0] * PARTITIONS, 20)
