"""A process that begins anew by itself where Kafka went away in the middle of something.

Whether that was done can then only be found out as after a crash, by who takes over. So the process
replaces itself by a new one, as a supervisor would, and waits for the brokers as any new one does.
Only after errors that pass: whatever else fails ends it.
"""

import os
import sys
import time
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from plumbing import kafka

_ABSENCE: Final = kafka.PASSING | {
    # What the client gives up after a while: a record, a transaction with a record that it gave up,
    # a request, and what it sent after those.
    KafkaError._MSG_TIMED_OUT,
    KafkaError._INCONSISTENT,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    # And the brokers: they ended the transaction themselves, or cannot say yet.
    KafkaError.INVALID_TXN_STATE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
}
# So many beginnings, each soon after the one before, are no outage.
MOST: Final = 10
SOON_S: Final = 30.0
_BEGINNINGS: Final = "STREAMLEDGER_BEGINNINGS"
_began_at: Final = time.monotonic()


def helps(error: BaseException) -> bool:
    passes = isinstance(error, kafka.NoAnswer) or (
        isinstance(error, KafkaException) and error.args[0].code() in _ABSENCE
    )
    return passes and _beginnings() <= MOST


def restart() -> None:
    """Does not return."""
    os.environ[_BEGINNINGS] = str(_beginnings())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _beginnings() -> int:
    """How many there would have been in a row."""
    soon = time.monotonic() - _began_at < SOON_S
    return 1 + (int(os.environ.get(_BEGINNINGS, "0")) if soon else 0)
