"""Commands as bytes, each with an idempotency key of its own, and two ways to send them: a backlog
as fast as it goes, or at an even rate.
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


def opens(of: list[Account]) -> Iterator[Command]:
    for number, account in enumerate(of):
        yield _command(
            account,
            kind="open_account",
            id="opening",
            type="wallet",
            currency="NGN",
            owner=f"user-{number:07}",
        )


def credits(of: list[Account], count: int, seed: int) -> Iterator[Command]:
    """To every account in turn, in an order of chance, so that none is left without money."""
    dice = random.Random(seed)
    order = dice.sample(of, len(of))
    for number in range(count):
        yield _credit(order[number % len(order)], dice)


def transfers(of: list[Account], count: int, seed: int) -> Iterator[Command]:
    """Each to an account of another partition."""
    dice = random.Random(seed)
    for _ in range(count):
        sender, receiver = dice.choice(of), dice.choice(of)
        while receiver.partition == sender.partition:
            receiver = dice.choice(of)
        yield _transfer(sender, receiver, dice)


def mix(of: list[Account], count: int, seed: int) -> Iterator[Command]:
    """70 % credits and debits, 20 % transfers to any partition, 10 % holds and their captures."""
    dice = random.Random(seed)
    held: list[tuple[Account, str, int]] = []
    for _ in range(count):
        account, share = dice.choice(of), dice.random()
        if share < 0.35:
            yield _credit(account, dice)
        elif share < 0.7:
            yield _command(
                account, kind="debit", idempotency_key=_key(), amount=dice.randrange(1, 100)
            )
        elif share < 0.9:
            receiver = dice.choice(of)
            while receiver is account:
                receiver = dice.choice(of)
            yield _transfer(account, receiver, dice)
        elif share < 0.95 or not held:
            key, amount = _key(), dice.randrange(1, 100)
            held.append((account, ids.transaction_id(account.id, key), amount))
            yield _command(account, kind="hold", idempotency_key=key, amount=amount)
        else:
            place = dice.randrange(len(held))
            held[place], held[-1] = held[-1], held[place]
            holder, hold, amount = held.pop()
            yield _command(
                holder, kind="capture", idempotency_key=_key(), hold_id=hold, amount=amount
            )


def _credit(account: Account, dice: random.Random) -> Command:
    amount = dice.randrange(1_000_000, 2_000_000)
    return _command(account, kind="credit", idempotency_key=_key(), amount=amount)


def _transfer(sender: Account, receiver: Account, dice: random.Random) -> Command:
    return _command(
        sender,
        kind="transfer",
        idempotency_key=_key(),
        to=receiver.id,
        amount=dice.randrange(1, 1_000),
    )


def _command(account: Account, **fields: object) -> Command:
    body = {"account": account.id, **fields}
    return Command(account, json.dumps(body, separators=(",", ":")).encode())


def _key() -> str:
    """Never the same again, whatever the seeds are: a replay is another thing to measure."""
    text = f"{_keys.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def producer(client: Config, settings: Config) -> Producer:
    return Producer({**client, "acks": "all", "enable.idempotence": True, **settings})


def send_backlog(client: Config, topic: str, commands: Iterable[Command]) -> int:
    """All of it, as fast as it goes; returns how many there were."""
    sending = producer(
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
            taken = sending.produce_batch(topic, messages, partition)
            assert taken == len(messages), f"only {taken} of {len(messages)} were taken"
        sent += len(chunk)
        while len(sending) > 5 * CHUNK:
            sending.poll(0.01)
    assert sending.flush(60) == 0, "the backlog was not taken by Kafka"
    return sent


def send_evenly(client: Config, topic: str, commands: list[Command], rate: float) -> None:
    """`rate` commands a second; what is late is sent at once."""
    sending = producer(client, {"linger.ms": 1})
    began, sent = time.monotonic(), 0
    while sent < len(commands):
        due = min(len(commands), int((time.monotonic() - began) * rate) + 1)
        for account, value in commands[sent:due]:
            sending.produce(topic, value, account.key, account.partition)
        sent = due
        sending.poll(0)
        time.sleep(TICK_S)
    assert sending.flush(60) == 0, "not all commands were taken by Kafka"
