"""The single writer of one partition: its table, and what the batch in flight will write of it.

It decides records in order and keeps what follows in memory; the lane's owner says when that is
produced and, once its Kafka transaction has committed, written to the table. It reads nothing by
itself and commits nothing.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from plumbing.failures import Failure
from processor.lanes import batch_output
from processor.lanes.admission import Admit, admit_all
from processor.lanes.batch_output import MAX_BYTES, BatchOutput
from processor.lanes.batch_reader import Batch
from processor.lanes.transaction_encoding import Encode
from processor.rules import engine, prefetch
from processor.rules.decision import BrokenInvariant, DecisionInput
from processor.state.checkpoint import LocalCheckpoint
from processor.state.record_digest import new_incarnation, position_after
from processor.state.store import Staged, StateStore
from schemas import coordination
from schemas.journal import OUTCOMES, genesis_hash
from schemas.ledger_parameters import Genesis, LedgerParameters
from schemas.state import InputPosition, PartitionPosition
from schemas.topics import Names

Outcomes = Counter[tuple[str, str]]


class PartitionWriter:
    def __init__(self, number: int, table: StateStore, encode_transaction: Encode) -> None:
        self.number = number
        self.table = table
        # When it last told itself what time it is, and its table's size.
        self.ticked_at = self.sized_at = 0.0
        self._encode_transaction = encode_transaction
        self._written = BatchOutput(number, "", encode_transaction)
        self._last: dict[str, DecisionInput] = {}
        self._staged: Staged = []
        self._told = _DeliveryReports()

    @property
    def position(self) -> PartitionPosition:
        position = self.table.position
        assert position is not None, "an owned partition has its genesis"
        return position

    @property
    def writes(self) -> bool:
        """Whether something was decided that is not committed."""
        return self._written.bytes > 0

    def decide_genesis(self, genesis: Genesis, settings: LedgerParameters) -> None:
        message = coordination.Configure(settings=settings, genesis=genesis)
        self._written = self._outputs(genesis_hash(genesis.ledger_id, self.number))
        input = engine.genesis(self.number, message, batch_output.encode_message(message))
        for decision in engine.apply(self.table, input):
            self._written.add(None, decision)

    def decide(self, batch: Batch, outcomes: Outcomes, admit: Admit = admit_all) -> Iterator[None]:
        """Yields where so much is decided that it must be committed before the rest; and before it
        raises why a record is not admitted."""
        position = self.position
        if batch.coordination_from != position.coordination.next_offset:
            raise BrokenInvariant(
                f"coordination is read from {batch.coordination_from}, not {position.coordination}"
            )
        if batch.commands_from != position.commands.next_offset:
            raise BrokenInvariant(f"read from {batch.commands_from}, not {position.commands}")
        self._written = self._outputs(position.last_hash)
        # Coordination messages first, so that no flood of commands can starve them.
        inputs = [*batch.messages, *batch.commands]
        self._fetch(inputs)
        for input in inputs:
            try:
                first = admit(self.table.partition, input)
            except Failure:
                if self.writes:
                    yield
                raise
            for each in first:
                self._decide(each, outcomes)
            self._decide(input, outcomes)
            self._last[input.topic] = input
            if self._written.bytes >= MAX_BYTES:
                yield

    def _decide(self, input: DecisionInput, outcomes: Outcomes) -> None:
        for decision in engine.apply(self.table, input):
            record = decision.record
            self._written.add(input.key, decision)
            if record.step in OUTCOMES:
                outcomes[record.step, record.reason or ""] += 1

    def _outputs(self, last_hash: str) -> BatchOutput:
        return BatchOutput(self.number, last_hash, self._encode_transaction)

    def _fetch(self, inputs: list[DecisionInput]) -> None:
        """All reads before deciding: in two calls, not one for each key."""
        table = self.table
        table.forget()
        table.fetch([key for input in inputs for key in prefetch.keys_read(input)])
        naming = [input for input in inputs if type(input.message) in prefetch.NAMING]
        table.fetch([key for input in naming for key in prefetch.keys_named(table, input)])

    def produce_records(self, producer: Producer, names: Names) -> None:
        self._told = _DeliveryReports()
        self._written.produce(producer, names, self._told.journal)

    def produce_state(self, producer: Producer, names: Names) -> None:
        """What it changes, the position last."""
        before = self.table.position or nowhere(self.table, new_incarnation())
        self._position = PartitionPosition(
            self.table.partition,
            position_after(self._last["commands"]) if "commands" in self._last else before.commands,
            position_after(self._last["coordination"])
            if "coordination" in self._last
            else before.coordination,
            self._written.last_hash,
            before.incarnation,
        )
        self._staged = self.table.staged()
        batch_output.produce_state(
            producer,
            names,
            self.number,
            self._staged,
            msgspec.msgpack.encode(self._position),
            self._told.state,
        )

    def write(self, producer: Producer) -> None:
        """To the table, what was produced and is committed."""
        told = self._told
        told.wait(producer)
        local = LocalCheckpoint(
            told.state_offset + 1,
            told.state_time_ms,
            told.journal_offset,
            self._written.last_hash,
            self._position.incarnation,
        )
        self.table.commit(self._staged, self._position, local)
        self._written = self._outputs(self._written.last_hash)
        self._last, self._staged = {}, []


class _DeliveryReports:
    """Where the transaction's last records lie: from their delivery reports."""

    def __init__(self) -> None:
        self.journal_offset = self.state_offset = -1
        self.state_time_ms = 0

    def journal(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.journal_offset = message.offset() or 0

    def state(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.state_offset, self.state_time_ms = message.offset() or 0, message.timestamp()[1]

    def wait(self, producer: Producer) -> None:
        """The reports of what a committed transaction holds are there; they may need to be
        fetched.
        """
        for _ in range(1_000):
            if self.state_offset >= 0 and self.journal_offset >= 0:
                return
            producer.poll(0.01)
        raise BrokenInvariant("a transaction was committed without its records")


def nowhere(table: StateStore, incarnation: bytes = b"") -> PartitionPosition:
    """Where a partition is that has no state."""
    return PartitionPosition(table.partition, InputPosition(), InputPosition(), "", incarnation)
