"""Commands from valid to hostile, all from one seed: few accounts, so that conflicts are many.

What it remembers are the ids of what it has sent, never what became of it: most of what it names
exists, some of it was rejected, captured or closed long ago.
"""

import json
import random
from collections import deque
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple

from schemas import ids, partitioning
from tests.simulation import hostile, stories

Body = dict[str, Any]
LARGEST = 2**53 - 1


class Record(NamedTuple):
    """A record of `commands` without its offset. `time_ms` where it has one of its own."""

    partition: int
    key: bytes | None
    value: bytes
    time_ms: int | None = None


class KnownAccount(NamedTuple):
    name: str
    type: str
    currency: str


class Sent(NamedTuple):
    account: str
    identity: str
    amount: int


CROWD = 104
POOL = 36
TYPES = ("wallet",) * 8 + ("asset", "liability", "equity", "revenue", "expense")
CURRENCIES = ("NGN",) * 15 + ("USD", "JPY", "KWD")
OWNERS = ("ada", "bem", "chi", "dayo", None)
WEIGHTS = {
    "credit": 17,
    "debit": 8,
    "transfer": 26,
    "post": 9,
    "hold": 10,
    "capture": 9,
    "void": 3,
    "reverse": 7,
    "freeze": 0.4,
    "unfreeze": 3,
    "close": 0.8,
    "set_limit": 1.2,
    "change_account": 1.2,
    "open_account": 1.3,
}
MOVING = ("credit", "debit", "transfer", "post", "capture")
KINDS = tuple(WEIGHTS)
WEIGHED = tuple(accumulate(WEIGHTS.values()))


class Generator:
    def __init__(self, seed: int, partitions: int) -> None:
        self.random = random.Random(seed)
        self.partitions = partitions
        self.count = 0
        self._names = 0
        self._crowd = [KnownAccount(f"crowd-{n:03}", "liability", "NGN") for n in range(CROWD)]
        self._pool: list[KnownAccount] = []
        self._holds: deque[Sent] = deque(maxlen=60)
        self._old_holds: list[Sent] = []
        self._sent: deque[Sent] = deque(maxlen=80)
        self._old_sent: list[Sent] = []
        self._recent: deque[Body] = deque(maxlen=60)
        self._ready: deque[Record] = deque()
        for account in self._crowd:
            self._ready.append(self._open(account, None, None))
        for _ in range(POOL):
            self._pool.append(self._newcomer())
        self._kinds: dict[str, Callable[[int], Body]] = {
            "credit": self._credit,
            "debit": self._debit,
            "transfer": self._transfer,
            "post": self._post,
            "hold": self._hold,
            "capture": self._capture,
            "void": self._void,
            "reverse": self._reverse,
            "set_limit": self._set_limit,
            "change_account": self._change_account,
            "open_account": self._open_again,
        }

    def next(self, now_ms: int) -> Record:
        self.count += 1
        if not self._ready:
            self._write(now_ms)
        return self._ready.popleft()

    def burst_of_holds(self, now_ms: int, size: int) -> None:
        """More holds due at one time than are taken at once, then captures and voids of the last
        ones.
        """
        account, expires = self._crowd[self.random.randrange(CROWD)].name, now_ms + 600_000
        holds = []
        for _ in range(size):
            command = self._new("hold", account, amount=1, expires_at_ms=expires)
            holds.append(self._identity(command))
            self._ready.append(self._record(command))
        for kind, hold in zip(("capture", "void"), sorted(holds)[-2:], strict=True):
            record = self._record(self._new(kind, account, hold_id=hold))
            self._ready.append(record._replace(time_ms=expires))

    # One step of writing: a command, and now and then what collides with it

    def _write(self, now_ms: int) -> None:
        if self.count % 400 == 0:
            self._pool[self.random.randrange(POOL)] = self._newcomer()
            return
        chance = self.random.random()
        if chance < 0.003:
            name = self.random.choice(("system:funding:NGN", "system:x"))
            self._ready.append(self._record(dict(self._command(now_ms), account=name)))
            return
        if chance < 0.008:
            self._write_story()
            return
        if chance < 0.04 and self._recent:
            self._ready.append(self._record(self._again()))
            return
        if chance < 0.10:
            command = self._command(now_ms)
            self._ready.append(hostile.spoil(self.random, self._record(command), command))
            return
        command = self._command(now_ms)
        self._remember(command)
        self._ready.append(self._record(command))
        if chance > (0.75 if command["kind"] in ("capture", "reverse") else 0.97):
            self._ready.append(self._record(self._rival(command, now_ms)))

    def _write_story(self) -> None:
        self._names += 1
        cast = stories.Cast(
            new=f"hero:{self._names}",
            rich=self.random.choice(self._crowd).name,
            other=self._partner("NGN").name,
            owner=self.random.choice(OWNERS),
        )
        for command in self.random.choice(stories.STORIES)(self.random, cast):
            self._names += 1
            command["idempotency_key"] = f"k{self._names}"
            self._remember(command)
            self._ready.append(self._record(command))

    def _rival(self, command: Body, now_ms: int) -> Body:
        """The same wish with another key, or the way back, at once."""
        rival = dict(command, idempotency_key=f"rival-{self.count}")
        if command["kind"] == "transfer" and self.random.random() < 0.5:
            rival["account"], rival["to"] = command["to"], command["account"]
        self._remember(rival)
        return rival

    def _again(self) -> Body:
        first = self.random.choice(self._recent)
        again = dict(first)
        chance = self.random.random()
        if chance < 0.55:
            again["trace"], again["actor"] = "another", "someone else"
            again["metadata"] = again.get("metadata", {})
            names = list(again)
            self.random.shuffle(names)
            again = {name: again[name] for name in names}
        elif chance < 0.6:
            again["wallets_only"] = not again.get("wallets_only", False)
        elif chance < 0.7:
            again["idempotency_key"] = first.get("idempotency_key") or first["id"]
            again["id"] = "another label"
        elif chance < 0.85:
            again["reference"] = "another body"
        else:
            again = {
                "kind": "freeze" if first["kind"] != "freeze" else "unfreeze",
                "account": first["account"],
                "idempotency_key": first.get("idempotency_key") or first["id"],
            }
        return again

    def _command(self, now_ms: int) -> Body:
        kind = self.random.choices(KINDS, cum_weights=WEIGHED)[0]
        make = self._kinds.get(kind)
        command = make(now_ms) if make is not None else self._new(kind, self._anyone().name)
        return self._adorn(command)

    def _adorn(self, command: Body) -> Body:
        chance = self.random.random()
        if chance < 0.03:
            command["expected_version"] = self.random.choice((0, 1, 2, 5, 20))
        elif chance < 0.06:
            command["min_available_after"] = self.random.choice((-5_000, 0, 1, 500, 20_000))
        elif chance < 0.09:
            command["metadata"] = {"invoice": str(self.count), "note": "naïve ✓"}
        elif chance < 0.12:
            command["reference"], command["description"] = f"ref-{self.count}", "a text"
        elif chance < 0.14:
            command["effective_at_ms"], command["external_id"] = 1_700_000_000_000, "x"
        elif chance < 0.16:
            command["id"] = command.pop("idempotency_key")
        elif chance < 0.18:
            command["id"] = "label"
        elif chance < 0.26:
            command["wallets_only"] = self.random.random() < 0.9
        return command

    def _remember(self, command: Body) -> None:
        self._recent.append(command)
        sent = Sent(command["account"], self._identity(command), command.get("amount", 0))
        if command["kind"] in MOVING or self.random.random() < 0.1:
            self._sent.append(sent)
        if command["kind"] == "hold":
            self._holds.append(sent)
        if self.random.random() < 0.02 and len(self._old_sent) < 500:
            self._old_sent.append(sent)
            if command["kind"] == "hold":
                self._old_holds.append(sent)

    # The kinds

    def _credit(self, now_ms: int) -> Body:
        return self._with_currency(self._new("credit", self._anyone().name, amount=self._amount(4)))

    def _debit(self, now_ms: int) -> Body:
        return self._with_currency(self._new("debit", self._anyone().name, amount=self._amount()))

    def _transfer(self, now_ms: int) -> Body:
        sender = self._anyone()
        to = self._partner(sender.currency)
        command = self._new("transfer", sender.name, to=to.name, amount=self._amount())
        return self._with_currency(command)

    def _post(self, now_ms: int) -> Body:
        size = self.random.choices((2, 3, 4, 8, 30, 100), (40, 25, 15, 12, 5, 1))[0]
        if size > 8 or self.random.random() < 0.1:
            people = self.random.sample(self._crowd, size)
        elif self.random.random() < 0.85:
            people = self.random.sample([k for k in self._pool if k.currency == "NGN"], size)
        else:
            people = self.random.sample(self._pool, size)
        names = [person.name for person in people]
        currency = people[0].currency
        if self.random.random() < 0.25:
            names[-1] = f"system:{self.random.choice(('funding', 'fees'))}:{currency}"
        entries = self._balanced(names)
        self.random.shuffle(entries)
        ordinary = [name for name in names if not ids.is_system(name)]
        return self._new("post", min(ordinary), currency=currency, entries=entries)

    def _balanced(self, names: list[str]) -> list[Body]:
        split = self.random.randint(1, len(names) - 1)
        debits = [self._amount() for _ in names[:split]]
        total, rest = sum(debits), len(names) - split
        if total < rest:
            debits[0] += rest - total
            total = rest
        shares = [total // rest] * rest
        shares[0] += total - sum(shares)
        entries = []
        for place, (name, amount) in enumerate(zip(names, debits + shares, strict=True)):
            direction = "debit" if place < split else "credit"
            entries.append({"account": name, "direction": direction, "amount": amount})
        return entries

    def _hold(self, now_ms: int) -> Body:
        command = self._new("hold", self._anyone().name, amount=self._amount())
        chance = self.random.random()
        if chance < 0.5:
            command["expires_at_ms"] = now_ms + self.random.choice((-1, 0, 1, 40, 300, 900, 4_000))
        return self._with_currency(command)

    def _capture(self, now_ms: int) -> Body:
        hold = self._some(self._holds, self._old_holds)
        command = self._new("capture", hold.account, hold_id=hold.identity)
        chance = self.random.random()
        if chance < 0.5:
            command["amount"] = self.random.randint(1, max(1, hold.amount))
        elif chance < 0.6:
            command["amount"] = min(hold.amount + 1, LARGEST)
        if self.random.random() < 0.7:
            command["to"] = self._partner("NGN").name
        if self.random.random() < 0.02:
            command["to"] = command["account"]
        return command

    def _void(self, now_ms: int) -> Body:
        hold = self._some(self._holds, self._old_holds)
        return self._new("void", hold.account, hold_id=hold.identity)

    def _reverse(self, now_ms: int) -> Body:
        original = self._some(self._sent, self._old_sent)
        return self._new("reverse", original.account, transaction_id=original.identity)

    def _set_limit(self, now_ms: int) -> Body:
        limit = self.random.choice((None, 0, 0, 1, -1_000, -50_000, -LARGEST))
        command = self._new("set_limit", self._anyone().name)
        if limit is not None:
            command["min_balance"] = limit
        return command

    def _change_account(self, now_ms: int) -> Body:
        command = self._set_limit(now_ms) | {"kind": "change_account"}
        if self.random.random() < 0.2:
            command["no_limit"] = self.random.random() < 0.8
        if self.random.random() < 0.7:
            names = self.random.sample(("name", "tier", "note"), self.random.randint(1, 3))
            texts = ("", "", f"text {self.count}", "naïve ✓")
            command["metadata"] = {name: self.random.choice(texts) for name in names}
        return command

    def _open_again(self, now_ms: int) -> Body:
        if self.random.random() < 0.5:
            account = self._anyone()
        else:
            self._names += 1
            account = KnownAccount(f"late:{self._names}", "wallet", "NGN")
        limit = self.random.choice((None, None, 0, -700, 5, -LARGEST))
        return self._opening(account, self.random.choice(OWNERS), limit)

    # Parts

    def _new(self, kind: str, account: str, **own: Any) -> Body:
        self._names += 1
        return {"kind": kind, "account": account, "idempotency_key": f"k{self._names}", **own}

    def _with_currency(self, command: Body) -> Body:
        if self.random.random() < 0.15:
            command["currency"] = self.random.choice(CURRENCIES + ("NGN",) * 20)
        return command

    def _amount(self, times: int = 1) -> int:
        chance = self.random.random()
        if chance < 0.06:
            return self.random.randint(1, 60)
        if chance < 0.985:
            return self.random.randint(1, 3_000) * times
        return self.random.choice((LARGEST, LARGEST - 1, LARGEST // 2, 2**52, 10**9))

    def _anyone(self) -> KnownAccount:
        chance = self.random.random()
        if chance < 0.9:
            return self._pool[self.random.randrange(POOL)]
        if chance < 0.97:
            return self.random.choice(self._crowd)
        return KnownAccount(f"nobody-{self.random.randrange(40)}", "wallet", "NGN")

    def _partner(self, currency: str) -> KnownAccount:
        """Someone with an account in the same currency, as a rule."""
        for _ in range(4):
            account = self._anyone()
            if account.currency == currency:
                break
        return account

    def _some(self, recent: deque[Sent], old: list[Sent]) -> Sent:
        chance = self.random.random()
        if recent and chance < 0.5:
            return recent[-1 - self.random.randrange(min(len(recent), 6))]
        if recent and chance < 0.9:
            return self.random.choice(recent)
        if old and chance < 0.97:
            return self.random.choice(old)
        account = self._anyone().name
        return Sent(account, str(ids.transaction_id(account, "never sent")), 1_000)

    def _newcomer(self) -> KnownAccount:
        self._names += 1
        style = self.random.choice(("w{}", "Wallet_{}", "u:{}:main", "0-{}", "z{}"))
        account = KnownAccount(
            style.format(self._names), self.random.choice(TYPES), self.random.choice(CURRENCIES)
        )
        limit = self.random.choice((None, None, None, 0, -2_000))
        self._ready.append(self._open(account, self.random.choice(OWNERS), limit))
        return account

    def _open(self, account: KnownAccount, owner: str | None, limit: int | None) -> Record:
        return self._record(self._opening(account, owner, limit))

    def _opening(self, account: KnownAccount, owner: str | None, limit: int | None) -> Body:
        command = self._new(
            "open_account", account.name, type=account.type, currency=account.currency
        )
        if owner is not None:
            command["owner"] = owner
        if limit is not None:
            command["min_balance"] = limit
        return command

    def _identity(self, command: Body) -> str:
        key = command.get("idempotency_key") or command["id"]
        only = command.get("wallets_only", False)
        return str(ids.transaction_id(command["account"], key, wallets_only=only))

    def _record(self, command: Body) -> Record:
        account = command["account"]
        partition = partitioning.partition_of(account, self.partitions)
        return Record(partition, account.encode(), json.dumps(command).encode())
