"""Where a record lies, and what tells it from any other that may come to lie there."""

import hashlib
import secrets

from msgspec import Struct

from processor.rules.decision import Input
from schemas.state import InputPosition


class Read(Struct, frozen=True, gc=False):
    """A record as it lies in its topic."""

    offset: int
    key: bytes | None
    value: bytes | None
    time_ms: int


def new_incarnation() -> bytes:
    """Made at random: a topic's id survives DeleteRecords, and a counter is lost with `state`."""
    return secrets.token_bytes(16)


def position_after(last: Read | Input) -> InputPosition:
    return InputPosition(last.offset + 1, last.offset, digest(last))


def digest(read: Read | Input) -> bytes:
    """What tells a record from another one that lies at its offset in another topic."""
    key, value = read.key or b"", read.value or b""
    head = f"{read.offset}:{read.time_ms}:{len(key)}:{len(value)}:".encode()
    return hashlib.sha256(head + key + value).digest()[:16]
