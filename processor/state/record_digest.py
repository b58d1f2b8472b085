"""Where a record lies, and what tells it from any other that may come to lie there."""

import hashlib
import secrets
from typing import Any

import msgspec
from msgspec import Struct

from plumbing.failures import Failure
from plumbing.kafka.committed_reader import CommittedRecord
from processor.rules.decision import DecisionInput
from schemas.ledger_parameters import FORMAT_LEVEL
from schemas.state import InputPosition, PartitionPosition

_decode = msgspec.msgpack.Decoder(PartitionPosition).decode


def new_incarnation() -> bytes:
    """Made at random: a topic's id survives DeleteRecords, and a counter is lost with `state`."""
    return secrets.token_bytes(16)


def position_after(last: CommittedRecord | DecisionInput) -> InputPosition:
    return InputPosition(last.offset + 1, last.offset, digest(last))


def digest(read: CommittedRecord | DecisionInput) -> bytes:
    """What tells a record from another one that lies at its offset in another topic."""
    key, value = read.key or b"", read.value or b""
    head = f"{read.offset}:{read.time_ms}:{len(key)}:{len(value)}:".encode()
    return hashlib.sha256(head + key + value).digest()[:16]


def too_new(format_level: int) -> str:
    return (
        f"the ledger has format level {format_level}; this program supports {FORMAT_LEVEL}:"
        " upgrade it (docs/upgrading.md)"
    )


# Nothing was released before.
BEFORE_RELEASE = "a ledger made before version 0.1.0 cannot be carried over (docs/upgrading.md)"


class _AnyPartition(Struct, array_like=True):
    """A `Partition` of any version, as far as its settings."""

    partition: Any
    partitions: Any
    ledger_id: Any
    sequence: Any
    time_ms: Any
    settings_version: Any
    settings: dict[str, Any] | None


class _AnyPosition(Struct, array_like=True):
    partition: _AnyPartition


_decode_any = msgspec.msgpack.Decoder(_AnyPosition).decode


def decode(value: bytes) -> PartitionPosition:
    """A position as it lies in `state`. One that this program cannot read, as its ledger has a
    higher format level, is named so."""
    try:
        return _decode(value)
    except msgspec.ValidationError as error:
        if (level := _format_level(value)) > FORMAT_LEVEL:
            raise Failure(too_new(level)) from None
        raise Failure(f"a position in `state` cannot be read ({error}): {BEFORE_RELEASE}") from None


def _format_level(value: bytes) -> int:
    try:
        settings = _decode_any(value).partition.settings or {}
    except msgspec.ValidationError:
        return 0
    level = settings.get("format_level")
    return level if isinstance(level, int) else 0
