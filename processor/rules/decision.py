"""What the rules are given and what they answer: one input, one or more decisions."""

import hashlib
from typing import Literal

from msgspec import Struct

from processor.rules import state
from schemas import journal
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
    # Of a command, where it is known already: the transaction's id.
    transaction_id: str | None = None


class Decision(Struct, frozen=True, gc=False):
    record: JournalRecord
    legs: tuple[tuple[int, Leg], ...] = ()
    transactions: tuple[TransactionRecord, ...] = ()
    dead_letter: DeadLetter | None = None


class Header(Struct, frozen=True, gc=False):
    """What a journal record says beside its decision."""

    partition: int
    sequence: int
    time_ms: int
    source: Source
    settings_version: int
    digest: str | None = None


def header(of: state.State, input: Input, time_ms: int) -> Header:
    at = of.partition
    return Header(
        at.partition,
        at.sequence + 1,
        time_ms,
        Source(input.topic, input.offset),
        at.settings_version,
        hashlib.sha256(input.value).hexdigest(),
    )


def expiry_header(of: state.State, time_ms: int) -> Header:
    at = of.partition
    return Header(at.partition, at.sequence + 1, time_ms, Source("expiry"), at.settings_version)


def record(header: Header, step: journal.Step, **told: object) -> JournalRecord:
    return JournalRecord(
        partition=header.partition,
        sequence=header.sequence,
        time_ms=header.time_ms,
        source=header.source,
        settings_version=header.settings_version,
        digest=header.digest,
        step=step,
        **told,  # type: ignore[arg-type]  # the names are checked by every test of a decision
    )
