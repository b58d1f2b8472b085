"""What the rules are given, what they hand to each other, and what they answer: one input, one or
more decisions.
"""

from typing import Literal

from msgspec import Struct

from processor.rules.checks import Refusal
from processor.rules.state import State
from schemas.commands import Command
from schemas.door import Unreadable
from schemas.fields import Metadata
from schemas.journal import JournalRecord
from schemas.legs import Leg, LegEntry
from schemas.messages import DeadLetter, TransactionRecord
from schemas.state import Hold


class BrokenInvariant(Exception):
    """What cannot be is there: the log is not whole, or the code is wrong. Nothing may go on."""


Topic = Literal["commands", "legs", "genesis"]


class Input(Struct, frozen=True, gc=False):
    """One record as it was read, what it was read as, and what follows from that alone."""

    topic: Topic
    offset: int
    key: bytes | None
    value: bytes
    time_ms: int
    message: Command | Leg | Unreadable
    # SHA-256 of the value, as text.
    value_digest: str
    # Of a command: its transaction's key in the state, and what tells it from another one that has
    # the same.
    transaction_key: bytes = b""
    body_hash: bytes = b""


class Decision(Struct, frozen=True, gc=False):
    record: JournalRecord
    legs: tuple[tuple[int, Leg], ...] = ()
    transactions: tuple[TransactionRecord, ...] = ()
    dead_letter: DeadLetter | None = None


class Asked(Struct, frozen=True, gc=False):
    """A command that owns its transaction id, and what is being asked of which state."""

    of: State
    header: JournalRecord
    command: Command
    transaction_id: str
    body_hash: str


class Published(Struct, frozen=True, gc=False):
    """What every `transactions` record of a transaction tells alike."""

    transaction_id: str
    kind: str
    currency: str
    reference: str | None
    description: str | None
    metadata: Metadata
    # The account that paid a fee, and the fee.
    payer: str | None = None
    fee: int = 0
    # The two ordinary accounts of a transaction that has just two.
    parties: tuple[str, ...] = ()


class Plan(Struct, frozen=True, gc=False):
    entries: tuple[LegEntry, ...]
    currency: str
    refusal: Refusal | None = None
    fee: int = 0
    commission_bps: int = 0
    # The hold that a capture takes; its account's entry needs no other funds.
    hold: Hold | None = None
