"""A partition of `commands` or `coordination`, compared record by record with its journal.

For a rebuild: it goes on from the offsets that the journal names, so the records there must be
those that were decided. It stops at the first record that is missing, different or has no outcome.
"""

import hashlib
from collections.abc import Iterator

from plumbing.failures import Failure
from plumbing.kafka.committed_reader import CommittedReader, CommittedRecord
from processor.lanes.batch_output import MAX_KEY_BYTES
from processor.state.record_digest import position_after
from schemas.state import InputPosition


class InputCheck:
    """Records below the topic's beginning were read and deleted: only their offsets are known."""

    def __init__(self, reader: CommittedReader, topic: str, partition: int, *, keys: bool) -> None:
        self._topic = topic
        self._partition = partition
        self._keys = keys
        self._start, self._end = reader.range(topic, partition)
        self._records: Iterator[CommittedRecord] = reader.read(
            topic, partition, self._start, self._end
        )
        self._last_offset = -1
        self._last: CommittedRecord | None = None

    def answered(self, offset: int, digest: str | None, key: bytes | None) -> None:
        """The journal's next record answers the record at this offset."""
        self._last_offset, self._last = offset, None
        if offset < self._start:
            return
        read = next(self._records, None) if offset < self._end else None
        if read is None or read.offset > offset:
            raise self._refusal(
                offset,
                "the journal answers a record that is not there; the topic has offsets"
                f" {self._start} to {self._end}",
            )
        if read.offset < offset:
            raise self._refusal(read.offset, "the journal has no outcome of this record")
        if hashlib.sha256(read.value or b"").hexdigest() != digest:
            raise self._refusal(offset, "another record than the one that was decided")
        if self._keys and (None if read.key is None else read.key[:MAX_KEY_BYTES]) != key:
            raise self._refusal(offset, f"the key is {read.key!r}; the journal has {key!r}")
        self._last = read

    def position(self) -> InputPosition:
        """Where an owner reads on; without a digest where the last record was deleted."""
        if self._last is not None:
            return position_after(self._last)
        position = InputPosition(self._last_offset + 1, self._last_offset)
        if not self._start <= position.next_offset <= self._end:
            raise self._refusal(
                position.next_offset,
                f"to be read next; the topic has offsets {self._start} to {self._end}",
            )
        return position

    def _refusal(self, offset: int, what: str) -> Failure:
        return Failure(
            f"partition {self._partition} of `{self._topic}`, offset {offset}: {what}. Nothing was"
            " written: put back the topic that this journal was decided from"
        )
