"""The journal: one record for each record of `commands` and `coordination`, and for each expiry.

A record holds a decision and all its changes, so that state and Postgres follow from the journal
alone. Each names the hash of the record before it in its partition: the SHA-256 of that record's
value, byte for byte as stored in the topic.
"""

import hashlib
from typing import Final, Literal

from msgspec import Struct

from schemas import field_types
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry, CoordinationMessage
from schemas.ledger_parameters import Genesis, LedgerParameters
from schemas.reasons import Reason

# Outcomes of a command; `posted` and `rejected` may come in a later record than the command's own,
# which is `pending`.
OUTCOMES: Final = frozenset({"posted", "rejected", "refused", "replayed"})

Step = Literal[
    "posted",
    "rejected",
    "refused",
    "replayed",
    "pending",
    "prepared",
    "declined",
    "answered",
    "committed",
    "aborted",
    "expired",
    "ticked",
    "configured",
    "timed",
    "duplicate",
    "ignored",
]


class Entry(Struct, frozen=True, gc=False, omit_defaults=True):
    """A posted entry, with its account's totals after it. A system account's balance is
    decimal text.
    """

    account: str
    direction: field_types.Direction
    amount: int
    balance: int | str
    version: int
    held: int = 0
    incoming: int = 0


class Reservation(Struct, frozen=True, gc=False, omit_defaults=True):
    """An amount reserved or released, with the account's totals after it."""

    account: str
    direction: field_types.Direction
    amount: int
    held: int
    incoming: int


class AccountChange(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """An account after it was opened or changed; balances follow from entries alone."""

    id: str
    type: field_types.AccountType
    currency: str
    status: field_types.AccountStatus
    owner: str | None = None
    min_balance: int | None = None
    metadata: field_types.Metadata = {}


HoldStatus = Literal["open", "capturing", "captured", "voided", "expired"]


class HoldChange(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    id: str
    account: str
    currency: str
    amount: int
    expires_at_ms: int
    status: HoldStatus
    captured: int = 0


class ParticipantRefusal(Struct, frozen=True, gc=False, array_like=True):
    partition: int
    reason: Reason
    index: int


class PendingTransaction(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The progress of a transaction over several partitions at its coordinator."""

    entries: tuple[CoordinatedEntry, ...]
    participants: tuple[int, ...]
    waiting: tuple[int, ...]
    currency: str
    deadline_ms: int
    offset: int
    fee: int = 0
    commission_bps: int = 0
    # False: only the amount is reserved, because the sender cannot pay the fee. The transaction can
    # post only if no fee is due.
    fee_reserved: bool = True
    same_owner: bool = False
    refusals: tuple[ParticipantRefusal, ...] = ()


class SentNumber(Struct, frozen=True, gc=False, array_like=True):
    partition: int
    number: int


class InputSource(Struct, frozen=True, gc=False, omit_defaults=True):
    """What the record answers: a position in a topic; an expiry that came due before the next one;
    or an operator's decision at the offset in `coordination`, which counts before it is read there.
    """

    topic: Literal["commands", "coordination", "expiry", "genesis", "operator"]
    offset: int = -1


class RefusedInput(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A command that could not be read: its first bytes as base64, its size, and its label
    where it had one.
    """

    size: int
    head: str
    id: str | None = None


class JournalRecord(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    # Set when the record is sealed; the rules do not know it.
    previous_hash: str = ""
    partition: int
    sequence: int
    time_ms: int
    source: InputSource
    step: Step
    settings_version: int
    command: Command | None = None
    message: CoordinationMessage | None = None
    refused: RefusedInput | None = None
    digest: str | None = None
    body_hash: str | None = None
    transaction_id: str | None = None
    # The command's own offset, for a decision made later than the command's step; and the status of
    # the first outcome, for a replay.
    command_offset: int | None = None
    first_status: Literal["pending", "posted", "rejected"] | None = None
    reason: Reason | None = None
    detail: str | None = None
    released: tuple[Reservation, ...] = ()
    reserved: tuple[Reservation, ...] = ()
    entries: tuple[Entry, ...] = ()
    fee: int = 0
    commission_bps: int = 0
    account: AccountChange | None = None
    hold: HoldChange | None = None
    pending: PendingTransaction | None = None
    sent: tuple[SentNumber, ...] = ()
    settings: LedgerParameters | None = None
    genesis: Genesis | None = None


def genesis_hash(ledger_id: str, partition: int) -> str:
    """The previous hash that a partition's first record names."""
    return hashlib.sha256(f"{ledger_id}:{partition}".encode()).hexdigest()


def hash_of(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()
