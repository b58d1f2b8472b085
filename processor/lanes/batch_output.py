"""What a batch will write to Kafka: gathered while it is decided, produced once it is.

Nothing here is sent before the batch has been decided whole. Each transaction is bounded by
bytes, not by records alone: one command may have a hundred entries.
"""

from collections import defaultdict
from collections.abc import Callable

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from plumbing.kafka import transactional_producer
from processor.rules import chain
from processor.rules.decision import Decision
from processor.state.store import Staged
from schemas import journal, state_keys
from schemas.coordination import CoordinationMessage
from schemas.encoding import codecs
from schemas.journal import JournalRecord
from schemas.published_records import TransactionRecord
from schemas.topics import Names

# Of a partition. More than a full batch of plain credits has: what is left of a batch that was cut
# costs a transaction.
MAX_BYTES = 12 * 1024 * 1024
MAX_KEY_BYTES = 256

_encode = msgspec.json.Encoder().encode
Headers = dict[str, str | bytes | None]
_Delivered = Callable[[KafkaError | None, Message], None]


class BatchOutput:
    def __init__(
        self,
        partition: int,
        last_hash: str,
        encode_transaction: Callable[[TransactionRecord], bytes] = codecs.encode_json,
    ) -> None:
        self._partition = partition
        self._encode_transaction = encode_transaction
        self.last_hash = last_hash
        self.bytes = 0
        self._journal: list[dict[str, object]] = []
        self._transactions: list[dict[str, object]] = []
        # By the partition that they go to.
        self._coordination: defaultdict[int, list[dict[str, object]]] = defaultdict(list)
        self._dead: list[tuple[bytes | None, bytes, Headers]] = []

    def add(self, key: bytes | None, decision: Decision) -> None:
        record = decision.record
        if record.source.topic == "expiry":
            key = _key_of_expiry(record)
        elif key is not None:
            # Anyone may write a key of any size; no account's is longer than what is kept of it.
            key = key[:MAX_KEY_BYTES]
        value = chain.seal(record, self.last_hash)
        self.last_hash = journal.hash_of(value)
        self._journal.append({"key": key, "value": value})
        size = len(value) + len(key or b"")
        for transaction in decision.transactions:
            told = self._encode_transaction(transaction)
            self._transactions.append({"key": transaction.account_id, "value": told})
            size += len(told)
        for partition, message in decision.messages:
            sent = _encode(message)
            self._coordination[partition].append({"key": key, "value": sent})
            size += len(sent)
        if decision.dead_letter is not None:
            dead = decision.dead_letter
            letter = _encode(dead)
            position = f"{dead.partition}:{dead.offset}"
            self._dead.append((key, letter, {"reason": str(dead.reason), "position": position}))
            size += len(letter)
        self.bytes += size

    def produce(self, producer: Producer, names: Names, delivered: _Delivered) -> None:
        """All but the state; `delivered` is told of the last journal record."""
        self._journal[-1]["callback"] = delivered
        transactional_producer.produce_all(producer, names.journal, self._journal, self._partition)
        transactional_producer.produce_all(
            producer, names.transactions, self._transactions, self._partition
        )
        for partition, sent in self._coordination.items():
            transactional_producer.produce_all(producer, names.coordination, sent, partition)
        for key, letter, headers in self._dead:
            producer.produce(names.commands_dead, letter, key, headers=headers)


def _key_of_expiry(record: JournalRecord) -> bytes | None:
    """It was not read, so has none: its account."""
    account = record.command.account if record.command else None
    account = record.hold.account if record.hold else account
    return account.encode() if account else None


def encode_message(message: CoordinationMessage) -> bytes:
    return _encode(message)


def produce_state(
    producer: Producer,
    names: Names,
    partition: int,
    staged: Staged,
    position: bytes,
    delivered: _Delivered,
) -> None:
    """The changelog: every changed key, the position last."""
    changes: list[dict[str, object]] = [{"key": key, "value": value} for key, value in staged]
    transactional_producer.produce_all(producer, names.state, changes, partition)
    producer.produce(names.state, position, state_keys.POSITION, partition, on_delivery=delivered)
