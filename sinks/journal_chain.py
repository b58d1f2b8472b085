"""A partition's journal, record by record: decodes what rows and results need, and checks that each
record follows the one before.

A record that cannot be decoded, is missing or breaks the hash chain stops the sink; the error names
it. It knows no table and no topic but the journal.
"""

from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from schemas import journal
from schemas.journal import AccountChange, Entry, HoldChange, InputSource, Reservation, Step
from schemas.ledger_parameters import FORMAT_LEVEL, Genesis


class BrokenJournal(Exception):
    """An invalid record. Nothing after it may be written."""

    def __init__(self, partition: int, offset: int, what: str) -> None:
        super().__init__(f"journal partition {partition}, record at offset {offset}: {what}")


class ReadJournalRecord(Struct, frozen=True, gc=False):
    """A record as it is in the topic."""

    offset: int
    value: bytes


class JournaledPostEntry(Struct, frozen=True, gc=False):
    account: str
    direction: Literal["debit", "credit"]
    amount: int


class JournaledCommand(Struct, frozen=True, gc=False, kw_only=True):
    """The fields of a command that rows and results need. The processor has validated it."""

    kind: str
    account: str
    id: str | None = None
    reference: str | None = None
    description: str | None = None
    # Written to Postgres without decoding.
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


class RefusedCommand(Struct, frozen=True, gc=False):
    """A command that failed validation."""

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


class JournaledParameters(Struct, frozen=True, gc=False):
    """The one ledger parameter that a sink needs."""

    format_level: int


class SinkRecord(Struct, frozen=True, gc=False, kw_only=True):
    """A `JournalRecord` without the fields that rows and results do not need."""

    previous_hash: str
    partition: int
    sequence: int
    time_ms: int
    source: InputSource
    step: Step
    command: JournaledCommand | None = None
    refused: RefusedCommand | None = None
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
    settings: JournaledParameters | None = None


_decode = msgspec.json.Decoder(SinkRecord).decode


class JournalPosition(NamedTuple):
    """The offset to read next, and the sequence and hash of the last record."""

    next_offset: int
    sequence: int
    last_hash: str


def beginning(ledger_id: str, partition: int) -> JournalPosition:
    return JournalPosition(0, 0, journal.genesis_hash(ledger_id, partition))


class JournalChain:
    """Follows one partition's journal from a position, and checks each record once."""

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

    def follow(self, journal_record: ReadJournalRecord) -> SinkRecord:
        offset = journal_record.offset
        try:
            record = _decode(journal_record.value)
        except ValueError as error:
            raise self._broken(offset, f"cannot be decoded: {error}") from None
        if record.partition != self._partition:
            raise self._broken(offset, f"belongs to partition {record.partition}")
        sequence = record.sequence
        if sequence != self._sequence + 1:
            raise self._broken(offset, f"has sequence {sequence} after {self._sequence}")
        if record.previous_hash != self._last_hash:
            raise self._broken(
                offset, f"has previous_hash {record.previous_hash}; expected {self._last_hash}"
            )
        settings = record.settings
        if settings is not None and settings.format_level > FORMAT_LEVEL:
            raise self._broken(
                offset,
                f"raises the format level to {settings.format_level}; this program supports"
                f" {FORMAT_LEVEL}: upgrade it (docs/upgrading.md)",
            )
        genesis = record.genesis
        if genesis is not None and genesis.ledger_id != self._ledger_id:
            raise self._broken(offset, f"is the genesis of ledger {genesis.ledger_id!r}")
        if (genesis is None) is (sequence == 1):
            raise self._broken(
                offset, "the first record of a partition, and no other, is its genesis"
            )
        self._next_offset, self._sequence = offset + 1, sequence
        self._last_hash = journal.hash_of(journal_record.value)
        return record

    def _broken(self, offset: int, what: str) -> BrokenJournal:
        return BrokenJournal(self._partition, offset, what)
