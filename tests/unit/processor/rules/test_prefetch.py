"""The keys that a decision reads are told before it is made: what is not is read one at a time.

Nothing goes wrong where one is missed, but the disk is asked in the middle of a batch. So the rules
are spied on in whole simulated runs.
"""

from collections import Counter

import pytest

from processor.rules import engine, prefetch, state_view
from processor.rules.decision import Decision, DecisionInput
from processor.rules.journal_header import input_of
from schemas import coordination, state_keys
from schemas.reasons import Reason
from schemas.state import PartitionState, StateValue
from schemas.validation.command_validation import UnreadableRecord
from tests.simulation.run import Run

PARTITIONS = 3
# Always in the cache: there are a few of them for each currency.
ALWAYS_THERE = (state_keys.SYSTEM_ACCOUNT, state_keys.DUE)


class Spied:
    """A state that notes which keys it is asked for."""

    def __init__(self, of: state_view.StateView) -> None:
        self._of = of
        self.asked: set[bytes] = set()
        self.put_here: set[bytes] = set()

    @property
    def partition(self) -> PartitionState:
        return self._of.partition

    @partition.setter
    def partition(self, value: PartitionState) -> None:
        self._of.partition = value

    def get(self, key: bytes) -> StateValue | None:
        if key not in self.put_here:
            self.asked.add(key)
        return self._of.get(key)

    def put(self, key: bytes, value: StateValue | None) -> None:
        self.put_here.add(key)
        self._of.put(key, value)

    def due(self, time_ms: int, limit: int) -> list[bytes]:
        return self._of.due(time_ms, limit)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_key_that_is_read_was_told(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    apply = engine.apply
    spied: Counter[tuple[str, str]] = Counter()
    told = used = 0

    def watched(of: state_view.StateView, input: DecisionInput) -> list[Decision]:
        nonlocal told, used
        if of.due(max(of.partition.time_ms, input.time_ms), 1):
            # What is due before a record is known to nobody before it is taken.
            return apply(of, input)
        first = prefetch.keys_read(input)
        declared = {*first, *prefetch.keys_named(of, input)}
        spy = Spied(of)
        decisions = apply(spy, input)
        asked = {key for key in spy.asked if not key.startswith(ALWAYS_THERE)}
        step = decisions[-1].record.step
        assert asked <= declared, (step, input.message, sorted(asked - declared))
        spied[named(input), step] += 1
        told += len(declared)
        used += len(asked)
        return decisions

    monkeypatch.setattr(engine, "apply", watched)
    Run(seed, 4_000, PARTITIONS, thorough=False).run()
    kinds = {kind for kind, step in spied}
    assert kinds >= {"Credit", "Transfer", "Post", "Capture", "Void", "Reverse", "Close"}
    assert kinds >= {"Prepare", "Prepared", "Refused", "Commit", "Abort", "UnreadableRecord"}
    # What is told too much costs a look-up: little of it is.
    assert used > 0.7 * told


def named(input: DecisionInput) -> str:
    return type(input.message).__name__


def test_what_cannot_be_read_names_no_key() -> None:
    refused = input_of("commands", 0, None, b"?", 0, UnreadableRecord(Reason.MALFORMED, "", None))
    ticked = input_of("coordination", 0, None, b"?", 0, coordination.Tick())
    for input in (refused, ticked):
        of = state_view.MemoryState(0)
        assert [*prefetch.keys_read(input), *prefetch.keys_named(of, input)] == []
