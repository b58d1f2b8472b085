"""An operator's decisions on log times, as they lie in a partition's `coordination`.

Rule: a decision may lie behind the record that waits for it. It must not know who writes them.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

from plumbing.kafka.committed_reader import CommittedReader
from schemas import coordination
from schemas.coordination import LogTime
from schemas.topics import Names

_decode = msgspec.json.Decoder(coordination.CoordinationMessage).decode


def time_text(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError):
        return f"{ms} ms"


def find(
    reader: CommittedReader,
    names: Names,
    partition: int,
    topic: Literal["commands", "coordination"],
    offset: int,
    latest_ms: int,
) -> tuple[int, bytes, LogTime] | None:
    """The last decision in a partition's `coordination` on a record, with its place; it may lie
    behind records that wait for it. None where it would not help."""
    found = None
    for place, value, decision in _decisions(reader, names, partition):
        covers = decision.first <= offset <= decision.last
        if decision.topic == topic and covers and decision.time_ms <= latest_ms:
            found = place, value, decision
    return found


def _decisions(
    reader: CommittedReader, names: Names, partition: int
) -> Iterator[tuple[int, bytes, LogTime]]:
    start, end = reader.range(names.coordination, partition)
    for record in reader.read(names.coordination, partition, start, end):
        value = record.value or b""
        try:
            message = _decode(value)
        except ValueError:
            continue  # judged when it is read in its place
        if isinstance(message, LogTime):
            yield record.offset, value, message
