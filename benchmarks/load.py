"""Commands as bytes, each with a unique idempotency key, and two ways to send them: a backlog at
full speed, or an even rate.
"""

import json
import random
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from confluent_kafka import Producer

from benchmarks.machine import Config
from schemas import ids
from schemas.partitioning import partition_of

CHUNK = 20_000
TICK_S = 0.001
_keys = random.Random()


class Account(NamedTuple):
    id: str
    key: bytes
    partition: int


class Command(NamedTuple):
    account: Account
    value: bytes


def accounts(count: int, partitions: int) -> list[Account]:
    names = (f"wallet-{number:07}" for number in range(count))
    return [Account(name, name.encode(), partition_of(name, partitions)) for name in names]


def opens(wallets: list[Account]) -> Iterator[Command]:
    for number, account in enumerate(wallets):
        yield _command(
            account,
            kind="open_account",
            id="opening",
            type="wallet",
            currency="NGN",
            owner=f"user-{number:07}",
        )


def credits(wallets: list[Account], count: int, seed: int) -> Iterator[Command]:
    """To every account in turn, in random order, so that each has money."""
    rng = random.Random(seed)
    order = rng.sample(wallets, len(wallets))
    for number in range(count):
        yield _credit(order[number % len(order)], rng)


def transfers(wallets: list[Account], count: int, seed: int) -> Iterator[Command]:
    """Each to an account in another partition."""
    rng = random.Random(seed)
    for _ in range(count):
        sender, receiver = rng.choice(wallets), rng.choice(wallets)
        while receiver.partition == sender.partition:
            receiver = rng.choice(wallets)
        yield _transfer(sender, receiver, rng)


def mix(wallets: list[Account], count: int, seed: int) -> Iterator[Command]:
    """70 % credits and debits, 20 % transfers to any partition, 10 % holds and their captures."""
    rng = random.Random(seed)
    held: list[tuple[Account, str, int]] = []
    for _ in range(count):
        account, share = rng.choice(wallets), rng.random()
        if share < 0.35:
            yield _credit(account, rng)
        elif share < 0.7:
            yield _command(
                account, kind="debit", idempotency_key=_key(), amount=rng.randrange(1, 100)
            )
        elif share < 0.9:
            receiver = rng.choice(wallets)
            while receiver is account:
                receiver = rng.choice(wallets)
            yield _transfer(account, receiver, rng)
        elif share < 0.95 or not held:
            key, amount = _key(), rng.randrange(1, 100)
            held.append((account, ids.transaction_id(account.id, key), amount))
            yield _command(account, kind="hold", idempotency_key=key, amount=amount)
        else:
            place = rng.randrange(len(held))
            held[place], held[-1] = held[-1], held[place]
            holder, hold, amount = held.pop()
            yield _command(
                holder, kind="capture", idempotency_key=_key(), hold_id=hold, amount=amount
            )


def _credit(account: Account, rng: random.Random) -> Command:
    amount = rng.randrange(1_000_000, 2_000_000)
    return _command(account, kind="credit", idempotency_key=_key(), amount=amount)


def _transfer(sender: Account, receiver: Account, rng: random.Random) -> Command:
    return _command(
        sender,
        kind="transfer",
        idempotency_key=_key(),
        to=receiver.id,
        amount=rng.randrange(1, 1_000),
    )


def _command(account: Account, **fields: object) -> Command:
    body = {"account": account.id, **fields}
    return Command(account, json.dumps(body, separators=(",", ":")).encode())


def _key() -> str:
    """Unique whatever the seeds are, so that no command is a replay."""
    text = f"{_keys.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def producer(client: Config, settings: Config) -> Producer:
    return Producer({**client, "acks": "all", "enable.idempotence": True, **settings})


def send_backlog(client: Config, topic: str, commands: Iterable[Command]) -> int:
    """Sends all commands at full speed and returns their number."""
    kafka_producer = producer(
        client,
        {"linger.ms": 20, "compression.type": "lz4", "queue.buffering.max.messages": 10 * CHUNK},
    )
    sent, rest = 0, iter(commands)
    while chunk := list(islice(rest, CHUNK)):
        by_partition: dict[int, list[dict[str, Any]]] = {}
        for account, value in chunk:
            message = {"key": account.key, "value": value}
            by_partition.setdefault(account.partition, []).append(message)
        for partition, messages in by_partition.items():
            taken = kafka_producer.produce_batch(topic, messages, partition)
            assert taken == len(messages), f"only {taken} of {len(messages)} were accepted"
        sent += len(chunk)
        while len(kafka_producer) > 5 * CHUNK:
            kafka_producer.poll(0.01)
    assert kafka_producer.flush(60) == 0, "Kafka did not take the backlog"
    return sent


def send_evenly(client: Config, topic: str, commands: list[Command], rate: float) -> None:
    """Sends `rate` commands a second; late ones are sent immediately."""
    kafka_producer = producer(client, {"linger.ms": 1})
    start_s, sent = time.monotonic(), 0
    while sent < len(commands):
        due = min(len(commands), int((time.monotonic() - start_s) * rate) + 1)
        for account, value in commands[sent:due]:
            kafka_producer.produce(topic, value, account.key, account.partition)
        sent = due
        kafka_producer.poll(0)
        time.sleep(TICK_S)
    assert kafka_producer.flush(60) == 0, "Kafka did not take all commands"
