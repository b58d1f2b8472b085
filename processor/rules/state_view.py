"""The port through which the rules see a partition's state: values by key, and what is due.

The rules write only through `put` and never mutate a value. They must not know where values are
stored, or when they become durable.
"""

from bisect import bisect_left, insort
from typing import Protocol

from schemas import state as states
from schemas import state_keys
from schemas.state import StateValue


class StateView(Protocol):
    """No call blocks for long. A failing call ends the process."""

    partition: states.PartitionState

    def get(self, key: bytes, /) -> StateValue | None: ...

    def put(self, key: bytes, value: StateValue | None) -> None: ...

    def due(self, time_ms: int, limit: int) -> list[bytes]:
        """The keys that are due at a time, earliest first."""
        ...


class MemoryState:
    """A partition's state in memory: for replays, audits and tests."""

    def __init__(self, partition: int) -> None:
        self.partition = states.PartitionState(partition)
        self._values: dict[bytes, StateValue] = {}
        self._due: list[bytes] = []

    def get(self, key: bytes) -> StateValue | None:
        return self._values.get(key)

    def put(self, key: bytes, value: StateValue | None) -> None:
        indexed = key.startswith(state_keys.DUE)
        if value is None:
            if self._values.pop(key, None) is not None and indexed:
                del self._due[bisect_left(self._due, key)]
            return
        if indexed and key not in self._values:
            insort(self._due, key)
        self._values[key] = value

    def due(self, time_ms: int, limit: int) -> list[bytes]:
        end = bisect_left(self._due, state_keys.due_bound(time_ms))
        return self._due[: min(end, limit)]

    def copy(self) -> "MemoryState":
        other = MemoryState(self.partition.partition)
        other.partition = self.partition
        other._values = dict(self._values)
        other._due = list(self._due)
        return other

    def values(self) -> dict[bytes, StateValue]:
        return dict(self._values)


# The first byte of a key determines the type of its value, which mypy cannot know.


def account(state: StateView, id: str) -> states.AccountState | None:
    return state.get(state_keys.account(id))  # type: ignore[return-value]  # by the key


def system_account(state: StateView, shard: str) -> states.SystemAccountState:
    found = state.get(state_keys.system_account(shard))
    return _NEW_SYSTEM_ACCOUNT if found is None else found  # type: ignore[return-value]  # as above


def transaction(state: StateView, id: str) -> states.TransactionState | None:
    return transaction_at(state, state_keys.transaction(id))


def transaction_at(state: StateView, key: bytes) -> states.TransactionState | None:
    return state.get(key)  # type: ignore[return-value]  # by the key


def hold(state: StateView, id: str) -> states.HoldState | None:
    return state.get(state_keys.hold(id))  # type: ignore[return-value]  # by the key


def prepared(state: StateView, id: str) -> states.PreparedTransaction | None:
    return state.get(state_keys.prepared(id))  # type: ignore[return-value]  # by the key


_NEW_SYSTEM_ACCOUNT = states.SystemAccountState()
