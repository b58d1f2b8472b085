"""The single writer of one partition: its store, and what the batch in flight will write of it.

It decides records in order and keeps the results in memory. The lane says when they are produced
and, once their Kafka transaction has committed, written to the store. It reads nothing by itself
and commits nothing.
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
    def __init__(self, number: int, store: StateStore, encode_transaction: Encode) -> None:
        self.number = number
        self.store = store
        # When it last wrote a tick, and when it last measured its store.
        self.ticked_at = self.sized_at = 0.0
        self._encode_transaction = encode_transaction
        self._output = BatchOutput(number, "", encode_transaction)
        self._last_inputs: dict[str, DecisionInput] = {}
        self._staged: Staged = []
        self._delivery = _DeliveryReports()

    @property
    def position(self) -> PartitionPosition:
        position = self.store.position
        assert position is not None, "an owned partition has its genesis"
        return position

    @property
    def writes(self) -> bool:
        """Whether it has decided something that is not committed."""
        return self._output.bytes > 0

    def decide_genesis(self, genesis: Genesis, settings: LedgerParameters) -> None:
        message = coordination.Configure(settings=settings, genesis=genesis)
        self._output = self._new_output(genesis_hash(genesis.ledger_id, self.number))
        input = engine.genesis(self.number, message, batch_output.encode_message(message))
        for decision in engine.apply(self.store, input):
            self._output.add(None, decision)

    def decide(self, batch: Batch, outcomes: Outcomes, admit: Admit = admit_all) -> Iterator[None]:
        """Yields when so much is decided that it must be committed before the rest. If a record is
        not admitted, it yields what precedes it, then raises the reason."""
        position = self.position
        if batch.coordination_from != position.coordination.next_offset:
            raise BrokenInvariant(
                f"coordination is read from {batch.coordination_from}, not {position.coordination}"
            )
        if batch.commands_from != position.commands.next_offset:
            raise BrokenInvariant(f"read from {batch.commands_from}, not {position.commands}")
        self._output = self._new_output(position.last_hash)
        # Coordination messages first, so that no flood of commands can starve them.
        inputs = [*batch.messages, *batch.commands]
        self._prefetch(inputs)
        for input in inputs:
            try:
                inserted = admit(self.store.partition, input)
            except Failure:
                if self.writes:
                    yield
                raise
            for operator_input in inserted:
                self._decide(operator_input, outcomes)
            self._decide(input, outcomes)
            self._last_inputs[input.topic] = input
            if self._output.bytes >= MAX_BYTES:
                yield

    def _decide(self, input: DecisionInput, outcomes: Outcomes) -> None:
        for decision in engine.apply(self.store, input):
            record = decision.record
            self._output.add(input.key, decision)
            if record.step in OUTCOMES:
                outcomes[record.step, record.reason or ""] += 1

    def _new_output(self, last_hash: str) -> BatchOutput:
        return BatchOutput(self.number, last_hash, self._encode_transaction)

    def _prefetch(self, inputs: list[DecisionInput]) -> None:
        """All reads happen before deciding, in two calls instead of one for each key."""
        store = self.store
        store.forget()
        store.fetch([key for input in inputs for key in prefetch.keys_read(input)])
        naming = [input for input in inputs if type(input.message) in prefetch.NEEDS_SECOND_ROUND]
        store.fetch([key for input in naming for key in prefetch.keys_named(store, input)])

    def produce_records(self, producer: Producer, names: Names) -> None:
        self._delivery = _DeliveryReports()
        self._output.produce(producer, names, self._delivery.journal)

    def produce_state(self, producer: Producer, names: Names) -> None:
        """Every changed key, the position last."""
        before = self.store.position or nowhere(self.store, new_incarnation())
        self._position = PartitionPosition(
            self.store.partition,
            position_after(self._last_inputs["commands"])
            if "commands" in self._last_inputs
            else before.commands,
            position_after(self._last_inputs["coordination"])
            if "coordination" in self._last_inputs
            else before.coordination,
            self._output.last_hash,
            before.incarnation,
        )
        self._staged = self.store.staged()
        batch_output.produce_state(
            producer,
            names,
            self.number,
            self._staged,
            msgspec.msgpack.encode(self._position),
            self._delivery.state,
        )

    def write(self, producer: Producer) -> None:
        """Writes to the store what was produced and is committed."""
        delivery = self._delivery
        delivery.wait(producer)
        local = LocalCheckpoint(
            delivery.state_offset + 1,
            delivery.state_time_ms,
            delivery.journal_offset,
            self._output.last_hash,
            self._position.incarnation,
        )
        self.store.commit(self._staged, self._position, local)
        self._output = self._new_output(self._output.last_hash)
        self._last_inputs, self._staged = {}, []


class _DeliveryReports:
    """The offsets of the transaction's last records, from their delivery reports."""

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
        """The client has the reports of a committed transaction, but may still hold them."""
        for _ in range(1_000):
            if self.state_offset >= 0 and self.journal_offset >= 0:
                return
            producer.poll(0.01)
        raise BrokenInvariant("a transaction was committed without its records")


def nowhere(store: StateStore, incarnation: bytes = b"") -> PartitionPosition:
    """The position of a partition that has no state."""
    return PartitionPosition(store.partition, InputPosition(), InputPosition(), "", incarnation)
