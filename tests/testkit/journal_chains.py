"""The hash chain of a partition's journal, followed from its start."""

from collections.abc import Iterable

import msgspec

from schemas import journal


class ChainBroken(Exception):
    """A journal record does not follow on the one before it, or is not what was written."""


class _Named(msgspec.Struct):
    previous_hash: str = ""


_decode_named = msgspec.json.Decoder(_Named).decode


def verify(values: Iterable[bytes], genesis_hash: str) -> str:
    """The last hash of a whole chain; ChainBroken names the first record that breaks it.

    A change to the last record shows in the hash that the state keeps of it.
    """
    last = genesis_hash
    for place, value in enumerate(values, 1):
        try:
            named = _decode_named(value)
        except ValueError:
            raise ChainBroken(f"journal record {place} cannot be read") from None
        if named.previous_hash != last:
            raise ChainBroken(f"journal record {place} does not follow on the one before it")
        last = journal.hash_of(value)
    return last
