"""The results that a journal calls for, told naively from its full records: by none of the sink's
own code, and none of verify's.
"""

from typing import Any, NamedTuple

import msgspec

from schemas import journal
from schemas.journal import JournalRecord
from schemas.topics import RESULTS


class PublishedResult(NamedTuple):
    """A result as a reader sees it."""

    partition: int
    key: str
    value: dict[str, Any]


def result_of(record: JournalRecord) -> PublishedResult | None:
    later = record.command_offset is not None
    if record.step not in journal.OUTCOMES or not (later or record.source.topic == "commands"):
        return None
    partition, command = record.partition, record.command
    offset = record.command_offset if later else record.source.offset
    value = {
        "partition": partition,
        "offset": offset,
        "outcome": {
            "refused": "rejected",
            "replayed": record.first_status,
        }.get(record.step, record.step),
        "id": command.id if command else record.refused.id if record.refused else None,
        "transaction_id": record.transaction_id,
        "kind": None if command is None else str(command.__struct_config__.tag),
        "reason": record.reason,
        "detail": record.detail,
        "replay": record.step == "replayed",
        "entries": list(msgspec.to_builtins(record.entries)),
        "trace": None if command is None else command.trace,
        "sequence": record.sequence,
        "time_ms": record.time_ms,
    }
    usual: dict[str, object] = {
        "id": None,
        "transaction_id": None,
        "kind": None,
        "reason": None,
        "detail": None,
    }
    usual |= {"replay": False, "entries": [], "trace": None}
    value = {k: v for k, v in value.items() if k not in usual or v != usual[k]}
    key = record.transaction_id or f"{partition}:{offset}"
    return PublishedResult(partition % (RESULTS.partitions or 1), key, value)
