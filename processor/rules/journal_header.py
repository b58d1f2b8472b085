"""Builds an input from a record, and the journal header that every decision on it starts from."""

import hashlib

from processor.rules import state_view
from processor.rules.decision import DecisionInput, Topic
from schemas import commands, state_keys
from schemas.commands import Command
from schemas.coordination import CoordinationMessage, Undecodable
from schemas.journal import InputSource, JournalRecord
from schemas.validation.command_validation import UnreadableRecord

BODY_HASH_BYTES = 16


def input_of(
    topic: Topic,
    offset: int,
    key: bytes | None,
    value: bytes,
    time_ms: int,
    message: Command | CoordinationMessage | UnreadableRecord | Undecodable,
) -> DecisionInput:
    """Needs no state, so reading ahead can do this work ahead of the decision."""
    digest = hashlib.sha256(value).hexdigest()
    if topic != "commands" or isinstance(message, UnreadableRecord):
        return DecisionInput(topic, offset, key, value, time_ms, message, digest)
    command: Command = message  # type: ignore[assignment]  # by the topic
    return DecisionInput(
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


def for_input(state: state_view.StateView, input: DecisionInput, time_ms: int) -> JournalRecord:
    """The journal record without its decision, which replaces the step and adds fields."""
    return _undecided(state, time_ms, InputSource(input.topic, input.offset), input.value_digest)


def for_expiry(state: state_view.StateView, time_ms: int) -> JournalRecord:
    return _undecided(state, time_ms, InputSource("expiry"), None)


def _undecided(
    state: state_view.StateView, time_ms: int, source: InputSource, digest: str | None
) -> JournalRecord:
    at = state.partition
    return JournalRecord(
        partition=at.partition,
        sequence=at.sequence + 1,
        time_ms=time_ms,
        source=source,
        step="ignored",
        settings_version=at.settings_version,
        digest=digest,
    )
