"""Load as the world brings it: several producers at once, plain and transactional, some of whose
transactions abort and some of which nobody ever ends, with hostile bytes among what they send.

What they send follows from the seed; in which order it arrives does not. It remembers only what
Kafka has confirmed.
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
# Longer than any broker is away.
PLAIN: Mapping[str, str | int] = {"enable.idempotence": "true", "message.timeout.ms": 120_000}
DUEL_MONEY = 1_000
DUELS = 6


class LoadGenerator:
    """Producers in threads, from `start` to `stop`; together they send about `rate` a second.
    `hanging` is the chance that a transactional one leaves its last transaction open."""

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
        # Of each partition the offsets that were confirmed, and those of aborted transactions.
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
        self._guard = threading.Lock()
        self._over = threading.Event()
        self.duels = [self._duel(number) for number in range(DUELS)]
        kinds: list[Callable[[random.Random], None]] = [
            self._plain,
            self._plain,
            self._transactional,
            self._duelling,
        ]
        self._threads = [
            threading.Thread(target=self._guarded, args=(kind, seed + number), daemon=True)
            for number, kind in enumerate(kinds)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when all that was sent is confirmed."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * CONFIRM_S)
        assert not any(thread.is_alive() for thread in self._threads), "a producer does not end"
        assert not self.failures, self.failures[:5]

    def next(self) -> Record:
        with self._guard:
            return self._generator.next(int(time.time() * 1_000))

    def _guarded(self, kind: Callable[[random.Random], None], seed: int) -> None:
        try:
            kind(random.Random(seed))
        except (AssertionError, KafkaException) as error:
            self.failures.append(f"{kind.__name__}: {error!r}")

    # The producers

    def _producer(self, more: Mapping[str, str | int]) -> Producer:
        return Producer({**self._client, "acks": "all", "linger.ms": 2, **more})

    def _plain(self, dice: random.Random) -> None:
        producer = self._producer(PLAIN)
        while not self._over.wait(self._pause_s * dice.random() * 2):
            for _ in range(dice.choice((1, 1, 1, 2, 5))):
                self._send(producer, self.next(), self._note)
            producer.poll(0)
        assert producer.flush(CONFIRM_S) == 0, "not confirmed in time"

    def _duelling(self, dice: random.Random) -> None:
        """Two accounts pay each other all they may have, at once."""
        producer = self._producer(PLAIN)
        for one, other in self.duels:
            for account, amount in ((one, DUEL_MONEY), (other, 0)):
                self._say(
                    producer, account, "open_account", type="wallet", currency="NGN", owner="duel"
                )
                if amount:
                    self._say(producer, account, "credit", amount=amount)
        number = 0
        while not self._over.wait(self._pause_s * dice.random() * 2):
            number += 1
            pair = dice.choice(self.duels)
            for here, there in (pair, pair[::-1]):
                amount = dice.choice((DUEL_MONEY, DUEL_MONEY // 2, 1))
                self._say(producer, here, "transfer", to=there, amount=amount, key=f"duel {number}")
            producer.poll(0)
        assert producer.flush(CONFIRM_S) == 0, "not confirmed in time"

    def _transactional(self, dice: random.Random) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            hanging = dice.random() < self._hanging
            told: dict[str, str | int] = {
                "transactional.id": f"{self._topic}-load-{self._seed}-{number}",
                "transaction.timeout.ms": HANGING_MS if hanging else 15_000,
            }
            producer = self._producer(told)
            if not _done(producer.init_transactions, CONFIRM_S):
                continue
            try:
                for _ in range(dice.randrange(3, 12)):
                    if self._over.is_set() or not self._transaction(producer, dice):
                        break
                if hanging and not self._over.is_set():
                    self._hang(producer, dice)
            except KafkaException:
                # The broker was away for longer than the transaction may take.
                self.sent["broken transactions"] += 1

    def _transaction(self, producer: Producer, dice: random.Random) -> bool:
        """False where the producer is of no more use: the broker was away too long."""
        if not _done(producer.begin_transaction):
            return False
        delivered: list[tuple[int, int]] = []
        for _ in range(dice.randrange(1, 30)):
            self._send(producer, self.next(), lambda e, m: _collect(delivered, e, m))
            if self._over.wait(self._pause_s * dice.random()):
                break
        if dice.random() < 0.3:
            producer.flush(CONFIRM_S)
            if not _done(producer.abort_transaction, CONFIRM_S):
                return False
            self.sent["aborted transactions"] += 1
            self.aborted.update(delivered)
            return True
        if not _done(producer.commit_transaction, CONFIRM_S):
            self.sent["transactions of unknown end"] += 1
            return False
        self.sent["transactions"] += 1
        self.confirmed.update(delivered)
        return True

    def _hang(self, producer: Producer, dice: random.Random) -> None:
        """Nobody ends this one: the broker does, after its time-out."""
        if _done(producer.begin_transaction):
            for _ in range(dice.randrange(1, 5)):
                self._send(producer, self.next(), None)
            producer.flush(5)
            self.sent["hanging transactions"] += 1

    # What they send

    def _say(self, producer: Producer, account: str, kind: str, key: str = "", **own: Any) -> None:
        command = {"kind": kind, "account": account, "idempotency_key": key or kind, **own}
        partition = partitioning.partition_of(account, self._partitions)
        record = Record(partition, account.encode(), json.dumps(command).encode())
        self._send(producer, record, self._note)

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

    def _note(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(str(error))
            return
        _collect_into(self.confirmed, message)

    def _duel(self, number: int) -> tuple[str, str]:
        """Two accounts in two partitions, where there are two."""
        names = (f"duel-{self._seed}-{number}-{n}" for n in range(10_000))
        one = next(names)
        here = partitioning.partition_of(one, self._partitions)
        for other in names:
            if self._partitions == 1 or partitioning.partition_of(other, self._partitions) != here:
                return one, other
        raise AssertionError("all names are in one partition")


def _done(call: Callable[..., None], *arguments: float) -> bool:
    """False where the broker would not, or was away for too long."""
    try:
        call(*arguments)
    except KafkaException:
        return False
    return True


def _collect(into: list[tuple[int, int]], error: KafkaError | None, message: Message) -> None:
    if error is None:
        into.append((message.partition() or 0, message.offset() or 0))


def _collect_into(into: set[tuple[int, int]], message: Message) -> None:
    into.add((message.partition() or 0, message.offset() or 0))
