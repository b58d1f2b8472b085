"""Decides a journal's inputs again and compares the rules' records with the journal, byte for byte.

It decodes JSON again from `commands`. Where the input is deleted, or is Avro, it takes the decoded
input from the journal record. It is the only module of verify that calls the rules.
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
    """Covers one partition, from its genesis. It ends at the first difference, because later
    decisions depend on it."""

    def __init__(self, partition: int, differences: Differences) -> None:
        self.compared = 0
        self._state = MemoryState(partition)
        self._partition = partition
        self._differences = differences
        self._expired: list[tuple[int, bytes, JournalRecord]] = []
        self._ended = False

    def fold(
        self,
        offset: int,
        key: bytes | None,
        value: bytes,
        record: JournalRecord,
        input_value: bytes | None,
    ) -> None:
        """`input_value`: the bytes of the input, unless they are deleted."""
        if self._ended:
            return
        if record.source.topic == "expiry":
            self._expired.append((offset, value, record))
            return
        journaled = [*self._expired, (offset, value, record)]
        self._expired = []
        settings = record.settings or self._state.partition.settings
        if settings is not None and settings.rules_version not in RULES_VERSIONS:
            version = settings.rules_version
            supported = sorted(RULES_VERSIONS)
            self._end(
                offset,
                record,
                f"has rules version {version}, but this program supports {supported}",
            )
            return
        try:
            decided = engine.apply(self._state, _input(key, record, input_value))
        except (BrokenInvariant, AssertionError, KeyError, ValueError) as error:
            self._end(offset, record, f"the rules cannot decide it: {error!r}")
            return
        if len(decided) != len(journaled):
            steps = [decision.record.step for decision in decided]
            self._end(
                offset,
                record,
                f"the rules decide {steps}, but the journal has {len(journaled)} records",
            )
            return
        for decision, (journal_offset, journal_value, journal_record) in zip(
            decided, journaled, strict=True
        ):
            self.compared += 1
            if chain.seal(decision.record, journal_record.previous_hash) != journal_value:
                self._end(
                    journal_offset, journal_record, _difference(decision.record, journal_record)
                )
                return

    def finish(self) -> None:
        for offset, _, record in self._expired:
            self._end(offset, record, "expires, but no input follows")

    def _end(self, offset: int, record: JournalRecord, what: str) -> None:
        self._ended = True
        self._differences.note(
            "rules",
            f"{what}; later records of the partition were not decided again",
            partition=self._partition,
            offset=offset,
            sequence=record.sequence,
            transaction_id=record.transaction_id,
        )


def _input(key: bytes | None, record: JournalRecord, input_value: bytes | None) -> DecisionInput:
    source, value = record.source, input_value
    message = _message(record, input_value)
    if value is None and isinstance(message, CoordinationMessage):
        # A message has only one encoding, and the record has its digest.
        value = _encode(message)
    if value is None and record.refused is not None:
        value = base64.b64decode(record.refused.head)
    if source.topic == "genesis":
        assert isinstance(message, coordination.Configure), "a genesis is a configure message"
        return engine.genesis(record.partition, message, value or b"")
    assert source.topic != "expiry", "an expiry has no input of its own"
    return input_of(source.topic, source.offset, key, value or b"", record.time_ms, message)


def _message(
    record: JournalRecord, input_value: bytes | None
) -> Command | CoordinationMessage | UnreadableRecord:
    if record.source.topic == "commands":
        if input_value is not None and input_value[:1] not in _AVRO:
            return codecs.decode_command(input_value, _SCHEMAS)
        # Avro needs the schemas of its time; the record has the decoded command.
        if record.command is not None:
            return record.command
    if record.message is not None:
        return record.message
    label = None if record.refused is None else record.refused.id
    return UnreadableRecord(record.reason or Reason.MALFORMED, record.detail or "", label)


def _difference(decided: JournalRecord, journaled: JournalRecord) -> str:
    for name in journaled.__struct_fields__:
        decided_field, journaled_field = getattr(decided, name), getattr(journaled, name)
        if decided_field != journaled_field and name != "previous_hash":
            return f"{name} is {journaled_field}, the rules give {decided_field}"
    return "is encoded differently than by the rules"
