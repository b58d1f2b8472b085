"""What must be so before a record is decided: this program can read it, and goes on with what it
says. Else the worker stops before it commits anything of the record.

That is the last defence. The plan is the format level: docs/upgrading.md.
"""

from collections.abc import Callable, Sequence

from plumbing.failures import Failure
from processor.recovery import unsupported
from processor.rules.decision import Input
from schemas import legs
from schemas.state import Partition
from schemas.topics import Names

# Called with each record before it is decided; returns what must be decided before it. Raises
# Stopped where it must not be decided.
Admit = Callable[[Partition, Input], Sequence[Input]]


class Stopped(Failure):
    """A record must not be decided by this worker as things are."""


def admit_all(partition: Partition, input: Input) -> Sequence[Input]:
    return ()


class Admission:
    """Of the partitions of one lane."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __call__(self, partition: Partition, input: Input) -> Sequence[Input]:
        reason = _unread(input)
        if reason is not None:
            raise Stopped(f"{self._where(partition, input)}: {reason}")
        return ()

    def _where(self, partition: Partition, input: Input) -> str:
        topic = self._names.commands if input.topic == "commands" else self._names.legs
        return f"partition {partition.partition} of `{topic}`, record at {input.offset}"


def _unread(input: Input) -> str | None:
    """Why this program cannot go on with what a record says; None if it can."""
    message = input.message
    if isinstance(message, legs.Undecodable):
        return (
            f"a message of another version, which this one cannot read ({message.detail}): upgrade"
            " this worker (docs/upgrading.md)"
        )
    if isinstance(message, legs.Configure) and message.genesis is None:
        return unsupported(message.settings)
    return None
