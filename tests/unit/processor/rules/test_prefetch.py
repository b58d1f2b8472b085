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
    """A state that records which keys are read."""

    def __init__(self, state: state_view.StateView) -> None:
        self._state = state
        self.keys_used: set[bytes] = set()
        self.put_here: set[bytes] = set()

    @property
    def partition(self) -> PartitionState:
        return self._state.partition

    @partition.setter
    def partition(self, value: PartitionState) -> None:
        self._state.partition = value

    def get(self, key: bytes) -> StateValue | None:
        if key not in self.put_here:
            self.keys_used.add(key)
        return self._state.get(key)

    def put(self, key: bytes, value: StateValue | None) -> None:
        self.put_here.add(key)
        self._state.put(key, value)

    def due(self, time_ms: int, limit: int) -> list[bytes]:
        return self._state.due(time_ms, limit)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_key_that_is_read_was_declared(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    apply = engine.apply
    spied: Counter[tuple[str, str]] = Counter()
    declared_count = used = 0

    def watched(state: state_view.StateView, input: DecisionInput) -> list[Decision]:
        nonlocal declared_count, used
        if state.due(max(state.partition.time_ms, input.time_ms), 1):
            # What is due before a record is known to nobody before it is taken.
            return apply(state, input)
        first = prefetch.keys_read(input)
        declared = {*first, *prefetch.keys_named(state, input)}
        spy = Spied(state)
        decisions = apply(spy, input)
        keys_used = {key for key in spy.keys_used if not key.startswith(ALWAYS_THERE)}
        step = decisions[-1].record.step
        assert keys_used <= declared, (
            step,
            input.message,
            sorted(keys_used - declared),
        )
        spied[named(input), step] += 1
        declared_count += len(declared)
        used += len(keys_used)
        return decisions

    monkeypatch.setattr(engine, "apply", watched)
    Run(seed, 4_000, PARTITIONS, thorough=False).run()
    kinds = {kind for kind, step in spied}
    assert kinds >= {"Credit", "Transfer", "Post", "Capture", "Void", "Reverse", "Close"}
    assert kinds >= {"Prepare", "Prepared", "Refused", "Commit", "Abort", "UnreadableRecord"}
    # What is told too much costs a look-up: little of it is.
    assert used > 0.7 * declared_count


def named(input: DecisionInput) -> str:
    return type(input.message).__name__


def test_what_cannot_be_read_names_no_key() -> None:
    refused = input_of("commands", 0, None, b"?", 0, UnreadableRecord(Reason.MALFORMED, "", None))
    ticked = input_of("coordination", 0, None, b"?", 0, coordination.Tick())
    for input in (refused, ticked):
        state = state_view.MemoryState(0)
        assert [*prefetch.keys_read(input), *prefetch.keys_named(state, input)] == []
