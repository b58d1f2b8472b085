"""Generates load from plain and transactional producers, with aborted and abandoned transactions
and invalid bytes.

The seed determines the commands, but not the order of their arrival. It remembers only what Kafka
has confirmed. It must not know how commands are decided.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas import partitioning
from tests.simulation.generator import Generator, Record

CONFIRM_S = 60.0
HANGING_MS = 4_000
# Longer than any outage of a broker.
IDEMPOTENT_CONFIG: Mapping[str, str | int] = {
    "enable.idempotence": "true",
    "message.timeout.ms": 120_000,
}
DUEL_MONEY = 1_000
DUELS = 6


class LoadGenerator:
    """Producers in threads that together send about `rate` commands a second. `hanging`: the chance
    that a transactional producer leaves its last transaction open."""

    def __init__(
        self,
        client: dict[str, str | int | float | bool],
        topic: str,
        partitions: int,
        seed: int,
        rate: float,
        hanging: float,
    ) -> None:
        self.sent: Counter[str] = Counter()
        # Partition and offset of confirmed commands, and of those in aborted transactions.
        self.confirmed: set[tuple[int, int]] = set()
        self.aborted: set[tuple[int, int]] = set()
        self.failures: list[str] = []
        self._client = client
        self._topic = topic
        self._partitions = partitions
        self._seed = seed
        self._pause_s = 4 / rate
        self._hanging = hanging
        self._generator = Generator(seed, partitions)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.duels = [self._duel_pair(number) for number in range(DUELS)]
        kinds: list[Callable[[random.Random], None]] = [
            self._plain_producer,
            self._plain_producer,
            self._transactional_producer,
            self._duel_producer,
        ]
        self._threads = [
            threading.Thread(target=self._run_producer, args=(kind, seed + number), daemon=True)
            for number, kind in enumerate(kinds)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when Kafka has confirmed all commands."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(2 * CONFIRM_S)
        assert not any(thread.is_alive() for thread in self._threads), "a producer has not ended"
        assert not self.failures, self.failures[:5]

    def next(self) -> Record:
        with self._lock:
            return self._generator.next(int(time.time() * 1_000))

    def _run_producer(self, kind: Callable[[random.Random], None], seed: int) -> None:
        try:
            kind(random.Random(seed))
        except (AssertionError, KafkaException) as error:
            self.failures.append(f"{kind.__name__}: {error!r}")

    # The producers

    def _producer(self, config: Mapping[str, str | int]) -> Producer:
        return Producer({**self._client, "acks": "all", "linger.ms": 2, **config})

    def _plain_producer(self, rng: random.Random) -> None:
        producer = self._producer(IDEMPOTENT_CONFIG)
        while not self._stopping.wait(self._pause_s * rng.random() * 2):
            for _ in range(rng.choice((1, 1, 1, 2, 5))):
                self._send(producer, self.next(), self._on_delivery)
            producer.poll(0)
        assert producer.flush(CONFIRM_S) == 0, "not confirmed in time"

    def _duel_producer(self, rng: random.Random) -> None:
        """Two accounts send each other their whole balance at the same time."""
        producer = self._producer(IDEMPOTENT_CONFIG)
        for first_account, second_account in self.duels:
            for account, amount in ((first_account, DUEL_MONEY), (second_account, 0)):
                self._send_command(
                    producer, account, "open_account", type="wallet", currency="NGN", owner="duel"
                )
                if amount:
                    self._send_command(producer, account, "credit", amount=amount)
        number = 0
        while not self._stopping.wait(self._pause_s * rng.random() * 2):
            number += 1
            pair = rng.choice(self.duels)
            for sender, receiver in (pair, pair[::-1]):
                amount = rng.choice((DUEL_MONEY, DUEL_MONEY // 2, 1))
                self._send_command(
                    producer, sender, "transfer", to=receiver, amount=amount, key=f"duel {number}"
                )
            producer.poll(0)
        assert producer.flush(CONFIRM_S) == 0, "not confirmed in time"

    def _transactional_producer(self, rng: random.Random) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            hanging = rng.random() < self._hanging
            transaction_config: dict[str, str | int] = {
                "transactional.id": f"{self._topic}-load-{self._seed}-{number}",
                "transaction.timeout.ms": HANGING_MS if hanging else 15_000,
            }
            producer = self._producer(transaction_config)
            if not _succeeds(producer.init_transactions, CONFIRM_S):
                continue
            try:
                for _ in range(rng.randrange(3, 12)):
                    if self._stopping.is_set() or not self._transaction(producer, rng):
                        break
                if hanging and not self._stopping.is_set():
                    self._leave_open(producer, rng)
            except KafkaException:
                # The outage was longer than the transaction's time-out.
                self.sent["broken transactions"] += 1

    def _transaction(self, producer: Producer, rng: random.Random) -> bool:
        """False if the producer is unusable after a long outage."""
        if not _succeeds(producer.begin_transaction):
            return False
        delivered: list[tuple[int, int]] = []
        for _ in range(rng.randrange(1, 30)):
            self._send(producer, self.next(), lambda e, m: _append_position(delivered, e, m))
            if self._stopping.wait(self._pause_s * rng.random()):
                break
        if rng.random() < 0.3:
            producer.flush(CONFIRM_S)
            if not _succeeds(producer.abort_transaction, CONFIRM_S):
                return False
            self.sent["aborted transactions"] += 1
            self.aborted.update(delivered)
            return True
        if not _succeeds(producer.commit_transaction, CONFIRM_S):
            self.sent["transactions of unknown end"] += 1
            return False
        self.sent["transactions"] += 1
        self.confirmed.update(delivered)
        return True

    def _leave_open(self, producer: Producer, rng: random.Random) -> None:
        """Leaves a transaction open; the broker aborts it after its time-out."""
        if _succeeds(producer.begin_transaction):
            for _ in range(rng.randrange(1, 5)):
                self._send(producer, self.next(), None)
            producer.flush(5)
            self.sent["hanging transactions"] += 1

    # Commands

    def _send_command(
        self, producer: Producer, account: str, kind: str, key: str = "", **fields: Any
    ) -> None:
        command = {"kind": kind, "account": account, "idempotency_key": key or kind, **fields}
        partition = partitioning.partition_of(account, self._partitions)
        record = Record(partition, account.encode(), json.dumps(command).encode())
        self._send(producer, record, self._on_delivery)

    def _send(
        self,
        producer: Producer,
        record: Record,
        delivered: Callable[[KafkaError | None, Message], None] | None,
    ) -> None:
        self.sent["records"] += 1
        while True:
            try:
                producer.produce(
                    self._topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=delivered,
                )
            except BufferError:
                producer.poll(0.1)
            else:
                return

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(str(error))
            return
        _add_position(self.confirmed, message)

    def _duel_pair(self, number: int) -> tuple[str, str]:
        """Two accounts, in different partitions if there are several."""
        names = (f"duel-{self._seed}-{number}-{n}" for n in range(10_000))
        first_account = next(names)
        sender = partitioning.partition_of(first_account, self._partitions)
        for second_account in names:
            if (
                self._partitions == 1
                or partitioning.partition_of(second_account, self._partitions) != sender
            ):
                return first_account, second_account
        raise AssertionError("all names are in one partition")


def _succeeds(call: Callable[..., None], *arguments: float) -> bool:
    """False if the broker refuses, or the outage is too long."""
    try:
        call(*arguments)
    except KafkaException:
        return False
    return True


def _append_position(
    into: list[tuple[int, int]], error: KafkaError | None, message: Message
) -> None:
    if error is None:
        into.append((message.partition() or 0, message.offset() or 0))


def _add_position(into: set[tuple[int, int]], message: Message) -> None:
    into.add((message.partition() or 0, message.offset() or 0))
