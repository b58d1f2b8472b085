"""A partition's journal, record by record: decoded as far as rows and results need it, and only as
long as each record follows on the one before.

A record that cannot be read, that is missing or that is not what its successor says stops the sink
there, by name. It knows no table and no topic but the journal.
"""

from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from schemas import journal
from schemas.journal import AccountChange, Entry, HoldChange, InputSource, Reservation, Step
from schemas.ledger_parameters import FORMAT_LEVEL, Genesis


class BrokenJournal(Exception):
    """A record that cannot be; nothing after it may be written."""

    def __init__(self, partition: int, offset: int, what: str) -> None:
        super().__init__(f"journal partition {partition}, record at offset {offset}: {what}")


class ReadJournalRecord(Struct, frozen=True, gc=False):
    """A record as it lies in the topic."""

    offset: int
    value: bytes


class JournaledPostEntry(Struct, frozen=True, gc=False):
    account: str
    direction: Literal["debit", "credit"]
    amount: int


class JournaledCommand(Struct, frozen=True, gc=False, kw_only=True):
    """What rows and results tell of a command. Whether it is one was decided when it was read."""

    kind: str
    account: str
    id: str | None = None
    reference: str | None = None
    description: str | None = None
    # Handed on as it is.
    metadata: msgspec.Raw = msgspec.Raw()
    actor: str | None = None
    trace: str | None = None
    external_id: str | None = None
    effective_at_ms: int | None = None
    to: str | None = None
    amount: int | None = None
    entries: tuple[JournaledPostEntry, ...] = ()
    hold_id: str | None = None
    transaction_id: str | None = None


class Labelled(Struct, frozen=True, gc=False):
    """A command that could not be read."""

    id: str | None = None


class PendingEntry(Struct, frozen=True, gc=False, array_like=True):
    index: int
    account: str
    direction: Literal["debit", "credit"]
    amount: int


class JournaledPending(Struct, frozen=True, gc=False):
    entries: tuple[PendingEntry, ...]
    fee: int = 0
    commission_bps: int = 0


class Level(Struct, frozen=True, gc=False):
    """Of a ledger's settings, what a reader must know."""

    format_level: int


class SinkRecord(Struct, frozen=True, gc=False, kw_only=True):
    """A `JournalRecord`, without what nobody here asks for."""

    previous_hash: str
    partition: int
    sequence: int
    time_ms: int
    source: InputSource
    step: Step
    command: JournaledCommand | None = None
    refused: Labelled | None = None
    transaction_id: str | None = None
    command_offset: int | None = None
    first_status: Literal["pending", "posted", "rejected"] | None = None
    reason: str | None = None
    detail: str | None = None
    released: tuple[Reservation, ...] = ()
    reserved: tuple[Reservation, ...] = ()
    entries: tuple[Entry, ...] = ()
    fee: int = 0
    commission_bps: int = 0
    account: AccountChange | None = None
    hold: HoldChange | None = None
    pending: JournaledPending | None = None
    genesis: Genesis | None = None
    settings: Level | None = None


_decode = msgspec.json.Decoder(SinkRecord).decode


class JournalPosition(NamedTuple):
    """How far a journal is read: where to go on, and the last record's number and hash."""

    next_offset: int
    sequence: int
    last_hash: str


def beginning(ledger_id: str, partition: int) -> JournalPosition:
    return JournalPosition(0, 0, journal.genesis_hash(ledger_id, partition))


class Chain:
    """Follows one partition's journal from a position. Each record is tested once, when it is
    read."""

    def __init__(self, ledger_id: str, partition: int, position: JournalPosition) -> None:
        self._ledger_id = ledger_id
        self._partition = partition
        self.position = position

    @property
    def position(self) -> JournalPosition:
        return JournalPosition(self._next_offset, self._sequence, self._last_hash)

    @position.setter
    def position(self, position: JournalPosition) -> None:
        self._next_offset, self._sequence, self._last_hash = position

    def follow(self, read: ReadJournalRecord) -> SinkRecord:
        offset = read.offset
        try:
            record = _decode(read.value)
        except ValueError as error:
            raise self._broken(offset, f"cannot be decoded: {error}") from None
        if record.partition != self._partition:
            raise self._broken(offset, f"is of partition {record.partition}")
        sequence = record.sequence
        if sequence != self._sequence + 1:
            raise self._broken(offset, f"is number {sequence}, after {self._sequence}")
        if record.previous_hash != self._last_hash:
            raise self._broken(
                offset, f"follows on the hash {record.previous_hash}, not on {self._last_hash}"
            )
        level = 0 if record.settings is None else record.settings.format_level
        if level > FORMAT_LEVEL:
            raise self._broken(
                offset,
                f"raises the format level to {level}; this program supports {FORMAT_LEVEL}: upgrade"
                " it (docs/upgrading.md)",
            )
        genesis = record.genesis
        if genesis is not None and genesis.ledger_id != self._ledger_id:
            raise self._broken(offset, f"begins the ledger {genesis.ledger_id!r}")
        if (genesis is None) is (sequence == 1):
            raise self._broken(offset, "a partition begins with its genesis, and has one")
        self._next_offset, self._sequence = offset + 1, sequence
        self._last_hash = journal.hash_of(read.value)
        return record

    def _broken(self, offset: int, what: str) -> BrokenJournal:
        return BrokenJournal(self._partition, offset, what)
