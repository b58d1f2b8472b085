"""A bounded cache that forgets what was not asked for lately. One writer; no locks."""

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """Two generations: what is found in the old one moves to the young one; when the young one is
    full it becomes the old one, and what the old one still held is forgotten."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, entries: int) -> None:
        self._half = max(1, entries // 2)
        self._young: dict[bytes, Value] = {}
        self._old: dict[bytes, Value] = {}

    def get(self, key: bytes) -> Value | None:
        value = self._young.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self.put(key, value)
        return value

    def put(self, key: bytes, value: Value) -> None:
        self._young[key] = value
        if len(self._young) > self._half:
            self._old, self._young = self._young, {}

    def drop(self, key: bytes) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
