"""The rules as one pure function: a partition's state and one input give decisions, in order.

What is due comes first, then the input. Each decision is applied to the state before the next. It
must not read a clock: time is the highest log time that the partition has read.
"""

from typing import assert_never, get_args

from msgspec.structs import replace

from processor.rules import coordinate, decide, expire, journal_header, participate, state_view
from processor.rules.decision import BrokenInvariant, Decision, DecisionInput
from processor.rules.evolve import evolve
from processor.rules.journal_header import input_of
from schemas import coordination
from schemas.ledger_parameters import LedgerParameters
from schemas.state import PartitionState
from schemas.validation.command_validation import UnreadableRecord

MAX_DUE_PER_INPUT = 1_000
# A set, because isinstance against each class of the union costs more.
_NUMBERED = frozenset(get_args(coordination.NumberedMessage))


def apply(state: state_view.StateView, input: DecisionInput) -> list[Decision]:
    if isinstance(input.message, coordination.LogTime):
        decided = _timed(state, input, input.message)
        evolve(state, decided.record)
        return [decided]
    time_ms = max(state.partition.time_ms, log_time(state.partition, input))
    decisions = []
    for key in state.due(time_ms, MAX_DUE_PER_INPUT):
        decision = expire.expire(state, key, time_ms)
        evolve(state, decision.record)
        decisions.append(decision)
    decision = _decide(state, input, time_ms)
    evolve(state, decision.record)
    decisions.append(decision)
    return decisions


def log_time(at: PartitionState, input: DecisionInput) -> int:
    """The broker's timestamp, or an earlier time that an operator assigned to the record."""
    for decision in reversed(at.log_times):
        if decision.topic == input.topic and decision.first <= input.offset <= decision.last:
            return min(decision.time_ms, input.time_ms)
    return input.time_ms


def _timed(
    state: state_view.StateView, input: DecisionInput, message: coordination.LogTime
) -> Decision:
    """Does not advance the time, as it may lie in a log with wrong times. An operator may apply it
    before it is read in its place; once its records have passed, it is ignored there."""
    header = journal_header.for_input(state, input, state.partition.time_ms)
    if (
        input.topic == "coordination"
        and message.topic == "coordination"
        and message.last < input.offset
    ):
        return Decision(replace(header, step="ignored", message=message))
    return Decision(replace(header, step="timed", message=message))


def _decide(state: state_view.StateView, input: DecisionInput, time_ms: int) -> Decision:
    message = input.message
    if input.topic == "commands":
        return decide.decide(state, input, message, time_ms)  # type: ignore[arg-type]  # by the topic
    if type(message) in _NUMBERED:
        return _numbered(state, input, message, time_ms)  # type: ignore[arg-type]  # by its type
    if isinstance(message, UnreadableRecord):
        return _ignored_unreadable(state, input, message, time_ms)
    if isinstance(message, coordination.Undecodable):
        raise BrokenInvariant(f"cannot decide a message of another version: {message.detail}")
    header = journal_header.for_input(state, input, time_ms)
    if isinstance(message, coordination.Tick):
        return Decision(replace(header, step="ticked", message=message))
    assert isinstance(message, coordination.Configure), "commands are read from their own topic"
    before = state.partition.settings
    if message.genesis is None:
        if before is None:
            raise BrokenInvariant("a partition starts with its genesis")
        parameters = _without_downgrade(before, message.settings)
        return Decision(replace(header, step="configured", message=message, settings=parameters))
    if before is None:
        return Decision(
            replace(
                header,
                step="configured",
                message=message,
                settings=message.settings,
                genesis=message.genesis,
            )
        )
    return Decision(replace(header, step="ignored", message=message))


def _without_downgrade(before: LedgerParameters, requested: LedgerParameters) -> LedgerParameters:
    """Rules version and format level never decrease, even if a change carries an older value."""
    return replace(
        requested,
        rules_version=max(before.rules_version, requested.rules_version),
        format_level=max(before.format_level, requested.format_level),
    )


def _numbered(
    state: state_view.StateView,
    input: DecisionInput,
    message: coordination.NumberedMessage,
    time_ms: int,
) -> Decision:
    seen = state.partition.seen
    if not 0 <= message.source < len(seen):
        raise BrokenInvariant(
            f"message from partition {message.source}, but there are {len(seen)} partitions"
        )
    if message.number <= seen[message.source]:
        return Decision(
            replace(
                journal_header.for_input(state, input, time_ms), step="duplicate", message=message
            )
        )
    if message.number > seen[message.source] + 1:
        raise BrokenInvariant(
            f"message {message.number} of partition {message.source} came after "
            f"{seen[message.source]}"
        )
    match message:
        case coordination.Prepare():
            return participate.prepare(state, input, message, time_ms)
        case coordination.Prepared() | coordination.Refused():
            return coordinate.answer(state, input, message, time_ms)
        case coordination.Commit():
            return participate.commit(state, input, message, time_ms)
        case coordination.Abort():
            return participate.abort(state, input, message, time_ms)
        case _:
            assert_never(message)


def _ignored_unreadable(
    state: state_view.StateView, input: DecisionInput, message: UnreadableRecord, time_ms: int
) -> Decision:
    """Only processors write to `coordination`: a record of anybody else changes nothing."""
    header = journal_header.for_input(state, input, time_ms)
    excerpt = decide.refused_input(input, None)
    return Decision(replace(header, step="ignored", refused=excerpt, detail=message.detail))


def genesis(partition: int, message: coordination.Configure, value: bytes) -> DecisionInput:
    """The first input of a partition, which is in no topic."""
    return input_of("genesis", -1, None, value, 0, message)
