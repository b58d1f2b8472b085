"""Restores a partition's local copy from Kafka, before a new owner decides anything.

Called after the owner's producer was initialised: no older transaction of the partition is open
then, so the stable end of `state` covers all that will ever have been committed before this owner.
It refuses what cannot be right, and repairs only what can be made again: the local copy.
"""

import time
from collections.abc import Callable
from itertools import islice

import structlog
from msgspec.structs import replace

from plumbing.failures import Failure
from plumbing.kafka.committed_reader import CommittedReader, CommittedRecord, OffsetRange
from processor.state import record_digest
from processor.state.record_digest import digest
from processor.state.store import StateStore
from schemas import journal, state_keys, topics
from schemas.ledger_parameters import FORMAT_LEVEL, RULES_VERSIONS, LedgerParameters
from schemas.state import InputPosition, PartitionPosition
from schemas.topics import DAY_MS, STATE, Names

log = structlog.get_logger(__name__)

CHUNK = 10_000
# Longer than any foreign transaction may stay open: the brokers' time-out, and their next look.
ENDED_WITHIN_S = 30.0
POLL_S = 0.1
# A copy this old may lack tombstones that compaction has removed since.
_TOMBSTONES_KEPT_MS = (STATE.delete_retention_ms or 0) - DAY_MS

Progress = Callable[[int, int], None]


class TakeoverRefused(Failure):
    """The partition cannot be owned: what Kafka holds and what the state says do not go
    together.
    """


def committed_position(
    reader: CommittedReader, names: Names, partition: int
) -> PartitionPosition | None:
    """The position that `state` ends with; None where `state` is empty."""
    last = reader.last(names.state, partition)
    if last is None:
        return None
    if last.key != state_keys.POSITION or not last.value:
        raise TakeoverRefused(
            f"partition {partition} of `{names.state}` does not end with a position: it was cut, or"
            " its rebuild was not finished; `streamledger rebuild state-topic` writes it again"
        )
    return record_digest.decode(last.value)


class Recovery:
    """Reads one partition's topics on behalf of its new owner."""

    def __init__(self, reader: CommittedReader, names: Names, partition: int) -> None:
        self._reader = reader
        self._names = names
        self._partition = partition

    def check_no_open_transactions(self) -> None:
        """What the last owner left open was ended when this one's producer was initialised, marker
        and all. A broker that lost its markers would show aborted records as committed, later."""
        names = self._names
        for topic in (names.state, names.journal, names.transactions):
            deadline = time.monotonic() + ENDED_WITHIN_S
            while (offset := self._reader.open_from(topic, self._partition)) is not None:
                if time.monotonic() > deadline:
                    raise TakeoverRefused(
                        f"partition {self._partition} of `{topic}` has a transaction open from"
                        f" {offset} on that does not end: a broker has lost its marker. It may have"
                        " been committed: docs/failure-scenarios.md says what to do"
                    )
                time.sleep(POLL_S)

    def restore(self, table: StateStore, ledger_id: str, progress: Progress) -> None:
        """Bring the local copy to the stable end of `state`; all of it again if the copy may
        not be a part of that."""
        range = self._range(self._names.state)
        incarnation = self._incarnation()
        reason = self._foreign(table, ledger_id) or self._stale(table, range, incarnation)
        if reason is not None:
            log.warning("local copy wiped", partition=self._partition, reason=reason)
            table.wipe()
        at = max(table.local.changelog_next_offset, range.start)
        if at >= range.end:
            return
        local = replace(table.local, incarnation=incarnation or b"")
        records = self._reader.read(self._names.state, self._partition, at, range.end)
        while chunk := list(islice(records, CHUNK)):
            last = chunk[-1]
            at = last.offset + 1
            # The journal hash stays valid if the restore ends here.
            local = replace(local, changelog_next_offset=at, changelog_time_ms=last.time_ms)
            table.restore(((read.key or b"", read.value) for read in chunk), local)
            progress(at, range.end)
        table.restore((), replace(local, changelog_next_offset=range.end))
        table.restored()
        progress(range.end, range.end)

    def _incarnation(self) -> bytes | None:
        """Of the changelog as it is now; None where it is empty."""
        position = committed_position(self._reader, self._names, self._partition)
        return None if position is None else position.incarnation

    def _foreign(self, table: StateStore, ledger_id: str) -> str | None:
        """Why the local copy may not be this partition's; None if it is, or if it is empty."""
        local, position = table.local, table.position
        if local.changelog_next_offset == 0 and position is None:
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

    def _stale(
        self, table: StateStore, range: OffsetRange, incarnation: bytes | None
    ) -> str | None:
        """Why the changelog cannot be laid over the local copy."""
        local = table.local
        if local.changelog_next_offset == 0:
            return None
        if incarnation is not None and local.incarnation != incarnation:
            return f"its offsets belong to another incarnation of `{self._names.state}`"
        if incarnation is None or local.changelog_next_offset > range.end:
            raise TakeoverRefused(
                f"partition {self._partition}: the local copy has read `{self._names.state}` up to"
                f" {local.changelog_next_offset}, but it ends at {range.end}"
            )
        if local.changelog_next_offset < range.start:
            return "the changelog begins after it"
        behind = local.changelog_next_offset < range.end
        age_ms = time.time() * 1_000 - local.changelog_time_ms
        if behind and age_ms > _TOMBSTONES_KEPT_MS:
            return "it is older than the changelog's tombstones"
        return None

    def check_inputs(self, position: PartitionPosition) -> None:
        """The inputs are those that the state has read: not shorter, not cut and grown again."""
        self._check_input(self._names.commands, position.commands)
        self._check_input(self._names.coordination, position.coordination)

    def _check_input(self, topic: str, input: InputPosition) -> None:
        range = self._range(topic)
        where = f"partition {self._partition} of `{topic}`"
        if topic == self._names.coordination and range.end == 0 < input.next_offset:
            raise TakeoverRefused(
                f"{where} is empty, but the ledger has read {input.next_offset} offsets of it: the"
                f" topic was lost, or the ledger is older; {record_digest.BEFORE_RELEASE}"
            )
        if not range.start <= input.next_offset <= range.end:
            raise TakeoverRefused(
                f"{where} has offsets {range.start} to {range.end}; the ledger's position is"
                f" {input.next_offset}"
            )
        if input.last_offset >= range.start:
            last = self._reader.at(topic, self._partition, input.last_offset)
            if last is None or digest(last) != input.last_digest:
                raise TakeoverRefused(
                    f"{where} has another record at {input.last_offset} than was read"
                )

    def check_journal(self, position: PartitionPosition | None) -> CommittedRecord | None:
        """The journal ends where the state does, with the record that is returned. Without a state
        there is no journal: else the state was lost, and all would be decided again."""
        topic = self._names.journal
        last = self._reader.last(topic, self._partition)
        where = f"partition {self._partition}: `{topic}`"
        if position is None:
            if last is not None:
                raise TakeoverRefused(
                    f"{where} is not empty, but `{self._names.state}` is: the state was lost"
                )
        elif last is None or journal.hash_of(last.value or b"") != position.last_hash:
            raise TakeoverRefused(f"{where} does not end where the state does")
        return last

    def _hash_at(self, offset: int) -> str | None:
        topic = self._names.journal
        range = self._range(topic)
        if not range.start <= offset < range.end:
            return None
        read = self._reader.at(topic, self._partition, offset)
        return None if read is None else journal.hash_of(read.value or b"")

    def _range(self, topic: str) -> OffsetRange:
        return self._reader.range(topic, self._partition)


def check_ledger_id(position: PartitionPosition, ledger_id: str) -> None:
    """The state is this ledger's, and was made by a release."""
    if not position.incarnation:
        raise TakeoverRefused(
            f"partition {position.partition.partition} of `state` has no incarnation:"
            f" {record_digest.BEFORE_RELEASE}"
        )
    other = position.partition.ledger_id
    if other != ledger_id:
        raise TakeoverRefused(
            f"these topics hold the ledger {other!r}, not {ledger_id!r}: LEDGER_ID is wrong, or"
            " TOPIC_PREFIX"
        )


def check_owner(position: PartitionPosition, ledger_id: str, partitions: int) -> None:
    """The state is this ledger's, and these rules can go on with it."""
    at = position.partition
    check_ledger_id(position, ledger_id)
    if at.partitions != partitions:
        raise TakeoverRefused(
            f"the ledger has {at.partitions} partitions for life, but its topics have {partitions}"
        )
    if at.settings is None:
        raise TakeoverRefused(f"partition {at.partition} has a state but no settings")
    if (reason := unsupported(at.settings, partitions)) is not None:
        raise TakeoverRefused(f"partition {at.partition}: {reason}")


def unsupported(settings: LedgerParameters, partitions: int) -> str | None:
    """Why this program cannot go on with a partition that has these settings; None if it can."""
    if settings.format_level > FORMAT_LEVEL:
        return record_digest.too_new(settings.format_level)
    if settings.rules_version not in RULES_VERSIONS:
        return (
            f"the ledger is decided by rules version {settings.rules_version}; this program has"
            f" {sorted(RULES_VERSIONS)}: upgrade it (docs/upgrading.md)"
        )
    lanes = topics.lanes(partitions)
    if settings.lanes != lanes:
        return (
            f"the ledger is in lane layout {settings.lanes} (its partitions form {settings.lanes}"
            f" lanes); this program has layout {lanes}: {record_digest.BEFORE_RELEASE}"
        )
    return None
