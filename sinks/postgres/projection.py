"""A batch of journal records as rows: pure, and only what the journal says.

Rows that only ever come new are encoded for COPY at once; accounts, holds and transactions are kept
by their id, so that a batch writes each of them once, as it is at its end. What does not follow on
itself within a batch is refused here; what does not follow on the tables is refused there.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from schemas import ids
from schemas.journal import AccountChange, Entry, HoldChange, Reservation
from sinks.journal_chain import JournaledCommand, JournaledPostEntry, PendingEntry, SinkRecord
from sinks.postgres.copy_format import EntryLines, Ids


class BrokenRecord(Exception):
    """A record that contradicts itself or the one before it."""


class Totals(Struct, gc=False):
    """What a batch does to an ordinary account: what it has at the end, and by how much that
    differs. None is what the batch does not tell."""

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


class Opened(Struct, gc=False):
    account: AccountChange
    opened_ms: int


class HoldRow(Struct, gc=False):
    hold: HoldChange
    sequence: int
    # None: it was placed before this batch.
    placed_ms: int | None
    changed_ms: int


class TransactionRow(Struct, gc=False):
    """What its own step says once and for all, and beside it what may change within the batch."""

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


class Decided(Struct, frozen=True, gc=False):
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
    """What one batch of one partition adds to the tables, and changes in them."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.records = 0
        self.last_ms = 0
        # None: no record of the batch sets it.
        self.format_level: int | None = None
        # By account, in the order of their versions.
        self.entries: dict[str, list[bytes]] = {}
        self.system_entries: list[bytes] = []
        self.transactions: dict[str, TransactionRow] = {}
        self.commands: dict[int, CommandRow] = {}
        self.decided: list[Decided] = []
        self.reversed: list[tuple[str, str]] = []
        self.opened: dict[str, Opened] = {}
        self.changed: dict[str, AccountChange] = {}
        self.totals: dict[str, Totals] = {}
        self.system: dict[str, SystemTotals] = {}
        self.holds: dict[str, HoldRow] = {}
        # Of transactions, as columns.
        self.ids = Ids()
        self._lines = EntryLines(partition)

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
            self.opened[account.id] = Opened(account, record.time_ms)
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
            raise BrokenRecord("has entries and no transaction")
        sequence, lines = record.sequence, self._lines
        shared = lines.of(self.ids[transaction], record.time_ms, sequence)
        net = 0
        for entry in record.entries:
            balance = entry.balance
            signed = entry.amount if entry.direction == "credit" else -entry.amount
            net += signed
            if isinstance(balance, str):
                balance = int(balance)
                self._post_system(entry, balance, signed, sequence)
                self.system_entries.append(lines.system(entry, balance, shared))
            else:
                self._post_ordinary(entry, balance, signed, sequence)
                line = lines.ordinary(entry, balance, shared)
                self.entries.setdefault(entry.account, []).append(line)
        if net:
            raise BrokenRecord(f"its credits are its debits and {net} more")

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
        """A command's own step."""
        offset, step = record.source.offset, record.step
        if offset in self.commands:
            raise BrokenRecord(f"is a second outcome of the command at offset {offset}")
        self.commands[offset] = CommandRow(record, step, record.reason, record.detail)
        if step not in _OWNED:
            return
        id, command = record.transaction_id, record.command
        if id is None or command is None:
            raise BrokenRecord(f"is {step} and names no transaction")
        pending = record.pending
        if id in self.transactions:
            raise BrokenRecord(f"owns the transaction {id}, as another command does")
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
        """The outcome of a command that was pending."""
        id, command, step = record.transaction_id, record.command, record.step
        if id is None or command is None or step not in ("posted", "rejected"):
            raise BrokenRecord(f"decides on the command at offset {offset} and says nothing of it")
        row = self.transactions.get(id)
        if row is None:
            self.decided.append(
                Decided(
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
            asked = self.commands[row.record.source.offset]
            asked.outcome, asked.reason, asked.detail = step, record.reason, record.detail
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
    """Within a batch. That the signs are right, too, shows in what a batch adds up to."""
    if entry.version != version + 1 or abs(balance - before) != entry.amount:
        raise BrokenRecord(
            f"entry {entry.version} of {entry.account}, with {balance} after it, does not follow on"
            f" entry {version} with {before}"
        )


def _amount(record: SinkRecord, command: JournaledCommand) -> int | None:
    """What was asked for, as far as the record tells."""
    if command.kind == "post":
        return sum(entry.amount for entry in command.entries if entry.direction == "debit") or None
    entries = record.entries if record.pending is None else record.pending.entries
    if command.kind == "reverse":
        return sum(entry.amount for entry in entries if entry.direction == "debit") or None
    if command.kind == "capture" and command.amount is None and entries:
        return entries[0].amount
    return command.amount


def _counterparty(record: SinkRecord, command: JournaledCommand) -> str | None:
    """The other one of just two ordinary accounts."""
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
