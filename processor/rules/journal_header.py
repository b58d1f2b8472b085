"""An input, from the record that was read; and how the journal record begins that answers it."""

import hashlib

from processor.rules import state_view
from processor.rules.decision import Input, Topic
from schemas import commands, state_keys
from schemas.commands import Command
from schemas.coordination import Leg, Undecodable
from schemas.journal import JournalRecord, Source
from schemas.validation.command_validation import Unreadable

BODY_HASH_BYTES = 16


def input_of(
    topic: Topic,
    offset: int,
    key: bytes | None,
    value: bytes,
    time_ms: int,
    message: Command | Leg | Unreadable | Undecodable,
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
        state_keys.own_transaction(command),
        hashlib.sha256(commands.body(command)).digest()[:BODY_HASH_BYTES],
    )


def header(of: state_view.State, input: Input, time_ms: int) -> JournalRecord:
    """The journal record but for what is decided, which replaces its step and adds to it."""
    return _undecided(of, time_ms, Source(input.topic, input.offset), input.value_digest)


def expiry_header(of: state_view.State, time_ms: int) -> JournalRecord:
    return _undecided(of, time_ms, Source("expiry"), None)


def _undecided(
    of: state_view.State, time_ms: int, source: Source, digest: str | None
) -> JournalRecord:
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
