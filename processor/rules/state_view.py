"""What the rules see of a partition's state: values by key, the partition's own facts, and what is
due.

The rules put values only through `put`, and never change one: whoever holds an old value still has
it. Where the values are kept, and when they become durable, is not the rules' to know.
"""

from bisect import bisect_left, insort
from typing import Protocol

from schemas import state as states
from schemas import state_keys
from schemas.state import StateValue


class StateView(Protocol):
    """The port to a partition's state. No call blocks for long; none fails but by ending the
    process.
    """

    partition: states.PartitionState

    def get(self, key: bytes, /) -> StateValue | None: ...

    def put(self, key: bytes, value: StateValue | None) -> None: ...

    def due(self, time_ms: int, limit: int) -> list[bytes]:
        """The keys of what is due at a time, the earliest first."""
        ...


class MemoryState:
    """A partition's state in plain memory: for replays, audits and tests."""

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


# A key's first byte tells the type of its value: that is what the ignored errors cannot know.


def account(state: StateView, id: str) -> states.AccountState | None:
    return state.get(state_keys.account(id))  # type: ignore[return-value]  # told by the key


def system_account(state: StateView, shard: str) -> states.SystemAccountState:
    found = state.get(state_keys.system_account(shard))
    return _NEW_SYSTEM_ACCOUNT if found is None else found  # type: ignore[return-value]  # as above


def transaction(state: StateView, id: str) -> states.TransactionState | None:
    return transaction_at(state, state_keys.transaction(id))


def transaction_at(state: StateView, key: bytes) -> states.TransactionState | None:
    return state.get(key)  # type: ignore[return-value]  # told by the key


def hold(state: StateView, id: str) -> states.HoldState | None:
    return state.get(state_keys.hold(id))  # type: ignore[return-value]  # told by the key


def prepared(state: StateView, id: str) -> states.PreparedTransaction | None:
    return state.get(state_keys.prepared(id))  # type: ignore[return-value]  # told by the key


_NEW_SYSTEM_ACCOUNT = states.SystemAccountState()
