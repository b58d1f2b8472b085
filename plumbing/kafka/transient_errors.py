"""The errors that end with an outage of Kafka: a new start of the process helps.

Any other error is permanent and ends the process.
"""

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from plumbing.kafka import clients
from plumbing.kafka.partition_consumer import OutOfOrder

_OUTAGE: Final = clients.TRANSIENT | {
    # The client gave up: a record, a transaction with such a record, a request, or what followed.
    KafkaError._MSG_TIMED_OUT,
    KafkaError._INCONSISTENT,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    # The brokers ended the transaction, or cannot answer yet.
    KafkaError.INVALID_TXN_STATE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
}


def is_transient(error: BaseException) -> bool:
    return isinstance(error, clients.NoAnswer | OutOfOrder) or (
        isinstance(error, KafkaException) and error.args[0].code() in _OUTAGE
    )
