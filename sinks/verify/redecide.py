"""Whether the rules, asked again, decide what the journal says: from the inputs and the settings
that it holds, byte for byte.

JSON is read again from the bytes in `commands`; of what is not kept, and of Avro, the record's own
decoded input is taken.
"""

import base64

import msgspec

from processor.rules import chain, engine
from processor.rules.decision import BrokenInvariant, DecisionInput
from processor.rules.journal_header import input_of
from processor.rules.state_view import MemoryState
from schemas import coordination
from schemas.commands import Command
from schemas.coordination import CoordinationMessage
from schemas.encoding import avro, codecs
from schemas.encoding.codecs import AvroSchemas
from schemas.journal import JournalRecord
from schemas.ledger_parameters import RULES_VERSIONS
from schemas.reasons import Reason
from schemas.validation.command_validation import UnreadableRecord
from sinks.verify.report import Differences

_encode = msgspec.json.Encoder().encode
_AVRO = (avro.CONFLUENT[:1], avro.SINGLE_OBJECT[:1])
_SCHEMAS = AvroSchemas()


class Redecision:
    """One partition's, from its genesis on. After a difference it goes no further: what follows
    rests on what was not decided so."""

    def __init__(self, partition: int, differences: Differences) -> None:
        self.compared = 0
        self._state = MemoryState(partition)
        self._partition = partition
        self._differences = differences
        self._came_due: list[tuple[int, bytes, JournalRecord]] = []
        self._lost = False

    def fold(
        self,
        offset: int,
        key: bytes | None,
        value: bytes,
        record: JournalRecord,
        answered: bytes | None,
    ) -> None:
        """`answered`: the bytes of the input, where they are kept."""
        if self._lost:
            return
        if record.source.topic == "expiry":
            self._came_due.append((offset, value, record))
            return
        told = [*self._came_due, (offset, value, record)]
        self._came_due = []
        settings = record.settings or self._state.partition.settings
        if settings is not None and settings.rules_version not in RULES_VERSIONS:
            version = settings.rules_version
            known = sorted(RULES_VERSIONS)
            self._end(offset, record, f"is of rules version {version}, this program has {known}")
            return
        try:
            decided = engine.apply(self._state, _input(key, record, answered))
        except (BrokenInvariant, AssertionError, KeyError, ValueError) as error:
            self._end(offset, record, f"cannot be decided: {error!r}")
            return
        if len(decided) != len(told):
            steps = [decision.record.step for decision in decided]
            self._end(offset, record, f"decided as {steps}, told as {len(told)} records")
            return
        for decision, (at, said, each) in zip(decided, told, strict=True):
            self.compared += 1
            if chain.seal(decision.record, each.previous_hash) != said:
                self._end(at, each, _difference(decision.record, each))
                return

    def finish(self) -> None:
        for offset, _, record in self._came_due:
            self._end(offset, record, "came due before nothing")

    def _end(self, offset: int, record: JournalRecord, what: str) -> None:
        self._lost = True
        self._differences.note(
            "rules",
            f"{what}; later records of the partition were not decided again",
            partition=self._partition,
            offset=offset,
            sequence=record.sequence,
            transaction_id=record.transaction_id,
        )


def _input(key: bytes | None, record: JournalRecord, answered: bytes | None) -> DecisionInput:
    source, value = record.source, answered
    message = _message(record, answered)
    if value is None and isinstance(message, CoordinationMessage):
        # Its digest is in the record; a message has one encoding alone.
        value = _encode(message)
    if value is None and record.refused is not None:
        value = base64.b64decode(record.refused.head)
    if source.topic == "genesis":
        assert isinstance(message, coordination.Configure), "a genesis is a configure message"
        return engine.genesis(record.partition, message, value or b"")
    assert source.topic != "expiry", "what came due has no input of its own"
    return input_of(source.topic, source.offset, key, value or b"", record.time_ms, message)


def _message(
    record: JournalRecord, answered: bytes | None
) -> Command | CoordinationMessage | UnreadableRecord:
    if record.source.topic == "commands":
        if answered is not None and answered[:1] not in _AVRO:
            return codecs.decode_command(answered, _SCHEMAS)
        # Avro needs the schemas of its day; what it meant is in the record.
        if record.command is not None:
            return record.command
    if record.message is not None:
        return record.message
    label = None if record.refused is None else record.refused.id
    return UnreadableRecord(record.reason or Reason.MALFORMED, record.detail or "", label)


def _difference(decided: JournalRecord, told: JournalRecord) -> str:
    for name in told.__struct_fields__:
        one, other = getattr(decided, name), getattr(told, name)
        if one != other and name != "previous_hash":
            return f"{name} is {other}, the rules say {one}"
    return "is written in other bytes than the rules' own"
