"""What the rules are given and what they answer: one input, one or more decisions."""

import hashlib
from typing import Literal

from msgspec import Struct

from processor.rules import state
from schemas import state as states
from schemas.commands import Command
from schemas.door import Unreadable
from schemas.journal import JournalRecord, Source
from schemas.legs import Leg
from schemas.messages import DeadLetter, TransactionRecord


class BrokenInvariant(Exception):
    """What cannot be is there: the log is not whole, or the code is wrong. Nothing may go on."""


class Input(Struct, frozen=True, gc=False):
    """One record as it was read, and what it was read as."""

    topic: Literal["commands", "legs", "genesis"]
    offset: int
    key: bytes | None
    value: bytes
    time_ms: int
    message: Command | Leg | Unreadable
    # Of a command, where it is known already: its transaction's key in the state.
    transaction_key: bytes | None = None


def transaction_key(input: Input, command: Command) -> bytes:
    return input.transaction_key or states.own_transaction_key(command)


class Decision(Struct, frozen=True, gc=False):
    record: JournalRecord
    legs: tuple[tuple[int, Leg], ...] = ()
    transactions: tuple[TransactionRecord, ...] = ()
    dead_letter: DeadLetter | None = None


def header(of: state.State, input: Input, time_ms: int) -> JournalRecord:
    """The journal record but for what is decided, which replaces its step and adds to it."""
    return _undecided(
        of, time_ms, Source(input.topic, input.offset), hashlib.sha256(input.value).hexdigest()
    )


def expiry_header(of: state.State, time_ms: int) -> JournalRecord:
    return _undecided(of, time_ms, Source("expiry"), None)


def _undecided(of: state.State, time_ms: int, source: Source, digest: str | None) -> JournalRecord:
    at = of.partition
    return JournalRecord(
        partition=at.partition,
        sequence=at.sequence + 1,
        time_ms=time_ms,
        source=source,
        step="ignored",
        settings_version=at.settings_version,
        digest=digest,
    )
