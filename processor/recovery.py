"""What a new owner does before it decides anything: find out what Kafka holds, and hold the same.

Called after the owner's producer was initialised: no older transaction of the partition is open
then, so the stable end of `state` covers all that will ever have been committed before this owner.
It refuses what cannot be right, and repairs only what can be made again: the local copy.
"""

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from plumbing.failures import Failure
from plumbing.kafka import ClientConfig
from processor.inputs import MOST_BYTES, Read, as_read, digest
from processor.table import Local, Table
from schemas import journal
from schemas.settings import RULES_VERSION
from schemas.state import InputPosition, Position
from schemas.topics import DAY_MS, STATE, Names

log = structlog.get_logger(__name__)

TIMEOUT_S = 20.0
CHUNK = 20_000
# A copy this old may lack tombstones that compaction has removed since.
_TOMBSTONES_KEPT_MS = (STATE.delete_retention_ms or 0) - DAY_MS

Progress = Callable[[int, int], None]


class Refused(Failure):
    """The partition cannot be owned: what Kafka holds and what the state says do not go
    together.
    """


class Range(NamedTuple):
    """The offsets of a partition that a read_committed reader can see: start up to, not with,
    end.
    """

    start: int
    end: int


class Recovery:
    """Reads one partition's topics on behalf of its new owner."""

    def __init__(self, config: ClientConfig, names: Names, partition: int) -> None:
        self._names = names
        self._partition = partition
        self._consumer = Consumer(
            {
                **config,
                "group.id": "none",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 100,
                **MOST_BYTES,
                "fetch.message.max.bytes": 4 * 1024 * 1024,
                "queued.min.messages": 100_000,
                "queued.max.messages.kbytes": 16 * 1024,
            }
        )

    def close(self) -> None:
        self._consumer.close()

    def restore(self, table: Table, ledger_id: str, progress: Progress) -> None:
        """Bring the local copy to the stable end of `state`; all of it again if it cannot be told
        that the copy is a part of that."""
        range = self._range(self._names.state)
        reason = self._foreign(table, ledger_id) or self._stale(table, range)
        if reason is not None:
            log.warning("local copy wiped", partition=self._partition, reason=reason)
            table.wipe()
        at = max(table.local.changelog_next_offset, range.start)
        if at >= range.end:
            return
        for records in self._chunks(self._names.state, at, range.end):
            last = records[-1]
            at = last.offset + 1
            table.restore(
                ((read.key or b"", read.value) for read in records), Local(at, last.time_ms)
            )
            progress(at, range.end)
        table.restore((), Local(range.end, table.local.changelog_time_ms))
        table.restored()

    def _foreign(self, table: Table, ledger_id: str) -> str | None:
        """Why the local copy cannot be told to be this partition's; None if it is, or empty."""
        local, position = table.local, table.position
        if local.changelog_next_offset == 0:
            return None
        if position is None or local.journal_offset < 0:
            return "its restore was not finished"
        if position.partition.ledger_id != ledger_id:
            return "it is another ledger's"
        if position.partition.partition != self._partition:
            return "it is another partition's"
        if self._hash_at(local.journal_offset) != local.journal_hash:
            return "its journal is not this ledger's"
        return None

    def _stale(self, table: Table, range: Range) -> str | None:
        """Why the changelog cannot be laid over the local copy."""
        local = table.local
        if local.changelog_next_offset > range.end:
            raise Refused(
                f"partition {self._partition}: the local copy has read `{self._names.state}` up to"
                f" {local.changelog_next_offset}, but it ends at {range.end}"
            )
        if 0 < local.changelog_next_offset < range.start:
            return "the changelog begins after it"
        behind = 0 < local.changelog_next_offset < range.end
        age_ms = time.time() * 1_000 - local.changelog_time_ms
        if behind and age_ms > _TOMBSTONES_KEPT_MS:
            return "it is older than the changelog's tombstones"
        return None

    def check_inputs(self, position: Position) -> None:
        """The inputs are those that the state has read: not shorter, not cut and grown again."""
        self._check_input(self._names.commands, position.commands)
        self._check_input(self._names.legs, position.legs)

    def _check_input(self, topic: str, input: InputPosition) -> None:
        range = self._range(topic)
        where = f"partition {self._partition} of `{topic}`"
        if not range.start <= input.next_offset <= range.end:
            raise Refused(
                f"{where} has offsets {range.start} to {range.end}; the ledger's position is"
                f" {input.next_offset}"
            )
        if input.last_offset >= range.start:
            last = self._at(topic, input.last_offset)
            if last is None or digest(last) != input.last_digest:
                raise Refused(f"{where} has another record at {input.last_offset} than was read")

    def check_journal(self, position: Position | None) -> Read | None:
        """The journal ends where the state does, with the record that is returned. Without a state
        there is no journal: else the state was lost, and all would be decided again."""
        topic = self._names.journal
        last = self._last(topic)
        where = f"partition {self._partition}: `{topic}`"
        if position is None:
            if last is not None:
                raise Refused(
                    f"{where} is not empty, but `{self._names.state}` is: the state was lost"
                )
        elif last is None or journal.hash_of(last.value or b"") != position.last_hash:
            raise Refused(f"{where} does not end where the state does")
        return last

    def _last(self, topic: str) -> Read | None:
        """The last committed record."""
        range = self._range(topic)
        # Transaction markers and aborted records take offsets too: it is a little before the end.
        for back in (8, 64, 4_096, range.end):
            last = None
            for message in self._messages(topic, max(range.start, range.end - back), range.end):
                last = message
            if last is not None:
                return as_read(last)
        return None

    def _hash_at(self, offset: int) -> str | None:
        topic = self._names.journal
        range = self._range(topic)
        if not range.start <= offset < range.end:
            return None
        for message in self._messages(topic, offset, range.end):
            if message.offset() == offset:
                return journal.hash_of(as_read(message).value or b"")
            break
        return None

    def _at(self, topic: str, offset: int) -> Read | None:
        for message in self._messages(topic, offset, offset + 1):
            read = as_read(message)
            return read if read.offset == offset else None
        return None

    def _range(self, topic: str) -> Range:
        partition = TopicPartition(topic, self._partition)
        start, end = self._consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)
        return Range(start, end)

    def _chunks(self, topic: str, start: int, end: int) -> Iterator[list[Read]]:
        chunk: list[Read] = []
        for message in self._messages(topic, start, end):
            chunk.append(as_read(message))
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _messages(self, topic: str, start: int, end: int) -> Iterator[Message]:
        """Every committed record from start up to, not with, end."""
        self._consumer.assign([TopicPartition(topic, self._partition, start)])
        quiet_since = time.monotonic()
        while True:
            messages = self._consumer.consume(CHUNK, 0.2)
            if messages:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > TIMEOUT_S:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            for message in messages:
                error, offset = message.error(), message.offset() or 0
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                if offset >= end:
                    return
                if error is None:
                    yield message


def check_owner(position: Position, ledger_id: str, partitions: int) -> None:
    """The state is this ledger's, and these rules can go on with it."""
    at = position.partition
    if at.ledger_id != ledger_id:
        raise Refused(
            f"these topics hold the ledger {at.ledger_id!r}, not {ledger_id!r}: LEDGER_ID is wrong,"
            " or TOPIC_PREFIX"
        )
    if at.partitions != partitions:
        raise Refused(
            f"the ledger has {at.partitions} partitions for life, but its topics have {partitions}"
        )
    if at.settings is None or at.settings.rules_version != RULES_VERSION:
        found = None if at.settings is None else at.settings.rules_version
        raise Refused(
            f"the ledger is decided by rules version {found}; this program has {RULES_VERSION}"
        )
