"""A process that begins anew by itself where Kafka went away in the middle of something, or where
its client delivered records out of order.

Whether that was done can then only be found out as after a crash, by who takes over. So the process
replaces itself by a new one, as a supervisor would, and waits for the brokers as any new one does.
Only after errors that pass: whatever else fails ends it.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException

from plumbing import kafka
from plumbing.reader import OutOfOrder

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
STDERR: Final = 2
# Time for who was told to stop to hear of it, and for whoever reads the log.
PAUSE_S = 1.0

log = structlog.get_logger(__name__)


def helps(error: BaseException) -> bool:
    return isinstance(error, kafka.NoAnswer | OutOfOrder) or (
        isinstance(error, KafkaException) and error.args[0].code() in _ABSENCE
    )


def restart() -> None:
    """Does not return, unless it cannot be done: then the process has to end."""
    try:
        _inherit_nothing()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except Exception as error:
        log.error("no new beginning", error=repr(error))


def _inherit_nothing() -> None:
    """Python opens nothing for the program after it; its clients do."""
    for path in list(Path("/dev/fd").iterdir()):
        if (number := int(path.name)) > STDERR:
            # That of the list is closed by now.
            with suppress(OSError):
                os.set_inheritable(number, False)
