"""What the rules are given and what they answer: one input, one or more decisions."""

import hashlib
from typing import Literal

from msgspec import Struct

from processor.rules import state
from schemas import commands
from schemas import state as states
from schemas.commands import Command
from schemas.door import Unreadable
from schemas.journal import JournalRecord, Source
from schemas.legs import Leg
from schemas.messages import DeadLetter, TransactionRecord

BODY_HASH_BYTES = 16


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
    digest: str
    # Of a command: its transaction's key in the state, and what tells it from another one that has
    # the same.
    transaction_key: bytes = b""
    body_hash: bytes = b""


def input_of(
    topic: Topic,
    offset: int,
    key: bytes | None,
    value: bytes,
    time_ms: int,
    message: Command | Leg | Unreadable,
) -> Input:
    """Needs no state: whoever reads ahead can do all of this ahead, too."""
    digest = hashlib.sha256(value).hexdigest()
    if topic != "commands" or isinstance(message, Unreadable):
        return Input(topic, offset, key, value, time_ms, message, digest)
    command: Command = message  # type: ignore[assignment]  # by the topic
    return Input(
        topic,
        offset,
        key,
        value,
        time_ms,
        command,
        digest,
        states.own_transaction_key(command),
        hashlib.sha256(commands.body(command)).digest()[:BODY_HASH_BYTES],
    )


class Decision(Struct, frozen=True, gc=False):
    record: JournalRecord
    legs: tuple[tuple[int, Leg], ...] = ()
    transactions: tuple[TransactionRecord, ...] = ()
    dead_letter: DeadLetter | None = None


def header(of: state.State, input: Input, time_ms: int) -> JournalRecord:
    """The journal record but for what is decided, which replaces its step and adds to it."""
    return _undecided(of, time_ms, Source(input.topic, input.offset), input.digest)


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
