"""A partition's books, kept by somebody else: folded from its journal alone, doubting each record.

Knows the wire, not the program: JSON by the standard library, no type and no rule of ours. What
does not add up is noted, never raised, so that one run tells all that is wrong.
"""

import hashlib
import json
from collections import Counter, defaultdict
from typing import Any

RAISED_BY_DEBIT = frozenset({"asset", "expense"})
LARGEST = 2**53 - 1
STEPS_OF_COMMANDS = frozenset({"posted", "rejected", "refused", "replayed", "pending"})


class AuditDifferences:
    """What was found to be wrong: the first of it in words, all of it counted."""

    KEPT = 40

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.count = 0

    def note(self, line: str) -> None:
        self.count += 1
        if len(self.lines) < self.KEPT:
            self.lines.append(line)

    def same(self, where: str, what: str, found: object, expected: object) -> None:
        if found != expected:
            self.note(f"{where}: {what} is {found!r}, expected {expected!r}")


class AuditedAccount:
    """As its partition's journal tells it."""

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

    def raised_by(self, direction: str) -> bool:
        return (self.type in RAISED_BY_DEBIT) == (direction == "debit")


class AuditedOutcome:
    """What is kept of a journal record about a command, to be compared with the command itself."""

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
        # Balance, on the side that raises it, and version of each shard.
        self.shards: dict[str, tuple[int, int]] = {}
        self.holds: dict[str, str] = {}
        # By offset: the record of each command, the later decision on it, the message's digest.
        self.told: dict[int, AuditedOutcome] = {}
        self.decided: dict[int, AuditedOutcome] = {}
        self.messages: dict[int, str | None] = {}
        self.undecided: dict[int, str] = {}
        self.prepared: dict[str, int] = {}
        # What `transactions` must tell, and what it tells, of each ordinary account's entry.
        self.entries: list[tuple[Any, ...]] = []
        # Debits less credits of transit, by transaction: what is on its way to other partitions.
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
        """Each position is answered once."""
        topic, offset = record["source"]["topic"], record["source"].get("offset", -1)
        step = record["step"]
        if topic == "commands":
            if offset in self.told:
                self._differences.note(f"{where}: command {offset} is answered again, by {step}")
            elif self.told and offset < next(reversed(self.told)):
                self._differences.note(f"{where}: command {offset} is answered out of order")
            if step not in STEPS_OF_COMMANDS:
                self._differences.note(f"{where}: a command's step is {step}")
            told = self.told[offset] = AuditedOutcome(record)
            self.reasons[told.reason or told.step] += 1
            if step == "pending":
                self.undecided[offset] = record["transaction_id"]
        elif topic == "coordination":
            if offset in self.messages:
                self._differences.note(f"{where}: message {offset} is answered again, by {step}")
            elif self.messages and offset < next(reversed(self.messages)):
                self._differences.note(f"{where}: message {offset} is answered out of order")
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
            decided = self.decided[offset] = AuditedOutcome(record)
            self.reasons[f"{decided.reason or decided.step}, later"] += 1
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
        off = {currency: total for currency, total in self._net.items() if total}
        self._differences.same(where, "books by balances", off, {})

    def _account(self, where: str, id: str) -> AuditedAccount | None:
        account = self.accounts.get(id)
        if account is None:
            self._differences.note(f"{where}: {id} was never opened")
        return account

    def _reserve(self, where: str, told: dict[str, Any], sign: int) -> None:
        account = self._account(where, told["account"])
        if account is None:
            return
        if account.raised_by(told["direction"]):
            account.incoming += sign * told["amount"]
        else:
            account.held += sign * told["amount"]
        self._totals(where, account, told)
        if sign > 0:
            self._limit(where, told["account"], account)

    def _post(self, where: str, entry: dict[str, Any], record: dict[str, Any]) -> None:
        account = self._account(where, entry["account"])
        if account is None:
            return
        raised = account.raised_by(entry["direction"])
        before = account.balance
        account.balance += entry["amount"] if raised else -entry["amount"]
        account.version += 1
        id = entry["account"]
        self._differences.same(where, f"balance of {id}", entry["balance"], account.balance)
        self._differences.same(where, f"version of {id}", entry["version"], account.version)
        self._totals(where, account, entry)
        if not raised:
            self._limit(where, id, account)
        if not -LARGEST <= account.balance <= LARGEST:
            self._differences.note(f"{where}: {id} has a balance of {account.balance}")
        side = 1 if account.type in RAISED_BY_DEBIT else -1
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
        raised = (role == "funding") == (entry["direction"] == "debit")
        now = balance + (entry["amount"] if raised else -entry["amount"])
        self.shards[shard] = now, version + 1
        self._differences.same(where, f"balance of {shard}", entry["balance"], str(now))
        self._differences.same(where, f"version of {shard}", entry["version"], version + 1)
        self._net[currency] += (int(entry["balance"]) - balance) * (1 if role == "funding" else -1)
        if role == "transit":
            signed = entry["amount"] if entry["direction"] == "debit" else -entry["amount"]
            self.transit[transaction, currency] += signed

    def _totals(self, where: str, account: AuditedAccount, told: dict[str, Any]) -> None:
        found = told.get("held", 0), told.get("incoming", 0)
        expected = account.held, account.incoming
        self._differences.same(where, f"held, incoming of {told['account']}", found, expected)
        if account.held < 0 or account.incoming < 0:
            self._differences.note(f"{where}: {told['account']} has {expected} reserved")

    def _limit(self, where: str, id: str, account: AuditedAccount) -> None:
        limit = account.min_balance
        if limit is None and account.type == "wallet":
            limit = 0
        if limit is not None and account.balance - account.held < limit:
            self._differences.note(
                f"{where}: {id} has {account.balance} less {account.held} held, below {limit}"
            )
