"""The transactional producer of a lane's owner, of the processor and of the sink alike.

Keeps three rules: who takes a lane fences whoever had it before anything else; what the client did
not take is never committed without; and a commit or an abort is tried again only while the client
says that this is safe. It knows no topic.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from confluent_kafka import KafkaException, Producer

from plumbing.kafka.clients import ClientConfig

# A transaction that its producer left behind holds up every reader for so long.
TIMEOUT_MS = 10_000
# All tries together end before the client gives an answer up (`socket.timeout.ms`, a minute) and
# asks anew: what it had asked before, of a broker that stood still, could end the next transaction.
END_TIMEOUT_S = 50.0
TRY_S = 15.0
PAUSE_S = 1.0
MIB = 1024 * 1024

log = structlog.get_logger(__name__)


def fenced_producer(
    config: ClientConfig, lane: int, try_s: float, stopping: threading.Event
) -> Producer:
    """Older producers of the lane are fenced, and their transactions ended, when it returns;
    unless it is told to stop meanwhile. The brokers may be away, or still be ending one."""
    made = producer(config, lane)
    while not stopping.is_set():
        try:
            made.init_transactions(try_s)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
            log.warning("waiting for Kafka", lane=lane, error=str(error))
            stopping.wait(PAUSE_S)
        else:
            break
    return made


def transactional_id(service_id: str, lane: int) -> str:
    return f"{service_id}:{lane}"


def producer(config: Mapping[str, Any], lane: int) -> Producer:
    """Whoever initialises it is the lane's only one."""
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
    """Part of a transaction's records is not in it: it must not be committed."""


def produce_all(
    producer: Producer, topic: str, messages: list[dict[str, object]], partition: int
) -> None:
    """The client leaves out what it cannot take, without an error."""
    taken = producer.produce_batch(topic, messages, partition) if messages else 0
    if taken != len(messages):
        refused = next(message["_error"] for message in messages if "_error" in message)
        raise NotTaken(f"{len(messages) - taken} records for {topic} not taken: {refused}")


def commit(producer: Producer, lane: int) -> None:
    """Any error that it raises leaves unknown whether the transaction was committed."""
    _end(producer.commit_transaction, "commit retried", lane)


def abort(producer: Producer, lane: int) -> None:
    """It may be begun anew after this. Any error that it raises leaves unknown whether it may."""
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
