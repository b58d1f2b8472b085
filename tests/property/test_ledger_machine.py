"""A Hypothesis state machine over a simulated cluster: any command, any order, any accident.

Hypothesis looks for the shortest story in which the rules and the naive model, or the rules and an
invariant, differ.
"""

import json
import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from schemas import ids, partitioning
from schemas.ledger_parameters import LedgerParameters
from tests.simulation.cluster import Cluster

LARGEST = 2**53 - 1
PARTITIONS = 3
NAMES = [f"w{n}" for n in range(1, 9)] + ["a:1", "Z_9"]
START = LedgerParameters(
    commission_bps=150,
    max_overdraft=1_000,
    hold_ttl_ms=400,
    participant_timeout_ms=200,
    max_pending=2,
    rules_version=1,
)

accounts = st.sampled_from(NAMES)
amounts = st.one_of(
    st.integers(1, 60), st.integers(1, 5_000), st.sampled_from((LARGEST - 1, LARGEST))
)
currencies = st.sampled_from((None, None, None, "NGN", "USD", "ABC"))
texts = st.sampled_from(("", "x", "é" * 1_100))
metadata = st.dictionaries(st.sampled_from(("a", "b", "c")), texts, max_size=2)
limits = st.sampled_from((None, None, 0, -500, -1_001, 3, -LARGEST))
extras = st.fixed_dictionaries(
    {},
    optional={
        "expected_version": st.integers(0, 3),
        "min_available_after": st.sampled_from((-600, 0, 100)),
        "metadata": st.sampled_from(({}, {"a": "b"})),
        "reference": st.just("r"),
        "trace": st.just("t"),
        "wallets_only": st.booleans(),
    },
)


class LedgerMachine(RuleBasedStateMachine):
    holds = Bundle("holds")
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        dice = random.Random(0)
        self.cluster = Cluster(PARTITIONS, dice, keep_journal=True, save_every=10**9)
        self.cluster.begin(START)

    @initialize(rich=st.integers(1_000, 9_000), rules_version=st.sampled_from((1, 2)))
    def open_some(self, rich: int, rules_version: int) -> None:
        for number in range(PARTITIONS):
            settings = replace(START, rules_version=rules_version)
            self.cluster.configure(number, settings)
        for place, name in enumerate(NAMES[:6]):
            kind = "liability" if place == 5 else "asset" if place == 4 else "wallet"
            self.write(
                "open_account", name, type=kind, currency="NGN", owner="ada" if place < 3 else None
            )
            if kind == "wallet":
                self.write("credit", name, amount=rich)
        self.drain()

    def write(self, kind: str, account: str, **fields: Any) -> dict[str, Any]:
        self.count += 1
        command = {"kind": kind, "account": account, "idempotency_key": f"k{self.count}"}
        command |= {name: given for name, given in fields.items() if given is not None}
        self.append(command)
        return command

    def append(self, command: dict[str, Any]) -> None:
        account = command["account"]
        partition = partitioning.partition_of(account, PARTITIONS)
        self.cluster.command(partition, account.encode(), json.dumps(command).encode())

    def identity(self, command: dict[str, Any]) -> tuple[str, str]:
        account = command["account"]
        key, only = command["idempotency_key"], command.get("wallets_only", False)
        return account, str(ids.transaction_id(account, key, wallets_only=only))

    def drain(self) -> None:
        for _ in range(1_000):
            busy = [n for n in range(PARTITIONS) if self.cluster.backlog(n)]
            if not busy:
                return
            for number in busy:
                self.cluster.step(number, take=50, coordination_first=True)
        raise AssertionError("coordination messages never end")

    # Commands

    @rule(
        account=accounts,
        type=st.sampled_from(("wallet", "asset", "revenue")),
        currency=currencies,
        limit=limits,
        owner=st.sampled_from((None, "ada")),
        extra=extras,
    )
    def open_account(
        self,
        account: str,
        type: str,
        currency: str | None,
        limit: int | None,
        owner: str | None,
        extra: dict[str, Any],
    ) -> None:
        options = {
            "type": type,
            "currency": currency or "NGN",
            "owner": owner,
            "min_balance": limit,
        }
        self.write("open_account", account, **options, **extra)

    @rule(
        target=sent,
        kind=st.sampled_from(("credit", "debit")),
        account=accounts,
        amount=amounts,
        currency=currencies,
        extra=extras,
    )
    def move(
        self, kind: str, account: str, amount: int, currency: str | None, extra: dict[str, Any]
    ) -> dict[str, Any]:
        return self.write(kind, account, amount=amount, currency=currency, **extra)

    @rule(
        target=sent,
        account=accounts,
        to=accounts,
        amount=amounts,
        currency=currencies,
        extra=extras,
    )
    def transfer(
        self, account: str, to: str, amount: int, currency: str | None, extra: dict[str, Any]
    ) -> dict[str, Any]:
        return self.write("transfer", account, to=to, amount=amount, currency=currency, **extra)

    @rule(
        target=sent,
        names=st.lists(
            st.one_of(accounts, st.sampled_from(("system:fees:NGN", "system:funding:NGN"))),
            min_size=1,
            max_size=6,
        ),
        unit=st.integers(1, 400),
        off=st.sampled_from((0, 0, 0, 0, 1)),
        extra=extras,
    )
    def post(self, names: list[str], unit: int, off: int, extra: dict[str, Any]) -> dict[str, Any]:
        entries = [{"account": name, "direction": "debit", "amount": unit} for name in names[:-1]]
        rest = max(1, unit * (len(names) - 1) + off)
        entries.append({"account": names[-1], "direction": "credit", "amount": rest})
        ordinary = [name for name in names if not ids.is_system(name)]
        account = min(ordinary, default=NAMES[0])
        return self.write("post", account, currency="NGN", entries=entries, **extra)

    @rule(
        target=holds,
        account=accounts,
        amount=amounts,
        after=st.sampled_from((None, -1, 0, 1, 150, 3_000)),
        extra=extras,
    )
    def hold(
        self, account: str, amount: int, after: int | None, extra: dict[str, Any]
    ) -> dict[str, Any]:
        expires = None if after is None else self.cluster.now_ms + after
        return self.write("hold", account, amount=amount, expires_at_ms=expires, **extra)

    @rule(
        target=sent,
        hold=holds,
        to=st.one_of(st.none(), accounts),
        amount=st.one_of(st.none(), amounts),
        extra=extras,
    )
    def capture(
        self, hold: dict[str, Any], to: str | None, amount: int | None, extra: dict[str, Any]
    ) -> dict[str, Any]:
        account, hold_id = self.identity(hold)
        return self.write("capture", account, hold_id=hold_id, to=to, amount=amount, **extra)

    @rule(hold=holds, extra=extras)
    def void(self, hold: dict[str, Any], extra: dict[str, Any]) -> None:
        account, hold_id = self.identity(hold)
        self.write("void", account, hold_id=hold_id, **extra)

    @rule(original=sent, extra=extras)
    def reverse(self, original: dict[str, Any], extra: dict[str, Any]) -> None:
        account, identity = self.identity(original)
        self.write("reverse", account, transaction_id=identity, **extra)

    @rule(
        kind=st.sampled_from(("freeze", "unfreeze", "unfreeze", "close")),
        account=accounts,
        extra=extras,
    )
    def change_status(self, kind: str, account: str, extra: dict[str, Any]) -> None:
        self.write(kind, account, **extra)

    @rule(account=accounts, limit=limits, extra=extras)
    def set_limit(self, account: str, limit: int | None, extra: dict[str, Any]) -> None:
        self.write("set_limit", account, min_balance=limit, **extra)

    @rule(
        account=accounts,
        limit=limits,
        no_limit=st.sampled_from((None, None, False, True)),
        metadata=metadata,
        extra=extras,
    )
    def change_account(
        self,
        account: str,
        limit: int | None,
        no_limit: bool | None,
        metadata: dict[str, str],
        extra: dict[str, Any],
    ) -> None:
        options = {"min_balance": limit, "no_limit": no_limit, "metadata": metadata, **extra}
        self.write("change_account", account, **options)

    @rule(original=sent, change=st.sampled_from(({}, {}, {"id": "other"}, {"reference": "other"})))
    def again(self, original: dict[str, Any], change: dict[str, Any]) -> None:
        self.append({**original, **change})

    @rule(
        original=sent,
        partition=st.integers(0, PARTITIONS - 1),
        key=st.sampled_from((None, b"w1", b"")),
        cut=st.integers(0, 400),
    )
    def spoiled(
        self, original: dict[str, Any], partition: int, key: bytes | None, cut: int
    ) -> None:
        self.cluster.command(partition, key, json.dumps(original).encode()[:cut])

    @rule(partition=st.integers(0, PARTITIONS - 1), value=st.binary(max_size=40))
    def garbage(self, partition: int, value: bytes) -> None:
        # Avro needs schemas that this cluster does not have.
        self.cluster.command(partition, b"w1", b"J" + value)

    # What the machinery does

    @rule(
        partition=st.integers(0, PARTITIONS - 1),
        take=st.integers(1, 5),
        coordination_first=st.booleans(),
        crash=st.sampled_from((None, None, None, "before", "after")),
    )
    def step(self, partition: int, take: int, coordination_first: bool, crash: str | None) -> None:
        if self.cluster.backlog(partition):
            self.cluster.step(
                partition, take=take, coordination_first=coordination_first, crash=crash
            )

    @rule()
    def settle(self) -> None:
        self.drain()

    @rule(passed=st.sampled_from((1, 50, 201, 400, 5_000)))
    def time_passes(self, passed: int) -> None:
        self.cluster.now_ms += passed

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def tick(self, partition: int) -> None:
        self.cluster.tick(partition)

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def delivered_again(self, partition: int) -> None:
        self.cluster.deliver_again(partition)

    @rule(
        partition=st.integers(0, PARTITIONS - 1),
        bps=st.sampled_from((0, 150, 10_000)),
        overdraft=st.sampled_from((0, 1_000, LARGEST)),
        genesis=st.sampled_from((False, False, True)),
        rules_version=st.sampled_from((1, 1, 1, 2)),
    )
    def configure(
        self, partition: int, bps: int, overdraft: int, genesis: bool, rules_version: int
    ) -> None:
        settings = LedgerParameters(
            commission_bps=bps,
            max_overdraft=overdraft,
            hold_ttl_ms=400,
            participant_timeout_ms=200,
            max_pending=1 if genesis else 3,
            rules_version=rules_version,
        )
        self.cluster.configure(partition, settings, genesis=genesis)

    # What holds always

    @invariant()
    def everything_holds(self) -> None:
        self.cluster.check()

    def teardown(self) -> None:
        self.drain()
        self.cluster.check_quiet()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(
    max_examples=120,
    stateful_step_count=50,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
