"""Folds a batch of journal records into rows. Pure.

Entries are only inserted, so they are encoded for COPY at once. Accounts, holds and transactions
are kept by id, so that a batch writes each of them once, in its last state. A record that
contradicts its batch is refused here; the update statements refuse what contradicts the tables.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from schemas import ids
from schemas.journal import AccountChange, Entry, HoldChange, Reservation
from sinks.journal_chain import JournaledCommand, JournaledPostEntry, PendingEntry, SinkRecord
from sinks.postgres.copy_format import EntryEncoder, UuidColumns


class BrokenRecord(Exception):
    """A record that contradicts itself or an earlier record of the batch."""


class Totals(Struct, gc=False):
    """An ordinary account's totals after a batch, and their changes within it. None: the batch does
    not set it."""

    sequence: int
    held: int | None = None
    incoming: int | None = None
    balance: int | None = None
    version: int | None = None
    entries: int = 0
    # Credits minus debits.
    net: int = 0


class SystemTotals(Struct, gc=False):
    balance: int
    version: int
    sequence: int
    entries: int
    net: int


class OpenedAccount(Struct, gc=False):
    account: AccountChange
    opened_ms: int


class HoldRow(Struct, gc=False):
    hold: HoldChange
    sequence: int
    # None: placed before this batch.
    placed_ms: int | None
    changed_ms: int


class TransactionRow(Struct, gc=False):
    """The transaction's own record, and the columns that a later record of the batch may change."""

    record: SinkRecord
    command: JournaledCommand
    status: str
    reason: str | None
    decided_sequence: int | None
    decided_ms: int | None
    fee: int
    commission_bps: int
    reversed_by: str | None = None

    @property
    def amount(self) -> int | None:
        return _amount(self.record, self.command)

    @property
    def counterparty(self) -> str | None:
        return _counterparty(self.record, self.command)


class CommandRow(Struct, gc=False):
    record: SinkRecord
    outcome: str
    reason: str | None
    detail: str | None


class LaterOutcome(Struct, frozen=True, gc=False):
    """The outcome of a transaction that was pending before this batch."""

    id: str
    source_offset: int
    status: str
    reason: str | None
    detail: str | None
    sequence: int
    time_ms: int
    fee: int
    commission_bps: int


_OWNED: Final = frozenset({"posted", "rejected", "pending"})


class Rows:
    """The inserts and updates of one batch of one partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.records = 0
        self.last_ms = 0
        # None: no record of the batch sets it.
        self.format_level: int | None = None
        # Encoded, by account, in the order of versions.
        self.entries: dict[str, list[bytes]] = {}
        self.system_entries: list[bytes] = []
        self.transactions: dict[str, TransactionRow] = {}
        self.commands: dict[int, CommandRow] = {}
        self.decided: list[LaterOutcome] = []
        self.reversed: list[tuple[str, str]] = []
        self.opened: dict[str, OpenedAccount] = {}
        self.changed: dict[str, AccountChange] = {}
        self.totals: dict[str, Totals] = {}
        self.system: dict[str, SystemTotals] = {}
        self.holds: dict[str, HoldRow] = {}
        # Transaction ids.
        self.ids = UuidColumns()
        self._entry_encoder = EntryEncoder(partition)

    def add(self, record: SinkRecord) -> None:
        self.records += 1
        self.last_ms = record.time_ms
        if record.settings is not None:
            self.format_level = record.settings.format_level
        if record.source.topic == "commands":
            self._command(record)
        elif record.command_offset is not None:
            self._decision(record, record.command_offset)
        if record.account is not None:
            self._account(record, record.account)
        if record.hold is not None:
            self._hold(record, record.hold)
        for reservation in record.released:
            self._reservation(record, reservation)
        for reservation in record.reserved:
            self._reservation(record, reservation)
        if record.entries:
            self._post(record)

    # Accounts and entries

    def _account(self, record: SinkRecord, account: AccountChange) -> None:
        sequence = record.sequence
        if record.command is not None and record.command.kind == "open_account":
            self.opened[account.id] = OpenedAccount(account, record.time_ms)
            self.totals[account.id] = Totals(sequence, 0, 0, 0, 0)
            return
        opened = self.opened.get(account.id)
        if opened is not None:
            opened.account = account
        else:
            self.changed[account.id] = account
        self._totals(account.id, sequence)

    def _totals(self, account: str, sequence: int) -> Totals:
        totals = self.totals.get(account)
        if totals is None:
            totals = self.totals[account] = Totals(sequence)
        else:
            totals.sequence = sequence
        return totals

    def _reservation(self, record: SinkRecord, reservation: Reservation) -> None:
        totals = self._totals(reservation.account, record.sequence)
        totals.held, totals.incoming = reservation.held, reservation.incoming

    def _post(self, record: SinkRecord) -> None:
        transaction = record.transaction_id
        if transaction is None:
            raise BrokenRecord("has entries but no transaction")
        sequence, encoder = record.sequence, self._entry_encoder
        shared = encoder.shared(self.ids[transaction], record.time_ms, sequence)
        net = 0
        for entry in record.entries:
            balance = entry.balance
            signed = entry.amount if entry.direction == "credit" else -entry.amount
            net += signed
            if isinstance(balance, str):
                balance = int(balance)
                self._post_system(entry, balance, signed, sequence)
                self.system_entries.append(encoder.system(entry, balance, shared))
            else:
                self._post_ordinary(entry, balance, signed, sequence)
                encoded = encoder.ordinary(entry, balance, shared)
                self.entries.setdefault(entry.account, []).append(encoded)
        if net:
            raise BrokenRecord(f"credits and debits differ by {net}")

    def _post_ordinary(self, entry: Entry, balance: int, signed: int, sequence: int) -> None:
        account, version = entry.account, entry.version
        totals = self.totals.get(account)
        if totals is None:
            self.totals[account] = Totals(
                sequence, entry.held, entry.incoming, balance, version, 1, signed
            )
            return
        if totals.version is not None:
            _check_follows(entry, balance, totals.version, totals.balance or 0)
        totals.sequence, totals.balance, totals.version = sequence, balance, version
        totals.held, totals.incoming = entry.held, entry.incoming
        totals.entries += 1
        totals.net += signed

    def _post_system(self, entry: Entry, balance: int, signed: int, sequence: int) -> None:
        totals = self.system.get(entry.account)
        if totals is None:
            self.system[entry.account] = SystemTotals(balance, entry.version, sequence, 1, signed)
            return
        _check_follows(entry, balance, totals.version, totals.balance)
        totals.balance, totals.version, totals.sequence = balance, entry.version, sequence
        totals.entries += 1
        totals.net += signed

    # Holds

    def _hold(self, record: SinkRecord, hold: HoldChange) -> None:
        row = self.holds.get(hold.id)
        if row is not None:
            row.hold, row.sequence, row.changed_ms = hold, record.sequence, record.time_ms
            return
        placed = record.command is not None and record.command.kind == "hold"
        self.holds[hold.id] = HoldRow(
            hold, record.sequence, record.time_ms if placed else None, record.time_ms
        )

    # Commands and transactions

    def _command(self, record: SinkRecord) -> None:
        """The step of the command itself, in its coordinator."""
        offset, step = record.source.offset, record.step
        if offset in self.commands:
            raise BrokenRecord(f"is a second outcome of the command at offset {offset}")
        self.commands[offset] = CommandRow(record, step, record.reason, record.detail)
        if step not in _OWNED:
            return
        id, command = record.transaction_id, record.command
        if id is None or command is None:
            raise BrokenRecord(f"is {step} but names no transaction")
        pending = record.pending
        if id in self.transactions:
            raise BrokenRecord(f"owns transaction {id}, which another command owns")
        is_pending = step == "pending"
        priced = record if pending is None else pending
        self.transactions[id] = TransactionRow(
            record,
            command,
            step,
            record.reason,
            None if is_pending else record.sequence,
            None if is_pending else record.time_ms,
            priced.fee,
            priced.commission_bps,
        )
        if step == "posted" and command.kind == "reverse":
            self._mark_reversed(command, id)

    def _decision(self, record: SinkRecord, offset: int) -> None:
        """The outcome of a pending command."""
        id, command, step = record.transaction_id, record.command, record.step
        if id is None or command is None or step not in ("posted", "rejected"):
            raise BrokenRecord(f"decides the command at offset {offset} without an outcome")
        row = self.transactions.get(id)
        if row is None:
            self.decided.append(
                LaterOutcome(
                    id,
                    offset,
                    step,
                    record.reason,
                    record.detail,
                    record.sequence,
                    record.time_ms,
                    record.fee,
                    record.commission_bps,
                )
            )
        else:
            row.status, row.reason = step, record.reason
            row.decided_sequence, row.decided_ms = record.sequence, record.time_ms
            row.fee, row.commission_bps = record.fee, record.commission_bps
            command_row = self.commands[row.record.source.offset]
            command_row.outcome, command_row.reason = step, record.reason
            command_row.detail = record.detail
        if step == "posted" and command.kind == "reverse":
            self._mark_reversed(command, id)

    def _mark_reversed(self, command: JournaledCommand, reversal: str) -> None:
        original = command.transaction_id or ""
        row = self.transactions.get(original)
        if row is None:
            self.reversed.append((original, reversal))
        else:
            row.reversed_by = reversal


def _check_follows(entry: Entry, balance: int, version: int, before: int) -> None:
    """Within a batch. The update statements check the signs by the batch's net change."""
    if entry.version != version + 1 or abs(balance - before) != entry.amount:
        raise BrokenRecord(
            f"entry {entry.version} of {entry.account} with balance {balance} does not follow entry"
            f" {version} with balance {before}"
        )


def _amount(record: SinkRecord, command: JournaledCommand) -> int | None:
    """The requested amount; None if the record does not have it."""
    if command.kind == "post":
        return sum(entry.amount for entry in command.entries if entry.direction == "debit") or None
    entries = record.entries if record.pending is None else record.pending.entries
    if command.kind == "reverse":
        return sum(entry.amount for entry in entries if entry.direction == "debit") or None
    if command.kind == "capture" and command.amount is None and entries:
        return entries[0].amount
    return command.amount


def _counterparty(record: SinkRecord, command: JournaledCommand) -> str | None:
    """The other ordinary account; None unless there are exactly two."""
    if command.to is not None:
        return command.to
    entries: Iterable[Entry | JournaledPostEntry | PendingEntry] = record.entries
    if command.kind == "post":
        entries = command.entries
    elif record.pending is not None:
        entries = record.pending.entries
    other = None
    for entry in entries:
        account = entry.account
        if account != command.account and not ids.is_system(account):
            if other is not None:
                return None
            other = account
    return other
