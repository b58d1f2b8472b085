"""The hash chain over a partition's journal: each record names the hash of the one before it."""

import msgspec

from schemas.journal import JournalRecord

_encode = msgspec.json.Encoder().encode


def seal(record: JournalRecord, previous_hash: str) -> bytes:
    """The record's value as written to the topic."""
    return _encode(msgspec.structs.replace(record, previous_hash=previous_hash))
