"""What must hold before a record is decided: this program can read it and supports what it asks
for, and its log time is plausible. Otherwise the worker stops before it commits any of the record.

This is the last defence. The format level protects against other versions: docs/upgrading.md. An
operator's decision protects against brokers with a wrong clock: docs/operating.md.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig
from plumbing.kafka.committed_reader import CommittedReader
from processor.lanes import log_time_decisions
from processor.lanes.broker_clock import MAX_AHEAD_MS, WorkerClock
from processor.lanes.log_time_decisions import time_text
from processor.rules import engine
from processor.rules.decision import DecisionInput
from processor.rules.journal_header import input_of
from processor.state.recovery import unsupported
from schemas import coordination
from schemas.state import PartitionState
from schemas.topics import Names

# Called with each record before it is decided. Returns the inputs that must be decided before it;
# raises Stopped if it must not be decided.
Admit = Callable[[PartitionState, DecisionInput], Sequence[DecisionInput]]


class Stopped(Failure):
    """This worker must not decide a record."""


def admit_all(partition: PartitionState, input: DecisionInput) -> Sequence[DecisionInput]:
    return ()


class Admission:
    """For the partitions of one lane."""

    def __init__(self, config: ClientConfig, names: Names, clock: WorkerClock) -> None:
        self._config = config
        self._names = names
        self._clock = clock

    def __call__(self, partition: PartitionState, input: DecisionInput) -> Sequence[DecisionInput]:
        reason = _unsupported_reason(partition, input)
        if reason is not None:
            raise Stopped(f"{self._where(partition, input)}: {reason}")
        if input.time_ms <= self._clock.latest_log_time_ms():
            return ()
        return self._operator_decision(partition, input)

    def _operator_decision(
        self, partition: PartitionState, input: DecisionInput
    ) -> Sequence[DecisionInput]:
        """For an implausible log time. The operator's decision may lie behind the record."""
        if engine.log_time(partition, input) <= self._clock.latest_log_time_ms():
            return ()
        # For the type: inputs of other topics have no log time.
        topic: Literal["commands", "coordination"] = (
            "commands" if input.topic == "commands" else "coordination"
        )
        if isinstance(input.message, coordination.LogTime):
            return ()
        number, latest_ms = partition.partition, self._clock.latest_log_time_ms()
        with CommittedReader(self._config) as reader:
            decided = log_time_decisions.find(
                reader, self._names, number, topic, input.offset, latest_ms
            )
        if decided is not None:
            offset, value, decision = decided
            return (input_of("operator", offset, None, value, 0, decision),)
        # Raises if it is this machine's clock that is wrong.
        disagreeing = self._clock.check()
        blame = "; ".join(map(str, disagreeing)) or (
            "this machine agrees with the clocks of all brokers that lead partitions of"
            f" `{self._names.coordination}` now"
        )
        now = time_text(latest_ms - MAX_AHEAD_MS)
        raise Stopped(
            f"{self._where(partition, input)}: its log time is {time_text(input.time_ms)},"
            f" more than an hour ahead of this worker's clock ({now}); {blame}. Correct the clock"
            " of the broker that stamped it, then decide its time:"
            f" streamledger log-time {number}:{input.offset} --topic {topic} --time {now}"
            " (docs/operating.md)"
        )

    def _where(self, partition: PartitionState, input: DecisionInput) -> str:
        topic = self._names.commands if input.topic == "commands" else self._names.coordination
        return f"partition {partition.partition} of `{topic}`, record at {input.offset}"


def _unsupported_reason(partition: PartitionState, input: DecisionInput) -> str | None:
    """Why this program cannot decide a record; None if it can."""
    message = input.message
    if isinstance(message, coordination.Undecodable):
        return (
            f"a message of another version, which this one cannot read ({message.detail}): upgrade"
            " this worker (docs/upgrading.md)"
        )
    if isinstance(message, coordination.Configure) and message.genesis is None:
        return unsupported(message.settings, partition.partitions)
    return None
