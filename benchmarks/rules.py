"""What a decision costs: credits from their bytes to every byte that is written about them.

    python -m benchmarks.rules

Prints a JSON line for each measure. Time is the process's own CPU time, the best of a few repeats.
Beside the rules runs the plain loop that anyone would write: decode, add, encode. Then the same
credits against larger states: no command's cost may grow with what the ledger has seen. (An account
that is not among the 65,536 whose partitions are remembered costs a few microseconds more, however
many others there are; so do the machine's own caches.)
"""

import argparse
import gc
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from processor.rules import chain, engine
from processor.rules.journal_header import input_of
from processor.rules.state_view import MemoryState
from processor.state.expiry_index import DueIndex
from schemas import coordination, journal, state, state_keys
from schemas.encoding import codecs
from schemas.ledger_parameters import RULES_VERSION, Genesis, LedgerParameters

ACCOUNTS = 10_000
MANY_ACCOUNTS = 200_000
PAST = 300_000
HOLDS = 100_000
BATCH = 1_000
LEDGER_ID = "benchmark"
START_MS = 1_750_000_000_000
SEED = 4

AVRO = codecs.AvroSchemas()
_encode_json = msgspec.json.Encoder().encode
_encode_state = msgspec.msgpack.Encoder().encode


class Record(NamedTuple):
    """A command as it lies in the topic."""

    key: bytes
    value: bytes


class Batches(MemoryState):
    """State in memory that remembers what a batch has changed, as the processor's table does."""

    def __init__(self) -> None:
        super().__init__(0)
        self.changed: dict[bytes, state.StateValue | None] = {}
        self._index = DueIndex(self._read_due)

    def put(self, key: bytes, value: state.StateValue | None) -> None:
        if key[0] == state_keys.DUE[0]:
            if value is None:
                self._index.remove(key)
            elif key not in self._values:
                self._index.add(key)
        self.changed[key] = value
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value

    def due(self, time_ms: int, limit: int) -> list[bytes]:
        return self._index.due(time_ms, limit)

    def _read_due(self, after: bytes, limit: int) -> list[bytes]:
        keys = (key for key in self._values if key[:1] == state_keys.DUE and key > after)
        return sorted(keys)[:limit]

    def taken(self) -> "Batches":
        """A copy for one repeat."""
        other = Batches()
        other.partition = self.partition
        other._values = dict(self._values)
        return other


# The commands


def _records(bodies: Iterator[dict[str, object]]) -> list[Record]:
    return [Record(str(body["account"]).encode(), _encode_json(body)) for body in bodies]


def _account(number: int) -> str:
    return f"wallet-{number:06}"


def opens(accounts: int) -> list[Record]:
    return _records(
        {
            "kind": "open_account",
            "account": _account(n),
            "id": "opening",
            "type": "wallet",
            "currency": "NGN",
            "owner": f"user-{n:06}",
        }
        for n in range(accounts)
    )


def _key(dice: random.Random) -> str:
    text = f"{dice.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def credits(count: int, accounts: int, seed: int) -> list[Record]:
    """Each with a new idempotency key, spread over the accounts by chance."""
    dice = random.Random(seed)
    return _records(
        {
            "kind": "credit",
            "account": _account(dice.randrange(accounts)),
            "idempotency_key": _key(dice),
            "amount": dice.randrange(1, 1_000_000),
        }
        for _ in range(count)
    )


def holds(count: int, accounts: int, seed: int) -> list[Record]:
    dice = random.Random(seed)
    return _records(
        {
            "kind": "hold",
            "account": _account(dice.randrange(accounts)),
            "idempotency_key": _key(dice),
            "amount": 1,
            "expires_at_ms": START_MS + dice.randrange(10**9, 10**10),
        }
        for _ in range(count)
    )


# The ways to take them


def decide(state: Batches, records: Sequence[Record]) -> None:
    """All that one core does about each command, but for what the network and the disk do."""
    last_hash = journal.genesis_hash(LEDGER_ID, 0)
    decode, apply, seal = codecs.decode_command, engine.apply, chain.seal
    for start in range(0, len(records), BATCH):
        for offset, (key, value) in enumerate(records[start : start + BATCH], start):
            message = decode(value, AVRO)
            for decision in apply(
                state, input_of("commands", offset, key, value, START_MS, message)
            ):
                value = seal(decision.record, last_hash)
                last_hash = journal.hash_of(value)
                for transaction in decision.transactions:
                    _encode_json(transaction)
        for changed in state.changed.values():
            if changed is not None:
                _encode_state(changed)
        _encode_state(state.partition)
        state.changed.clear()


def plain(records: Sequence[Record]) -> None:
    """The standard library's json and a dict."""
    balances: dict[str, int] = {}
    for _, value in records:
        command = json.loads(value)
        account = command["account"]
        balance = balances.get(account, 0) + command["amount"]
        balances[account] = command["balance"] = balance
        json.dumps(command)


def plain_msgspec(records: Sequence[Record]) -> None:
    """The same with msgspec, untyped."""
    decode, encode = msgspec.json.Decoder().decode, _encode_json
    balances: dict[str, int] = {}
    for _, value in records:
        command = decode(value)
        account = command["account"]
        balance = balances.get(account, 0) + command["amount"]
        balances[account] = command["balance"] = balance
        encode(command)


# Measuring


def _seconds(work: Callable[[], None]) -> float:
    """What lives already is not looked through by the collector; what the work makes is."""
    gc.collect()
    gc.freeze()
    began = time.process_time()
    work()
    took = time.process_time() - began
    gc.unfreeze()
    return took


def _print_measure(measure: str, **facts: object) -> None:
    print(json.dumps({"measure": measure, **facts}), flush=True)


def begin(accounts: int) -> Batches:
    state = Batches()
    first = coordination.Configure(
        settings=LedgerParameters(rules_version=RULES_VERSION),
        genesis=Genesis(ledger_id=LEDGER_ID, partitions=1),
    )
    engine.apply(state, engine.genesis(0, first, b"genesis"))
    decide(state, opens(accounts))
    return state


def _loops(records: list[Record], repeats: int) -> dict[str, float]:
    """The three loops, each measured in turn, so that all see the same machine."""
    start = begin(ACCOUNTS)
    best = dict.fromkeys(("rules", "plain", "plain_msgspec"), float("inf"))
    for _ in range(repeats):
        state = start.taken()
        for name, work in (
            ("rules", partial(decide, state, records)),
            ("plain", partial(plain, records)),
            ("plain_msgspec", partial(plain_msgspec, records)),
        ):
            best[name] = min(best[name], _seconds(work))
    return {name: len(records) / took for name, took in best.items()}


def _growth(
    name: str, small: Batches, large: Batches, works: dict[str, list[list[Record]]], repeats: int
) -> None:
    """The same commands on a small and on a large state, in turn."""
    for kind, (for_small, for_large) in works.items():
        best = {"small": float("inf"), "large": float("inf")}
        for _ in range(repeats):
            for size, start, records in (
                ("small", small, for_small),
                ("large", large, for_large),
            ):
                state = start.taken()
                # The index of what is due is read once, before.
                state.due(START_MS, 1)
                took = _seconds(partial(decide, state, records))
                best[size] = min(best[size], took / len(records))
        _print_measure(
            "growth",
            what_grows=name,
            command=kind,
            microseconds_small=round(best["small"] * 1e6, 2),
            microseconds_large=round(best["large"] * 1e6, 2),
            times=round(best["large"] / best["small"], 3),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=100_000, help="in each measured loop")
    parser.add_argument("--repeats", type=int, default=3, help="of which the best counts")
    given = parser.parse_args()
    count, repeats = given.commands, given.repeats

    records = credits(count, ACCOUNTS, SEED)
    rates = _loops(records, repeats)
    for name, rate in rates.items():
        _print_measure(name, commands_per_second=round(rate), commands=count, accounts=ACCOUNTS)
    _print_measure(
        "ratio",
        rules_to_plain=round(rates["rules"] / rates["plain"], 3),
        rules_to_plain_msgspec=round(rates["rules"] / rates["plain_msgspec"], 3),
        wanted=0.2,
    )

    few = begin(ACCOUNTS)
    credit, hold = credits(count, ACCOUNTS, SEED + 1), holds(count // 4, ACCOUNTS, SEED + 2)
    many = begin(MANY_ACCOUNTS)
    spread = credits(count, MANY_ACCOUNTS, SEED + 1)
    _growth(
        f"accounts {ACCOUNTS} to {MANY_ACCOUNTS}",
        few,
        many,
        {"credit": [credit, credit], "credit, on all of them": [credit, spread]},
        repeats,
    )
    del many, spread

    funded = few.taken()
    decide(funded, credits(ACCOUNTS * 5, ACCOUNTS, SEED + 3))
    past = funded.taken()
    decide(past, credits(PAST, ACCOUNTS, SEED + 4))
    _growth(
        f"past commands 0 to {PAST}",
        funded,
        past,
        {"credit": [credit, credit], "hold": [hold, hold]},
        repeats,
    )
    del past

    held = funded.taken()
    held.due(START_MS, 1)
    decide(held, holds(HOLDS, ACCOUNTS, SEED + 5))
    _growth(
        f"open holds 0 to {HOLDS}",
        funded,
        held,
        {"credit": [credit, credit], "hold": [hold, hold]},
        repeats,
    )


if __name__ == "__main__":
    main()
