"""A partition's books, replayed from its journal alone.

It derives each balance, version, sequence, reservation and hash again and compares it with the
record. Then it continues from the record's value, so that one fault is reported once. It decides
nothing, and must not know the code that does.
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
EntryTriple = tuple[str, field_types.Direction, int]
Reserved = tuple[EntryTriple, ...]

MAX_AMOUNT: Final = 2**53 - 1
_DEBIT_NORMAL_TYPES: Final = frozenset({"asset", "expense"})
_DECIDING_STEPS: Final = frozenset({"posted", "rejected"})
_OWNING_STEPS: Final = frozenset({"posted", "rejected", "pending"})
_STATUSES: Final[tuple[Status, ...]] = ("pending", "posted", "rejected")
_REASONS: Final[tuple[Reason | None, ...]] = (None, *Reason)
_BODY_BYTES, _DIGEST_BYTES = 16, 12
# At most this many expiries precede one input; the others precede the next input.
_MAX_EXPIRIES_PER_INPUT: Final = 1_000
# The statuses that may follow each status of a hold; None: it does not exist yet.
_HOLD_TRANSITIONS: Final[dict[str | None, frozenset[str]]] = {
    None: frozenset({"open"}),
    "open": frozenset({"capturing", "captured", "voided", "expired"}),
    "capturing": frozenset({"captured", "open", "expired"}),
}


class ReplayedAccount(Struct, gc=False):
    change: AccountChange
    opened_ms: int
    sequence: int
    debit_normal: bool
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
    """A pending transaction at its coordinator."""

    pending: PendingTransaction
    reserved: Reserved
    record: JournalRecord


class OwnedTransaction(Struct, frozen=True, gc=False):
    """The outcome of a transaction id. Each later command with its key must get the same."""

    status: Status
    reason: Reason | None
    body_hash: bytes
    # A digest of the entries that it posted in all partitions.
    entries: bytes = b""

    def pack(self) -> bytes:
        """A compact form, because there is one for each command in the ledger's history."""
        head = bytes((_STATUSES.index(self.status), _REASONS.index(self.reason)))
        return head + self.body_hash + self.entries


class OwnedTransactions:
    """Outcomes by the 16 bytes of the transaction id."""

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


def entries_digest(entries: Iterable[EntryTriple]) -> bytes:
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
        # What this participant has reserved, until the coordinator decides.
        self.prepared: dict[str, tuple[JournalRecord, Reserved]] = {}
        self.last_inputs = {"commands": -1, "coordination": -1}
        self.owned = OwnedTransactions()
        # The time of the last record that is not an expiry. An expiry has the next input's time.
        self.input_time_ms = 0
        # Expiry times and ids still to come, and the times of expiries since the last input.
        self._due: list[tuple[int, str]] = []
        self._expired_ms: list[int] = []
        # Log-time decisions that took effect before they were read, by offset in `coordination`.
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

    def _expect_equal(
        self, what: str, value: object, expected: object, account: str | None = None
    ) -> None:
        if value != expected:
            self.note(f"{what} is {value}, expected {expected}", account)

    def skip_undecodable(self, offset: int, value: bytes, error: str) -> None:
        """Counts a record that cannot be decoded, and continues the hash chain after it."""
        self._offset, self._record = offset, None
        self.note(f"cannot be decoded: {error}")
        self.hash = journal.hash_of(value)
        self.sequence += 1
        self.last_offset = offset

    def fold(self, offset: int, value: bytes, record: JournalRecord) -> None:
        self._offset, self._record = offset, record
        self._check_chain(record)
        self.hash, self.last_offset = hashlib.sha256(value).hexdigest(), offset
        self._check_source(record)
        self._check_time(record)
        self._check_identity(record)
        self._reservations(record)
        self._entries(record)
        if record.account is not None:
            self._account(record, record.account)
        if record.hold is not None:
            self._hold(record, record.hold)
        self._check_limits(record)
        self._check_settings(record)

    # The record itself

    def _check_settings(self, record: JournalRecord) -> None:
        configures = record.message if isinstance(record.message, coordination.Configure) else None
        if record.step == "configured" and configures is not None:
            self._expect_equal("settings", record.settings, configures.settings)
            self._expect_equal("genesis", record.genesis, configures.genesis)
        elif record.settings is not None or record.genesis is not None:
            self.note("changes settings without a configure message")
        if record.settings is not None:
            self.settings = record.settings
            self.settings_version += 1

    def _check_time(self, record: JournalRecord) -> None:
        """An expiry precedes the input whose time causes it, and has that input's time."""
        if record.source.topic == "expiry":
            self._expired_ms.append(record.time_ms)
            return
        for time_ms in self._expired_ms:
            if time_ms != record.time_ms:
                self.note(f"has time {record.time_ms}, but an expiry before it has {time_ms}")
                break
        if isinstance(record.message, coordination.LogTime):
            self._check_log_time(record, record.message)
        elif len(self._expired_ms) < _MAX_EXPIRIES_PER_INPUT:
            while self._due and self._due[0][0] <= record.time_ms:
                due_ms, id = heapq.heappop(self._due)
                if self._is_due(due_ms, id):
                    self.note(f"{id} was due at {due_ms}, but did not expire")
        self._expired_ms.clear()
        self.input_time_ms = record.time_ms

    def _check_log_time(self, record: JournalRecord, message: coordination.LogTime) -> None:
        """A log-time decision does not move time. It may take effect before the processor reads it
        from `coordination`, and must be there."""
        if self._expired_ms or record.time_ms != self.input_time_ms:
            self.note(f"moves time from {self.input_time_ms} to {record.time_ms}")
        source = record.source
        if source.topic == "operator":
            self.decided_ahead[source.offset] = message

    def _check_decisions_read(self, record: JournalRecord) -> None:
        """Log-time decisions must be in `coordination` at the offset that the journal names."""
        for offset in [key for key in self.decided_ahead if key <= record.source.offset]:
            message = self.decided_ahead.pop(offset)
            if offset != record.source.offset or record.message != message:
                self.note(f"no log-time decision at offset {offset} of `coordination`")

    def _is_due(self, due_ms: int, id: str) -> bool:
        hold, open_transaction = self.holds.get(id), self.open.get(id)
        if hold is not None and hold.change.status == "open":
            return hold.change.expires_at_ms == due_ms
        return open_transaction is not None and open_transaction.pending.deadline_ms == due_ms

    def _check_chain(self, record: JournalRecord) -> None:
        if record.genesis is not None and self.sequence == 0:
            self.ledger_id = record.genesis.ledger_id
            self.partitions = record.genesis.partitions
            self.hash = journal.genesis_hash(self.ledger_id, self.partition)
        elif (record.genesis is not None) or self.sequence == 0:
            self.note("the genesis must be the first record, and only the first")
        if self.hash is not None and record.previous_hash != self.hash:
            self.note(
                f"previous_hash is {record.previous_hash}, but the record before it (offset"
                f" {self.last_offset}) has the hash {self.hash}: one of the two was changed"
            )
        self._expect_equal("partition", record.partition, self.partition)
        self._expect_equal("sequence", record.sequence, self.sequence + 1)
        self._expect_equal("settings version", record.settings_version, self.settings_version)
        if record.time_ms < self.time_ms:
            self.note(f"time goes back from {self.time_ms} to {record.time_ms}")
        self.sequence, self.time_ms = record.sequence, record.time_ms

    def _check_source(self, record: JournalRecord) -> None:
        topic, offset = record.source.topic, record.source.offset
        last = self.last_inputs.get(topic)
        if last is None:
            return
        if offset <= last:
            self.note(f"answers {topic} {offset} after {last}: a second outcome, or out of order")
        self.last_inputs[topic] = max(last, offset)
        if topic == "coordination":
            self._check_decisions_read(record)

    def _check_identity(self, record: JournalRecord) -> None:
        """One command owns each transaction id, and each pending transaction is decided once."""
        step = record.step
        if record.source.topic == "commands" and step in _OWNING_STEPS:
            self._own_id(record)
        elif record.command_offset is not None and step in _DECIDING_STEPS:
            self._decide_open(record, record.transaction_id or "")
        elif step == "replayed":
            self._check_replay(record)
        elif step == "refused" and record.reason == Reason.IDEMPOTENCY_KEY_REUSED:
            self._check_reuse(record)
        if (step == "posted" and record.reason is not None) or (
            step in ("rejected", "refused", "declined") and record.reason is None
        ):
            self.note(f"is {step} with reason {record.reason}")

    def _own_id(self, record: JournalRecord) -> None:
        command, id = record.command, record.transaction_id
        if command is None or id is None:
            self.note(f"is {record.step} without its command")
            return
        self._expect_equal("id", id, commands.transaction_id(command))
        body = _body_hash(command)
        self._expect_equal("body hash", record.body_hash, body.hex())
        key = ids.to_key(id)
        if key in self.owned:
            self.note("owns a transaction id that another command already owns")
        status: Status = record.step  # type: ignore[assignment]  # it is one of the three
        entries = entries_digest((e.account, e.direction, e.amount) for e in record.entries)
        self.owned[key] = OwnedTransaction(
            status, record.reason, body, entries if record.entries else b""
        )

    def _check_replay(self, record: JournalRecord) -> None:
        """A replay repeats the first outcome, for a command with the same body."""
        command = record.command
        if command is None:
            self.note("replays without its command")
            return
        id = commands.transaction_id(command)
        self._expect_equal("id", record.transaction_id, id)
        first_outcome = self.owned.get(ids.to_key(id))
        if first_outcome is None:
            self.note("replays a transaction id that no command owns")
            return
        self._expect_equal("status of the first outcome", record.first_status, first_outcome.status)
        self._expect_equal("reason of the first outcome", record.reason, first_outcome.reason)
        self._expect_equal("body hash", record.body_hash, first_outcome.body_hash.hex())
        self._expect_equal(
            "body hash of its own command", record.body_hash, _body_hash(command).hex()
        )

    def _check_reuse(self, record: JournalRecord) -> None:
        command = record.command
        if command is None:
            self.note("refuses an idempotency key without its command")
            return
        id = commands.transaction_id(command)
        first_outcome = self.owned.get(ids.to_key(id))
        if first_outcome is None or first_outcome.body_hash == _body_hash(command):
            self.note("refuses an idempotency key as reused, but no other command used it")

    def _decide_open(self, record: JournalRecord, id: str) -> None:
        open_transaction = self.open.get(id)
        if open_transaction is None:
            self.note("decides a transaction that is not pending")
            return
        self._expect_equal(
            "command's offset", record.command_offset, open_transaction.record.source.offset
        )
        self._expect_equal("command", record.command, open_transaction.record.command)
        self._expect_equal("body hash", record.body_hash, open_transaction.record.body_hash)
        entries = b""
        if record.step == "posted":
            final = final_entries(open_transaction.pending, record.fee)
            entries = entries_digest((e.account, e.direction, e.amount) for e in final)
        self.owned[ids.to_key(id)] = OwnedTransaction(
            record.step,  # type: ignore[arg-type]  # posted or rejected
            record.reason,
            bytes.fromhex(open_transaction.record.body_hash or ""),
            entries,
        )

    # Accounts

    def _reservations(self, record: JournalRecord) -> None:
        for sign, reservations in ((-1, record.released), (1, record.reserved)):
            for reservation in reservations:
                account = self.accounts.get(reservation.account)
                if account is None:
                    self.note("reserves on an account that was never opened", reservation.account)
                    continue
                if (reservation.direction == "debit") is account.debit_normal:
                    account.incoming += sign * reservation.amount
                else:
                    account.held += sign * reservation.amount
                self._expect_equal("held", reservation.held, account.held, reservation.account)
                self._expect_equal(
                    "incoming", reservation.incoming, account.incoming, reservation.account
                )
                account.held, account.incoming = reservation.held, reservation.incoming
                account.sequence = record.sequence
        self._keep_reservations(record)

    def _keep_reservations(self, record: JournalRecord) -> None:
        """Remembers what a transaction reserves until it is decided. `expected_effects` compares
        what the decision releases."""
        id, step = record.transaction_id or "", record.step
        if step == "pending" and record.pending is not None:
            self.open[id] = OpenTransaction(
                record.pending, _reserved_triples(record.reserved), record
            )
            heapq.heappush(self._due, (record.pending.deadline_ms, id))
        elif step == "answered" and record.pending is not None and id in self.open:
            self.open[id].pending = record.pending
        elif step == "prepared":
            self.prepared[id] = record, _reserved_triples(record.reserved)
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
                self.note(f"amount {entry.amount} is not positive", entry.account)
            if isinstance(entry.balance, str):
                currencies.add(self._system(record, entry, entry.balance))
            else:
                currencies.add(self._ordinary(record, entry, entry.balance))
        if net:
            self.note(f"debits exceed credits by {net}")
        if len(currencies) > 1:
            self.note(f"entries in several currencies: {sorted(map(str, currencies))}")

    def _ordinary(self, record: JournalRecord, entry: Entry, balance: int) -> str | None:
        account = self.accounts.get(entry.account)
        if account is None:
            self.note("posts to an account that was never opened", entry.account)
            return None
        raises = (entry.direction == "debit") is account.debit_normal
        account.balance += entry.amount if raises else -entry.amount
        self._expect_equal("balance", balance, account.balance, entry.account)
        self._expect_equal("version", entry.version, account.version + 1, entry.account)
        self._expect_equal("held", entry.held, account.held, entry.account)
        self._expect_equal("incoming", entry.incoming, account.incoming, entry.account)
        account.balance, account.version = balance, entry.version
        account.held, account.incoming = entry.held, entry.incoming
        account.sequence = record.sequence
        return account.change.currency

    def _system(self, record: JournalRecord, entry: Entry, balance: str) -> str | None:
        parts = entry.account.split(":")
        if len(parts) != 4 or parts[0] != "system" or parts[3] != str(self.partition):
            self.note("not a system account of this partition", entry.account)
            return None
        shard = self.shards.setdefault(entry.account, ReplayedShard(0, 0, 0))
        raises = (entry.direction == "debit") is (parts[1] == "funding")
        shard.balance += entry.amount if raises else -entry.amount
        self._expect_equal("balance", balance, str(shard.balance), entry.account)
        self._expect_equal("version", entry.version, shard.version + 1, entry.account)
        try:
            shard.balance = int(balance)
        except ValueError:
            self.note(f"balance {balance!r} is not a number", entry.account)
        shard.version, shard.sequence = entry.version, record.sequence
        return parts[2]

    def _account(self, record: JournalRecord, change: AccountChange) -> None:
        account, command = self.accounts.get(change.id), record.command
        if account is None:
            if isinstance(command, commands.OpenAccount):
                self._expect_account(change, expected_accounts.opened(command))
            else:
                self.note("changes an account that was never opened", change.id)
            raises = change.type in _DEBIT_NORMAL_TYPES
            self.accounts[change.id] = ReplayedAccount(
                change, record.time_ms, record.sequence, raises
            )
            return
        before = account.change
        if isinstance(command, commands.OpenAccount):
            self.note("opens an account a second time", change.id)
        self._expect_account(change, expected_accounts.changed(before, command))
        if before.status == "closed":
            self.note("changes an account that is closed", change.id)
        empty = not (account.balance or account.held or account.incoming)
        if change.status == "closed" and not empty:
            self.note("closes an account that is not empty", change.id)
        account.change, account.sequence = change, record.sequence

    def _expect_account(self, change: AccountChange, expected: AccountChange) -> None:
        for name in expected_accounts.FIELDS:
            self._expect_equal(name, getattr(change, name), getattr(expected, name), change.id)

    def _hold(self, record: JournalRecord, change: HoldChange) -> None:
        hold = self.holds.get(change.id)
        before = None if hold is None else hold.change
        status_before = None if before is None else before.status
        if change.status not in _HOLD_TRANSITIONS.get(status_before, ()):
            self.note(
                f"hold {change.id} changes from {status_before} to {change.status}", change.account
            )
        if before is not None:
            for name in ("account", "currency", "amount", "expires_at_ms"):
                what = f"{name} of hold {change.id}"
                self._expect_equal(
                    what, getattr(change, name), getattr(before, name), change.account
                )
        if hold is None:
            self.holds[change.id] = ReplayedHold(
                change, record.sequence, record.time_ms, record.time_ms
            )
        else:
            hold.change, hold.sequence, hold.changed_ms = change, record.sequence, record.time_ms
        if change.status == "open":
            heapq.heappush(self._due, (change.expires_at_ms, change.id))

    def _check_limits(self, record: JournalRecord) -> None:
        """Checks the limits and bounds of each account that the record touches."""
        touched: list[str] = [entry.account for entry in record.entries]
        touched += [each.account for each in (*record.reserved, *record.released)]
        if record.account is not None:
            touched.append(record.account.id)
        for id in touched:
            account = self.accounts.get(id)
            if account is None:
                continue
            available, limit = account.balance - account.held, account.change.min_balance
            if limit is not None and available < limit:
                self.note(f"{available} available, below the limit of {limit}", id)
            if account.held < 0 or account.incoming < 0:
                self.note(f"held {account.held} or incoming {account.incoming} is negative", id)
            if available < -MAX_AMOUNT or account.balance + account.incoming > MAX_AMOUNT:
                self.note(f"balance {account.balance} is out of bounds", id)

    # At the end

    def sums(self) -> dict[str, tuple[int, int, int]]:
        """By currency: the debits, the credits, and the debits less credits of transit."""
        debits: Counter[str] = Counter()
        credits: Counter[str] = Counter()
        transit: Counter[str] = Counter()
        for account in self.accounts.values():
            signed = account.balance if account.debit_normal else -account.balance
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
        """Checks totals after the last record."""
        self._record = None
        self._offset = self.last_offset
        if self._expired_ms:
            self.note("ends with an expiry, without the input that it precedes")
        held: Counter[str] = Counter()
        incoming: Counter[str] = Counter()
        reserved = [open_transaction.reserved for open_transaction in self.open.values()]
        reserved += [triples for _, triples in self.prepared.values()]
        # A hold reserves a debit, whatever the account's normal side.
        reserved += [
            ((hold.change.account, "debit", hold.change.amount),)
            for hold in self.holds.values()
            if hold.change.status in ("open", "capturing")
        ]
        for each in reserved:
            for id, direction, amount in each:
                account = self.accounts.get(id)
                if account is not None:
                    raises = (direction == "debit") is account.debit_normal
                    (incoming if raises else held)[id] += amount
        for id, account in self.accounts.items():
            for what, value, reserved_amount in (
                ("held", account.held, held[id]),
                ("incoming", account.incoming, incoming[id]),
            ):
                if value != reserved_amount:
                    self.note(
                        f"{what} is {value}, but holds and transactions reserve {reserved_amount}",
                        id,
                    )
        for currency, (debits, credits, _) in self.sums().items():
            if debits != credits:
                self._differences.note(
                    "books",
                    f"{currency}: debits are {debits}, but credits are {credits}",
                    partition=self.partition,
                )


def final_entries(pending: PendingTransaction, fee: int) -> tuple[CoordinatedEntry, ...]:
    """The entries as decided: those planned, without a commission that was waived."""
    if pending.fee and not fee:
        return without_fee(pending.entries, pending.fee)
    return pending.entries


def without_fee(entries: tuple[CoordinatedEntry, ...], fee: int) -> tuple[CoordinatedEntry, ...]:
    """The sender's entry, which comes first, without the fee; the fee's own entry is left out."""
    sender, *rest = entries
    bare = CoordinatedEntry(sender.index, sender.account, sender.direction, sender.amount - fee)
    return (bare, *(entry for entry in rest if not ids.is_system(entry.account)))


def _body_hash(command: Command) -> bytes:
    return hashlib.sha256(commands.body(command)).digest()[:_BODY_BYTES]


def _reserved_triples(reservations: tuple[Reservation, ...]) -> Reserved:
    return tuple((each.account, each.direction, each.amount) for each in reservations)
