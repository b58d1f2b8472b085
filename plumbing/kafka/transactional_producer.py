"""The transactional producer of a lane, in the processor and in the sink alike.

Keeps three rules. A new owner fences older owners before anything else. A transaction that lacks a
record is never committed. A commit or an abort is retried only while the client says that this is
safe. It knows no topic.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaException, Producer

from plumbing.kafka.clients import ClientConfig

# An abandoned transaction blocks every reader for so long.
TIMEOUT_MS = 10_000
# All attempts end before the client's request times out (`socket.timeout.ms`, a minute) and is sent
# again: the first request, to a broker that was frozen, could end the next transaction.
END_TIMEOUT_S = 50.0
TRY_S = 15.0
PAUSE_S = 1.0
MIB = 1024 * 1024

log = structlog.get_logger(__name__)


def fenced_producer(
    config: ClientConfig, lane: int, try_s: float, stopping: threading.Event
) -> Producer:
    """Fences older producers of the lane; when it returns, their transactions are committed or
    aborted, unless a stop was requested. Waits while brokers are away or still end one."""
    fenced = producer(config, lane)
    while not stopping.is_set():
        try:
            fenced.init_transactions(try_s)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
            log.warning("waiting for Kafka", lane=lane, error=str(error))
            stopping.wait(PAUSE_S)
        else:
            break
    return fenced


def transactional_id(service_id: str, lane: int) -> str:
    return f"{service_id}:{lane}"


def producer(config: Mapping[str, Any], lane: int) -> Producer:
    """Initialising it fences every other producer of the lane."""
    return Producer(
        {
            **config,
            "transactional.id": transactional_id(str(config["client.id"]), lane),
            "transaction.timeout.ms": TIMEOUT_MS,
            "acks": "all",
            # The commit sends what is there. What the client sends before, it sends in parts, and
            # while one of them is under way its thread spins for the next one to be let go.
            "linger.ms": 1_000,
            "batch.size": 4 * MIB,
            "batch.num.messages": 100_000,
            "compression.type": "lz4",
            "message.max.bytes": 4 * MIB,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 256 * 1024,
        }
    )


class NotTaken(Exception):
    """The transaction lacks some of its records, so it must not be committed."""


def produce_all(
    producer: Producer, topic: str, messages: list[dict[str, object]], partition: int
) -> None:
    """Raises if the client left a record out, which it does without an error."""
    taken = producer.produce_batch(topic, messages, partition) if messages else 0
    if taken != len(messages):
        refused = next(message["_error"] for message in messages if "_error" in message)
        raise NotTaken(f"{len(messages) - taken} records for {topic} not taken: {refused}")


def commit(producer: Producer, lane: int) -> None:
    """After any error it is unknown whether the transaction was committed."""
    _end(producer.commit_transaction, "commit retried", lane)


def abort(producer: Producer, lane: int) -> None:
    """Then another transaction may begin. After any error it is unknown whether one may."""
    _end(producer.abort_transaction, "abort retried", lane)


def _end(transaction: Callable[[float], object], retried: str, lane: int) -> None:
    deadline = time.monotonic() + END_TIMEOUT_S
    while True:
        try:
            transaction(TRY_S)
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() + PAUSE_S + TRY_S > deadline:
                raise
            log.warning(retried, lane=lane, error=str(error))
            time.sleep(PAUSE_S)
        else:
            return
