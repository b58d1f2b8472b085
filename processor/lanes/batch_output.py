"""What a batch will write to Kafka: collected while it is decided, produced afterwards.

Nothing is sent before the whole batch is decided. Bytes bound each transaction, not only records:
one command may have a hundred entries. It must not know what the records mean.
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

# For each partition. A full batch of plain credits is smaller: each cut costs a transaction.
MAX_BYTES = 12 * 1024 * 1024
MAX_KEY_BYTES = 256

_encode = msgspec.json.Encoder().encode
Headers = dict[str, str | bytes | None]
_DeliveryCallback = Callable[[KafkaError | None, Message], None]


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
        # By the partition that receives them.
        self._coordination: defaultdict[int, list[dict[str, object]]] = defaultdict(list)
        self._dead_letters: list[tuple[bytes | None, bytes, Headers]] = []

    def add(self, key: bytes | None, decision: Decision) -> None:
        record = decision.record
        if record.source.topic == "expiry":
            key = _key_of_expiry(record)
        elif key is not None:
            # A producer may write a key of any size. No account id is longer than this.
            key = key[:MAX_KEY_BYTES]
        value = chain.seal(record, self.last_hash)
        self.last_hash = journal.hash_of(value)
        self._journal.append({"key": key, "value": value})
        size = len(value) + len(key or b"")
        for transaction in decision.transactions:
            value = self._encode_transaction(transaction)
            self._transactions.append({"key": transaction.account_id, "value": value})
            size += len(value)
        for partition, message in decision.messages:
            value = _encode(message)
            self._coordination[partition].append({"key": key, "value": value})
            size += len(value)
        if decision.dead_letter is not None:
            letter = decision.dead_letter
            value = _encode(letter)
            headers: Headers = {
                "reason": str(letter.reason),
                "position": f"{letter.partition}:{letter.offset}",
            }
            self._dead_letters.append((key, value, headers))
            size += len(value)
        self.bytes += size

    def produce(self, producer: Producer, names: Names, on_delivery: _DeliveryCallback) -> None:
        """Everything but the state. `on_delivery` gets the report of the last journal record."""
        self._journal[-1]["callback"] = on_delivery
        transactional_producer.produce_all(producer, names.journal, self._journal, self._partition)
        transactional_producer.produce_all(
            producer, names.transactions, self._transactions, self._partition
        )
        for partition, messages in self._coordination.items():
            transactional_producer.produce_all(producer, names.coordination, messages, partition)
        for key, letter, headers in self._dead_letters:
            producer.produce(names.commands_dead, letter, key, headers=headers)


def _key_of_expiry(record: JournalRecord) -> bytes | None:
    """An expiry was not read and has no key: its account stands in."""
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
    on_delivery: _DeliveryCallback,
) -> None:
    """Writes to the changelog every changed key, the position last."""
    changes: list[dict[str, object]] = [{"key": key, "value": value} for key, value in staged]
    transactional_producer.produce_all(producer, names.state, changes, partition)
    producer.produce(names.state, position, state_keys.POSITION, partition, on_delivery=on_delivery)
