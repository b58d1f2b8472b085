"""A partition's books, kept again from its journal alone, doubting each record.

Every balance, version, sequence, reservation and hash is worked out again and compared with what
the record says; then the record's word is taken, so that one fault is reported once. It decides
nothing and shares no code with what does.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from msgspec import Struct

from schemas import commands, coordination, field_types, ids, journal
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry
from schemas.journal import (
    AccountChange,
    Entry,
    HoldChange,
    JournalRecord,
    PendingTransaction,
    Reservation,
)
from schemas.ledger_parameters import LedgerParameters
from schemas.reasons import Reason
from sinks.verify import expected_accounts
from sinks.verify.report import Differences

Status = Literal["pending", "posted", "rejected"]
# Account, direction, amount.
Triple = tuple[str, field_types.Direction, int]
Reserved = tuple[Triple, ...]

LARGEST: Final = 2**53 - 1
_RAISED_BY_DEBIT: Final = frozenset({"asset", "expense"})
_DECIDES: Final = frozenset({"posted", "rejected"})
_OWNS: Final = frozenset({"posted", "rejected", "pending"})
_STATUSES: Final[tuple[Status, ...]] = ("pending", "posted", "rejected")
_REASONS: Final[tuple[Reason | None, ...]] = (None, *Reason)
_BODY_BYTES, _DIGEST_BYTES = 16, 12
# How many that are due may come before one input; the rest come before the next one.
_DUE_AT_ONCE: Final = 1_000
# From each status of a hold those that may follow; None: it is placed.
_MAY_BECOME: Final[dict[str | None, frozenset[str]]] = {
    None: frozenset({"open"}),
    "open": frozenset({"capturing", "captured", "voided", "expired"}),
    "capturing": frozenset({"captured", "open", "expired"}),
}


class ReplayedAccount(Struct, gc=False):
    change: AccountChange
    opened_ms: int
    sequence: int
    raised_by_debit: bool
    balance: int = 0
    held: int = 0
    incoming: int = 0
    version: int = 0


class ReplayedShard(Struct, gc=False):
    balance: int
    version: int
    sequence: int


class ReplayedHold(Struct, gc=False):
    change: HoldChange
    sequence: int
    placed_ms: int
    changed_ms: int


class OpenTransaction(Struct, gc=False):
    """A transaction that waits for other partitions, at its coordinator."""

    pending: PendingTransaction
    reserved: Reserved
    record: JournalRecord


class OwnedTransaction(Struct, frozen=True, gc=False):
    """The outcome of a transaction id: what all later commands with its key must get."""

    status: Status
    reason: Reason | None
    body_hash: bytes
    # Of the entries that it posted, in all partitions.
    entries: bytes = b""

    def pack(self) -> bytes:
        """There are as many as there ever were commands: each is kept in few bytes."""
        head = bytes((_STATUSES.index(self.status), _REASONS.index(self.reason)))
        return head + self.body_hash + self.entries


class OwnedTransactions:
    """By the 16 bytes of a transaction id."""

    def __init__(self) -> None:
        self._packed: dict[bytes, bytes] = {}

    def __contains__(self, id: bytes) -> bool:
        return id in self._packed

    def __setitem__(self, id: bytes, owned: OwnedTransaction) -> None:
        self._packed[id] = owned.pack()

    def get(self, id: bytes) -> OwnedTransaction | None:
        packed = self._packed.get(id)
        if packed is None:
            return None
        body, entries = packed[2 : 2 + _BODY_BYTES], packed[2 + _BODY_BYTES :]
        return OwnedTransaction(_STATUSES[packed[0]], _REASONS[packed[1]], body, entries)


def digest_of(entries: Iterable[Triple]) -> bytes:
    return hashlib.blake2b(msgspec.json.encode(list(entries)), digest_size=_DIGEST_BYTES).digest()


class ReplayedBooks:
    def __init__(self, partition: int, differences: Differences) -> None:
        self.partition = partition
        self.hash: str | None = None
        self.last_offset = -1
        self.sequence = 0
        self.time_ms = 0
        self.ledger_id = ""
        self.partitions = 0
        self.settings: LedgerParameters | None = None
        self.settings_version = 0
        self.accounts: dict[str, ReplayedAccount] = {}
        self.shards: dict[str, ReplayedShard] = {}
        self.holds: dict[str, ReplayedHold] = {}
        self.open: dict[str, OpenTransaction] = {}
        # What a participant has reserved, until it is told what to do.
        self.prepared: dict[str, tuple[JournalRecord, Reserved]] = {}
        self.last_inputs = {"commands": -1, "coordination": -1}
        self.owned = OwnedTransactions()
        # After the last record that was no expiry: what comes due has the next input's time.
        self.input_time_ms = 0
        # What will come due: its time and its id; and what has, before the next input.
        self._due: list[tuple[int, str]] = []
        self._expired_ms: list[int] = []
        # Operators' decisions that counted before they were read, by offset in `coordination`.
        self.decided_ahead: dict[int, coordination.LogTime] = {}
        self._differences = differences
        self._offset = -1
        self._record: JournalRecord | None = None

    def note(self, what: str, account: str | None = None) -> None:
        record = self._record
        self._differences.note(
            "journal",
            what,
            partition=self.partition,
            offset=self._offset,
            sequence=None if record is None else record.sequence,
            account=account,
            transaction_id=None if record is None else record.transaction_id,
        )

    def _same(self, what: str, told: object, expected: object, account: str | None = None) -> None:
        if told != expected:
            self.note(f"{what} is {told}, by the records before it {expected}", account)

    def unreadable(self, offset: int, value: bytes, why: str) -> None:
        """A record that is none: its place in the chain is kept."""
        self._offset, self._record = offset, None
        self.note(f"cannot be read: {why}")
        self.hash = journal.hash_of(value)
        self.sequence += 1
        self.last_offset = offset

    def fold(self, offset: int, value: bytes, record: JournalRecord) -> None:
        self._offset, self._record = offset, record
        self._chain(record)
        self.hash, self.last_offset = hashlib.sha256(value).hexdigest(), offset
        self._source(record)
        self._time(record)
        self._identity(record)
        self._reservations(record)
        self._entries(record)
        if record.account is not None:
            self._account(record, record.account)
        if record.hold is not None:
            self._hold(record, record.hold)
        self._limits(record)
        self._settings(record)

    # The record itself

    def _settings(self, record: JournalRecord) -> None:
        configures = record.message if isinstance(record.message, coordination.Configure) else None
        if record.step == "configured" and configures is not None:
            self._same("settings", record.settings, configures.settings)
            self._same("genesis", record.genesis, configures.genesis)
        elif record.settings is not None or record.genesis is not None:
            self.note("changes settings without a configure message")
        if record.settings is not None:
            self.settings = record.settings
            self.settings_version += 1

    def _time(self, record: JournalRecord) -> None:
        """What is due comes before the input that brings the time, and has that time."""
        if record.source.topic == "expiry":
            self._expired_ms.append(record.time_ms)
            return
        for time_ms in self._expired_ms:
            if time_ms != record.time_ms:
                self.note(f"what came due before it is of {time_ms}, it is of {record.time_ms}")
                break
        if isinstance(record.message, coordination.LogTime):
            self._log_time(record, record.message)
        elif len(self._expired_ms) < _DUE_AT_ONCE:
            while self._due and self._due[0][0] <= record.time_ms:
                due_ms, id = heapq.heappop(self._due)
                if self._still_waits(due_ms, id):
                    self.note(f"{id} was due at {due_ms}, and nothing came of it")
        self._expired_ms.clear()
        self.input_time_ms = record.time_ms

    def _log_time(self, record: JournalRecord, message: coordination.LogTime) -> None:
        """An operator's decision lets no time pass. It may count before it is read in its place,
        and must be found there."""
        if self._expired_ms or record.time_ms != self.input_time_ms:
            self.note(f"lets time pass from {self.input_time_ms} to {record.time_ms}")
        source = record.source
        if source.topic == "operator":
            self.decided_ahead[source.offset] = message

    def _in_its_place(self, record: JournalRecord) -> None:
        """What an operator decided lies in `coordination` where the journal says."""
        for offset in [each for each in self.decided_ahead if each <= record.source.offset]:
            message = self.decided_ahead.pop(offset)
            if offset != record.source.offset or record.message != message:
                self.note(f"the decision on log times at {offset} of `coordination` is not there")

    def _still_waits(self, due_ms: int, id: str) -> bool:
        hold, waited = self.holds.get(id), self.open.get(id)
        if hold is not None and hold.change.status == "open":
            return hold.change.expires_at_ms == due_ms
        return waited is not None and waited.pending.deadline_ms == due_ms

    def _chain(self, record: JournalRecord) -> None:
        if record.genesis is not None and self.sequence == 0:
            self.ledger_id = record.genesis.ledger_id
            self.partitions = record.genesis.partitions
            self.hash = journal.genesis_hash(self.ledger_id, self.partition)
        elif (record.genesis is not None) or self.sequence == 0:
            self.note("the genesis is the first record, and no other")
        if self.hash is not None and record.previous_hash != self.hash:
            self.note(
                f"names {record.previous_hash} as the hash of the record before it (offset"
                f" {self.last_offset}), which is {self.hash}: one of the two was changed"
            )
        self._same("partition", record.partition, self.partition)
        self._same("sequence", record.sequence, self.sequence + 1)
        self._same("settings version", record.settings_version, self.settings_version)
        if record.time_ms < self.time_ms:
            self.note(f"time goes back from {self.time_ms} to {record.time_ms}")
        self.sequence, self.time_ms = record.sequence, record.time_ms

    def _source(self, record: JournalRecord) -> None:
        topic, offset = record.source.topic, record.source.offset
        last = self.last_inputs.get(topic)
        if last is None:
            return
        if offset <= last:
            self.note(f"answers {topic} {offset} after {last}: a second outcome, or out of order")
        self.last_inputs[topic] = max(last, offset)
        if topic == "coordination":
            self._in_its_place(record)

    def _identity(self, record: JournalRecord) -> None:
        """Each command that owns its transaction owns it alone; each pending one is decided
        once.
        """
        step = record.step
        if record.source.topic == "commands" and step in _OWNS:
            self._owner(record)
        elif record.command_offset is not None and step in _DECIDES:
            self._decision(record, record.transaction_id or "")
        elif step == "replayed":
            self._replay(record)
        elif step == "refused" and record.reason == Reason.IDEMPOTENCY_KEY_REUSED:
            self._reuse(record)
        if (step == "posted" and record.reason is not None) or (
            step in ("rejected", "refused", "declined") and record.reason is None
        ):
            self.note(f"is {step} with the reason {record.reason}")

    def _owner(self, record: JournalRecord) -> None:
        command, id = record.command, record.transaction_id
        if command is None or id is None:
            self.note(f"is {record.step} without its command")
            return
        self._same("id", id, commands.transaction_id(command))
        body = _body_hash(command)
        self._same("body hash", record.body_hash, body.hex())
        key = ids.to_key(id)
        if key in self.owned:
            self.note("owns a transaction that another command owned before")
        status: Status = record.step  # type: ignore[assignment]  # it is one of the three
        entries = digest_of((e.account, e.direction, e.amount) for e in record.entries)
        self.owned[key] = OwnedTransaction(
            status, record.reason, body, entries if record.entries else b""
        )

    def _replay(self, record: JournalRecord) -> None:
        """The first outcome again, for a command with the same body."""
        command = record.command
        if command is None:
            self.note("replays without its command")
            return
        id = commands.transaction_id(command)
        self._same("id", record.transaction_id, id)
        first = self.owned.get(ids.to_key(id))
        if first is None:
            self.note("replays what no command owns")
            return
        self._same("status of the first", record.first_status, first.status)
        self._same("reason of the first", record.reason, first.reason)
        self._same("body hash", record.body_hash, first.body_hash.hex())
        self._same("body hash of its own command", record.body_hash, _body_hash(command).hex())

    def _reuse(self, record: JournalRecord) -> None:
        command = record.command
        if command is None:
            self.note("refuses a key without its command")
            return
        id = commands.transaction_id(command)
        first = self.owned.get(ids.to_key(id))
        if first is None or first.body_hash == _body_hash(command):
            self.note("refuses a key as used again that no other command has used")

    def _decision(self, record: JournalRecord, id: str) -> None:
        waited = self.open.get(id)
        if waited is None:
            self.note("decides on what is not pending")
            return
        self._same("command's offset", record.command_offset, waited.record.source.offset)
        self._same("command", record.command, waited.record.command)
        self._same("body hash", record.body_hash, waited.record.body_hash)
        entries = b""
        if record.step == "posted":
            final = final_entries(waited.pending, record.fee)
            entries = digest_of((e.account, e.direction, e.amount) for e in final)
        self.owned[ids.to_key(id)] = OwnedTransaction(
            record.step,  # type: ignore[arg-type]  # posted or rejected
            record.reason,
            bytes.fromhex(waited.record.body_hash or ""),
            entries,
        )

    # Accounts

    def _reservations(self, record: JournalRecord) -> None:
        for sign, told in ((-1, record.released), (1, record.reserved)):
            for each in told:
                account = self.accounts.get(each.account)
                if account is None:
                    self.note("reserves on an account that was never opened", each.account)
                    continue
                if (each.direction == "debit") is account.raised_by_debit:
                    account.incoming += sign * each.amount
                else:
                    account.held += sign * each.amount
                self._same("held", each.held, account.held, each.account)
                self._same("incoming", each.incoming, account.incoming, each.account)
                account.held, account.incoming = each.held, each.incoming
                account.sequence = record.sequence
        self._kept(record)

    def _kept(self, record: JournalRecord) -> None:
        """What a transaction reserves, until its decision; what that releases is compared
        elsewhere.
        """
        id, step = record.transaction_id or "", record.step
        if step == "pending" and record.pending is not None:
            self.open[id] = OpenTransaction(record.pending, _reserved(record.reserved), record)
            heapq.heappush(self._due, (record.pending.deadline_ms, id))
        elif step == "answered" and record.pending is not None and id in self.open:
            self.open[id].pending = record.pending
        elif step == "prepared":
            self.prepared[id] = record, _reserved(record.reserved)
        elif step in ("committed", "aborted"):
            self.prepared.pop(id, None)
        elif record.command_offset is not None:
            self.open.pop(id, None)

    def _entries(self, record: JournalRecord) -> None:
        net = 0
        currencies = set()
        for entry in record.entries:
            net += entry.amount if entry.direction == "debit" else -entry.amount
            if entry.amount <= 0:
                self.note(f"an amount of {entry.amount}", entry.account)
            if isinstance(entry.balance, str):
                currencies.add(self._system(record, entry, entry.balance))
            else:
                currencies.add(self._ordinary(record, entry, entry.balance))
        if net:
            self.note(f"debits are {net} more than credits")
        if len(currencies) > 1:
            self.note(f"entries in several currencies: {sorted(map(str, currencies))}")

    def _ordinary(self, record: JournalRecord, entry: Entry, balance: int) -> str | None:
        account = self.accounts.get(entry.account)
        if account is None:
            self.note("an entry on an account that was never opened", entry.account)
            return None
        raised = (entry.direction == "debit") is account.raised_by_debit
        account.balance += entry.amount if raised else -entry.amount
        self._same("balance", balance, account.balance, entry.account)
        self._same("version", entry.version, account.version + 1, entry.account)
        self._same("held", entry.held, account.held, entry.account)
        self._same("incoming", entry.incoming, account.incoming, entry.account)
        account.balance, account.version = balance, entry.version
        account.held, account.incoming = entry.held, entry.incoming
        account.sequence = record.sequence
        return account.change.currency

    def _system(self, record: JournalRecord, entry: Entry, told: str) -> str | None:
        parts = entry.account.split(":")
        if len(parts) != 4 or parts[0] != "system" or parts[3] != str(self.partition):
            self.note("not a system account of this partition", entry.account)
            return None
        shard = self.shards.setdefault(entry.account, ReplayedShard(0, 0, 0))
        raised = (entry.direction == "debit") is (parts[1] == "funding")
        shard.balance += entry.amount if raised else -entry.amount
        self._same("balance", told, str(shard.balance), entry.account)
        self._same("version", entry.version, shard.version + 1, entry.account)
        try:
            shard.balance = int(told)
        except ValueError:
            self.note(f"a balance of {told!r}", entry.account)
        shard.version, shard.sequence = entry.version, record.sequence
        return parts[2]

    def _account(self, record: JournalRecord, change: AccountChange) -> None:
        account, command = self.accounts.get(change.id), record.command
        if account is None:
            if isinstance(command, commands.OpenAccount):
                self._same_account(change, expected_accounts.opened(command))
            else:
                self.note("changes an account that was never opened", change.id)
            raised = change.type in _RAISED_BY_DEBIT
            self.accounts[change.id] = ReplayedAccount(
                change, record.time_ms, record.sequence, raised
            )
            return
        before = account.change
        if isinstance(command, commands.OpenAccount):
            self.note("opens an account a second time", change.id)
        self._same_account(change, expected_accounts.changed(before, command))
        if before.status == "closed":
            self.note("changes an account that is closed", change.id)
        empty = not (account.balance or account.held or account.incoming)
        if change.status == "closed" and not empty:
            self.note("closes an account that is not empty", change.id)
        account.change, account.sequence = change, record.sequence

    def _same_account(self, told: AccountChange, expected: AccountChange) -> None:
        for name in expected_accounts.FIELDS:
            self._same(name, getattr(told, name), getattr(expected, name), told.id)

    def _hold(self, record: JournalRecord, change: HoldChange) -> None:
        hold = self.holds.get(change.id)
        before = None if hold is None else hold.change
        was = None if before is None else before.status
        if change.status not in _MAY_BECOME.get(was, ()):
            self.note(f"hold {change.id} becomes {change.status} after {was}", change.account)
        if before is not None:
            for name in ("account", "currency", "amount", "expires_at_ms"):
                what = f"{name} of hold {change.id}"
                self._same(what, getattr(change, name), getattr(before, name), change.account)
        if hold is None:
            self.holds[change.id] = ReplayedHold(
                change, record.sequence, record.time_ms, record.time_ms
            )
        else:
            hold.change, hold.sequence, hold.changed_ms = change, record.sequence, record.time_ms
        if change.status == "open":
            heapq.heappush(self._due, (change.expires_at_ms, change.id))

    def _limits(self, record: JournalRecord) -> None:
        """No account goes below its limit or out of bounds, and none has less than nothing held."""
        touched: list[str] = [entry.account for entry in record.entries]
        touched += [each.account for each in (*record.reserved, *record.released)]
        if record.account is not None:
            touched.append(record.account.id)
        for id in touched:
            account = self.accounts.get(id)
            if account is None:
                continue
            available, least = account.balance - account.held, account.change.min_balance
            if least is not None and available < least:
                self.note(f"{available} available, below the limit of {least}", id)
            if account.held < 0 or account.incoming < 0:
                self.note(f"{account.held} held and {account.incoming} incoming", id)
            if available < -LARGEST or account.balance + account.incoming > LARGEST:
                self.note(f"a balance of {account.balance} is out of bounds", id)

    # At the end

    def sums(self) -> dict[str, tuple[int, int, int]]:
        """By currency the debits, the credits, and debits less credits of transit."""
        debits: Counter[str] = Counter()
        credits: Counter[str] = Counter()
        transit: Counter[str] = Counter()
        for account in self.accounts.values():
            signed = account.balance if account.raised_by_debit else -account.balance
            (debits if signed > 0 else credits)[account.change.currency] += abs(signed)
        for name, shard in self.shards.items():
            _, role, currency, _ = name.split(":")
            signed = shard.balance if role == "funding" else -shard.balance
            (debits if signed > 0 else credits)[currency] += abs(signed)
            if role == "transit":
                transit[currency] += signed
        currencies = sorted({*debits, *credits})
        return {each: (debits[each], credits[each], transit[each]) for each in currencies}

    def finish(self) -> None:
        """What all records together must come to."""
        self._record = None
        self._offset = self.last_offset
        if self._expired_ms:
            self.note("ends with what came due, without the input that it came before")
        held: Counter[str] = Counter()
        incoming: Counter[str] = Counter()
        reserved = [waited.reserved for waited in self.open.values()]
        reserved += [kept for _, kept in self.prepared.values()]
        # A hold keeps room for a debit, whatever that does to the account.
        reserved += [
            ((hold.change.account, "debit", hold.change.amount),)
            for hold in self.holds.values()
            if hold.change.status in ("open", "capturing")
        ]
        for each in reserved:
            for id, direction, amount in each:
                account = self.accounts.get(id)
                if account is not None:
                    raised = (direction == "debit") is account.raised_by_debit
                    (incoming if raised else held)[id] += amount
        for id, account in self.accounts.items():
            for what, told, kept in (
                ("held", account.held, held[id]),
                ("incoming", account.incoming, incoming[id]),
            ):
                if told != kept:
                    self.note(f"{told} {what}, but holds and transactions keep {kept}", id)
        for currency, (debits, credits, _) in self.sums().items():
            if debits != credits:
                self._differences.note(
                    "books",
                    f"{currency}: debits are {debits}, credits {credits}",
                    partition=self.partition,
                )


def final_entries(pending: PendingTransaction, fee: int) -> tuple[CoordinatedEntry, ...]:
    """As decided: those that were planned, less a commission that is not due."""
    if pending.fee and not fee:
        return without_fee(pending.entries, pending.fee)
    return pending.entries


def without_fee(entries: tuple[CoordinatedEntry, ...], fee: int) -> tuple[CoordinatedEntry, ...]:
    """The sender, who comes first, pays the amount alone; the entry of the fee is not there."""
    sender, *rest = entries
    bare = CoordinatedEntry(sender.index, sender.account, sender.direction, sender.amount - fee)
    return (bare, *(entry for entry in rest if not ids.is_system(entry.account)))


def _body_hash(command: Command) -> bytes:
    return hashlib.sha256(commands.body(command)).digest()[:_BODY_BYTES]


def _reserved(told: tuple[Reservation, ...]) -> Reserved:
    return tuple((each.account, each.direction, each.amount) for each in told)
