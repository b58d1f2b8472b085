"""A partition's books, replayed by the independent audit from the journal alone.

It decodes the wire format with the standard library, and checks each record. It notes a difference
and never raises, so that one run reports everything. It must not know the product's types or rules.
"""

import hashlib
import json
from collections import Counter, defaultdict
from typing import Any

DEBIT_NORMAL_TYPES = frozenset({"asset", "expense"})
MAX_AMOUNT = 2**53 - 1
STEPS_OF_COMMANDS = frozenset({"posted", "rejected", "refused", "replayed", "pending"})


class AuditDifferences:
    """The differences that the audit found: the first in words, all counted."""

    MAX_LINES = 40

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def note(self, line: str) -> None:
        self.count += 1
        if len(self.lines) < self.MAX_LINES:
            self.lines.append(line)

    def same(self, where: str, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.note(f"{where}: {what} is {found!r}, expected {expected!r}")


class AuditedAccount:
    """An account as its partition's journal has it."""

    def __init__(self, change: dict[str, Any]) -> None:
        self.type: str = change["type"]
        self.currency: str = change["currency"]
        self.status = ""
        self.owner: str | None = None
        self.min_balance: int | None = None
        self.metadata: dict[str, str] = {}
        self.balance = self.held = self.incoming = self.version = 0
        self.change(change)

    def change(self, change: dict[str, Any]) -> None:
        self.status = change["status"]
        self.owner = change.get("owner")
        self.min_balance = change.get("min_balance")
        self.metadata = change.get("metadata", {})

    def raises_balance(self, direction: str) -> bool:
        return (self.type in DEBIT_NORMAL_TYPES) == (direction == "debit")


class AuditedOutcome:
    """The parts of a command's journal record that the audit compares with the command."""

    __slots__ = ("digest", "fee", "first_status", "reason", "step", "transaction")

    def __init__(self, record: dict[str, Any]) -> None:
        self.step: str = record["step"]
        self.reason: str | None = record.get("reason")
        self.transaction: str | None = record.get("transaction_id")
        self.first_status: str | None = record.get("first_status")
        self.fee: int = record.get("fee", 0)
        self.digest: str | None = record.get("digest")


class AuditedBooks:
    def __init__(self, partition: int, differences: AuditDifferences) -> None:
        self.partition = partition
        self.hash: str | None = None
        self.sequence = 0
        self.time_ms = 0
        self.accounts: dict[str, AuditedAccount] = {}
        # The balance on its normal side, and the version, of each shard.
        self.shards: dict[str, tuple[int, int]] = {}
        self.holds: dict[str, str] = {}
        # By offset: the record of each command, the later decision on it, the message's digest.
        self.outcomes: dict[int, AuditedOutcome] = {}
        self.decisions: dict[int, AuditedOutcome] = {}
        self.messages: dict[int, str | None] = {}
        self.undecided: dict[int, str] = {}
        self.prepared: dict[str, int] = {}
        # The entries of ordinary accounts, as `transactions` must publish them.
        self.entries: list[tuple[Any, ...]] = []
        # By transaction: the debits less credits of transit, which is money in flight.
        self.transit: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.steps: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._net: Counter[str] = Counter()
        self._differences = differences

    def fold(self, offset: int, value: bytes) -> None:
        record = json.loads(value)
        where = f"journal {self.partition}:{offset}"
        same = self._differences.same
        if self.hash is None:
            self._genesis(where, record)
        same(where, "previous_hash", record.get("previous_hash"), self.hash)
        self.hash = hashlib.sha256(value).hexdigest()
        self.sequence += 1
        same(where, "sequence", record["sequence"], self.sequence)
        same(where, "partition", record["partition"], self.partition)
        if record["time_ms"] < self.time_ms:
            self._differences.note(f"{where}: time goes back")
        self.time_ms = record["time_ms"]
        self.steps[record["step"]] += 1
        self._source(where, record)
        self._decision(where, record)
        self._movements(where, record)

    def _genesis(self, where: str, record: dict[str, Any]) -> None:
        ledger = record.get("genesis", {}).get("ledger_id")
        self.hash = hashlib.sha256(f"{ledger}:{self.partition}".encode()).hexdigest()
        self._differences.same(where, "source", record["source"], {"topic": "genesis"})

    def _source(self, where: str, record: dict[str, Any]) -> None:
        """Each input has one record, in order."""
        topic, offset = record["source"]["topic"], record["source"].get("offset", -1)
        step = record["step"]
        if topic == "commands":
            if offset in self.outcomes:
                self._differences.note(f"{where}: command {offset} has a second outcome, {step}")
            elif self.outcomes and offset < next(reversed(self.outcomes)):
                self._differences.note(f"{where}: command {offset} has its outcome out of order")
            if step not in STEPS_OF_COMMANDS:
                self._differences.note(f"{where}: a command's step is {step}")
            outcome = self.outcomes[offset] = AuditedOutcome(record)
            self.reasons[outcome.reason or outcome.step] += 1
            if step == "pending":
                self.undecided[offset] = record["transaction_id"]
        elif topic == "coordination":
            if offset in self.messages:
                self._differences.note(f"{where}: message {offset} has a second outcome, {step}")
            elif self.messages and offset < next(reversed(self.messages)):
                self._differences.note(f"{where}: message {offset} has its outcome out of order")
            self.messages[offset] = record.get("digest")
            if step in ("duplicate", "refused"):
                self._differences.note(f"{where}: a message's step is {step}")
        elif topic == "genesis" and self.sequence > 1:
            self._differences.note(f"{where}: a second genesis")

    def _decision(self, where: str, record: dict[str, Any]) -> None:
        """A pending command is decided once, by a later record."""
        offset, step = record.get("command_offset"), record["step"]
        transaction = record.get("transaction_id", "")
        if offset is not None:
            if self.undecided.pop(offset, None) != transaction:
                self._differences.note(f"{where}: command {offset} was not pending")
            if step not in ("posted", "rejected"):
                self._differences.note(f"{where}: a decision is {step}")
            decision = self.decisions[offset] = AuditedOutcome(record)
            self.reasons[f"{decision.reason or decision.step}, later"] += 1
        if step == "prepared":
            self.prepared[transaction] = record["sequence"]
        elif step in ("committed", "aborted") and self.prepared.pop(transaction, None) is None:
            self._differences.note(f"{where}: {transaction} is {step}, but was not prepared")
        hold = record.get("hold")
        if hold is not None:
            before = self.holds.get(hold["id"], "open")
            if before in ("captured", "voided", "expired"):
                self._differences.note(f"{where}: hold {hold['id']} was {before} before")
            self.holds[hold["id"]] = hold["status"]

    def _movements(self, where: str, record: dict[str, Any]) -> None:
        change = record.get("account")
        if change is not None:
            if change["id"] in self.accounts:
                self.accounts[change["id"]].change(change)
            else:
                self.accounts[change["id"]] = AuditedAccount(change)
        for sign, name in ((-1, "released"), (1, "reserved")):
            for reservation in record.get(name, ()):
                self._reserve(where, reservation, sign)
        net = 0
        for entry in record.get("entries", ()):
            net += entry["amount"] if entry["direction"] == "debit" else -entry["amount"]
            if entry["account"].startswith("system:"):
                self._post_system(where, entry, record["transaction_id"])
            else:
                self._post(where, entry, record)
        self._differences.same(where, "debits less credits", net, 0)
        unbalanced = {currency: total for currency, total in self._net.items() if total}
        self._differences.same(where, "books by balances", unbalanced, {})

    def _account(self, where: str, id: str) -> AuditedAccount | None:
        account = self.accounts.get(id)
        if account is None:
            self._differences.note(f"{where}: {id} was never opened")
        return account

    def _reserve(self, where: str, reservation: dict[str, Any], sign: int) -> None:
        account = self._account(where, reservation["account"])
        if account is None:
            return
        if account.raises_balance(reservation["direction"]):
            account.incoming += sign * reservation["amount"]
        else:
            account.held += sign * reservation["amount"]
        self._totals(where, account, reservation)
        if sign > 0:
            self._limit(where, reservation["account"], account)

    def _post(self, where: str, entry: dict[str, Any], record: dict[str, Any]) -> None:
        account = self._account(where, entry["account"])
        if account is None:
            return
        raises = account.raises_balance(entry["direction"])
        before = account.balance
        account.balance += entry["amount"] if raises else -entry["amount"]
        account.version += 1
        id = entry["account"]
        self._differences.same(where, f"balance of {id}", entry["balance"], account.balance)
        self._differences.same(where, f"version of {id}", entry["version"], account.version)
        self._totals(where, account, entry)
        if not raises:
            self._limit(where, id, account)
        if not -MAX_AMOUNT <= account.balance <= MAX_AMOUNT:
            self._differences.note(f"{where}: {id} has a balance of {account.balance}")
        side = 1 if account.type in DEBIT_NORMAL_TYPES else -1
        self._net[account.currency] += side * (entry["balance"] - before)
        self.entries.append(
            (
                record["sequence"],
                record["transaction_id"],
                id,
                entry["direction"],
                entry["amount"],
                entry["balance"],
                entry["version"],
                entry.get("held", 0),
                entry["balance"] - entry.get("held", 0),
                account.currency,
                account.owner,
            )
        )

    def _post_system(self, where: str, entry: dict[str, Any], transaction: str) -> None:
        shard = entry["account"]
        _, role, currency, partition = shard.split(":")
        self._differences.same(where, f"partition of {shard}", partition, str(self.partition))
        balance, version = self.shards.get(shard, (0, 0))
        raises = (role == "funding") == (entry["direction"] == "debit")
        new_balance = balance + (entry["amount"] if raises else -entry["amount"])
        self.shards[shard] = new_balance, version + 1
        self._differences.same(where, f"balance of {shard}", entry["balance"], str(new_balance))
        self._differences.same(where, f"version of {shard}", entry["version"], version + 1)
        self._net[currency] += (int(entry["balance"]) - balance) * (1 if role == "funding" else -1)
        if role == "transit":
            signed = entry["amount"] if entry["direction"] == "debit" else -entry["amount"]
            self.transit[transaction, currency] += signed

    def _totals(self, where: str, account: AuditedAccount, amounts: dict[str, Any]) -> None:
        recorded = amounts.get("held", 0), amounts.get("incoming", 0)
        expected = account.held, account.incoming
        self._differences.same(where, f"held, incoming of {amounts['account']}", recorded, expected)
        if account.held < 0 or account.incoming < 0:
            self._differences.note(f"{where}: {amounts['account']} has {expected} reserved")

    def _limit(self, where: str, id: str, account: AuditedAccount) -> None:
        limit = account.min_balance
        if limit is None and account.type == "wallet":
            limit = 0
        if limit is not None and account.balance - account.held < limit:
            self._differences.note(
                f"{where}: {id} has {account.balance} less {account.held} held, below {limit}"
            )
