"""The yardstick: the plain loop that anyone would write around confluent-kafka.

Consume a batch, decode each record into a dict, add to a dict of balances, produce one JSON record,
commit one transaction for each batch. No Faust, no rules, no keys, no state that outlives it. It
reads the same commands from the same partitions as the processor did; with the json of the standard
library, as nearly everyone does, or with msgspec's, than which there is hardly a faster one.
"""

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import msgspec
import psutil
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.machine import Config

LIBRARIES = JSON, MSGSPEC = "json", "msgspec"
BATCH = 8_000
START_S = 60.0
TIMEOUT_S = 600.0


class Took(NamedTuple):
    seconds: float
    cpu_s: float

    def told(self, commands: int) -> dict[str, Any]:
        return {
            "commands_per_second": round(commands / self.seconds),
            "cpu_us": round(self.cpu_s / commands * 1e6, 1),
        }


def run(
    library: str, client: Config, source: str, target: str, begin: list[int], count: int
) -> Took:
    """In a process of its own."""
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(
        target=_run, args=(theirs, library, client, source, target, begin, count)
    )
    process.start()
    theirs.close()  # so that its end is noticed
    try:
        assert ours.poll(TIMEOUT_S), "the plain loop did not end in time"
        return Took(*ours.recv())
    finally:
        process.kill()
        process.join()


def _run(
    told: Connection,
    library: str,
    client: Config,
    source: str,
    target: str,
    begin: list[int],
    count: int,
) -> None:
    consumer = Consumer(
        {
            **client,
            "group.id": "none",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            # As well fed as the processor: a queue that is full is looked at again soon.
            "queued.min.messages": 25 * BATCH,
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = Producer(
        {
            **client,
            "transactional.id": f"plain-{os.getpid()}",
            "transaction.timeout.ms": 10_000,
            "acks": "all",
            "linger.ms": 5,
            "batch.size": 1024 * 1024,
            "batch.num.messages": 100_000,
            "compression.type": "lz4",
        }
    )
    producer.init_transactions(START_S)
    decode, encode = _codec(library)
    balances: dict[str, int] = {}
    done = 0
    me = psutil.Process()
    consumer.assign([TopicPartition(source, p, offset) for p, offset in enumerate(begin)])
    # A client that has just been made takes a second for its first record: that is not measured.
    first = consumer.poll(START_S)
    used, began = sum(me.cpu_times()[:2]), time.monotonic()
    while done < count:
        assert first is not None, "the plain loop ran dry"
        messages = [first, *consumer.consume(BATCH - 1, 0)]
        producer.begin_transaction()
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            command = decode(message.value() or b"")
            account = command["account"]
            balance = balances.get(account, 0) + command["amount"]
            balances[account] = command["balance"] = balance
            producer.produce(target, encode(command), message.key(), message.partition() or 0)
        producer.commit_transaction(START_S)
        done += len(messages)
        first = consumer.poll(START_S) if done < count else None
    told.send((time.monotonic() - began, sum(me.cpu_times()[:2]) - used))
    consumer.close()


def _codec(library: str) -> tuple[Callable[[bytes], Any], Callable[[Any], bytes]]:
    if library == MSGSPEC:
        return msgspec.json.Decoder().decode, msgspec.json.Encoder().encode
    return json.loads, lambda value: json.dumps(value).encode()
