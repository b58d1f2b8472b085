"""What is due in a partition, the earliest first, without holding all of it in memory.

A window of the earliest keys is kept sorted; what lies beyond it stays in the table and is read
when the window has run empty. Asking when nothing is due costs one comparison.
"""

from bisect import bisect_left
from collections.abc import Callable

from schemas import state_keys

WINDOW = 10_000


class DueIndex:
    """`read(after, limit)` gives the table's due keys that follow a key, in order."""

    def __init__(self, read: Callable[[bytes, int], list[bytes]], window: int = WINDOW) -> None:
        self._read = read
        self._size = window
        self._keys: list[bytes] = []
        # Keys above the horizon may be in the table alone. None: the window holds every key.
        self._horizon: bytes | None = state_keys.DUE

    def add(self, key: bytes) -> None:
        if self._horizon is not None and key > self._horizon:
            return
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            return
        self._keys.insert(place, key)
        if len(self._keys) > 2 * self._size:
            del self._keys[self._size :]
            self._horizon = self._keys[-1]

    def remove(self, key: bytes) -> None:
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            del self._keys[place]

    def due(self, time_ms: int, limit: int) -> list[bytes]:
        if self._horizon is not None:
            self._fill(limit)
        keys = self._keys
        if not keys or keys[0] >= (bound := state_keys.due_bound(time_ms)):
            return []
        return keys[: min(bisect_left(keys, bound), limit)]

    def earliest_ms(self) -> int | None:
        self._fill(1)
        return int.from_bytes(self._keys[0][1:9], "big") if self._keys else None

    def _fill(self, least: int) -> None:
        while self._horizon is not None and len(self._keys) < least:
            more = self._read(self._horizon, self._size)
            self._keys.extend(more)
            self._horizon = more[-1] if len(more) == self._size else None
