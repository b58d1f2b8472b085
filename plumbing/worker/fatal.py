"""The crash policy: what the failure of one lane does to its process, in every worker alike.

Nothing is skipped and nothing is guessed. Whatever a failure leaves unknown, the next owner finds
out from Kafka. It knows no lane: each worker names the errors of its own.
"""

import os
import signal
import threading
import traceback
from typing import Final

import structlog

from plumbing import reexec
from plumbing.failures import Failure
from plumbing.kafka import transient_errors

log = structlog.get_logger(__name__)

# What a supervisor sees: 1, an operator must act; 70, a defect.
EXIT_REFUSED: Final = 1
EXIT_CRASHED: Final = 70
# An orderly stop that takes longer is cut off.
STOP_TIMEOUT_S: Final = 15.0

Errors = tuple[type[BaseException], ...]


class CrashPolicy:
    """One per process. Lanes call `lane_failed` from their threads."""

    def __init__(
        self, stopping: threading.Event, *, restart_on: Errors = (), refuse_on: Errors = ()
    ) -> None:
        """`stopping` is set once the process has begun to stop. `restart_on` names errors that a
        new start mends, beside outages of Kafka; `refuse_on` those that an operator must see to,
        beside failures."""
        self.refusal: Failure | None = None
        self._stopping = stopping
        self._restart_on = restart_on
        self._refuse_on: Errors = (Failure, *refuse_on)

    def lane_failed(self, lane: int | None, error: BaseException) -> None:
        """Ends the process, in one of three ways.

        1. Restart: a new process takes the place of this one.
        2. Refuse: the worker stops in order, so that its group need not wait for it to time out.
        3. Crash: at once.
        """
        if transient_errors.is_transient(error) or isinstance(error, self._restart_on):
            stopped = self._stopping.wait(reexec.PAUSE_S)
            if self.refusal is not None:
                return
            if not stopped:
                log.warning("restarting", lane=lane, error=str(error))
                reexec.restart()
        if isinstance(error, self._refuse_on):
            self._refuse(lane, error)
        else:
            _crash(lane, error)

    def _refuse(self, lane: int | None, error: BaseException) -> None:
        lines = str(error).splitlines()
        for line in lines:
            log.critical("refused", lane=lane, reason=line)
        self.refusal = error if isinstance(error, Failure) else Failure(*lines)
        timer = threading.Timer(STOP_TIMEOUT_S, os._exit, (EXIT_REFUSED,))
        timer.daemon = True
        timer.start()
        os.kill(os.getpid(), signal.SIGTERM)


def _crash(lane: int | None, error: BaseException) -> None:
    log.critical(
        "crashed",
        lane=lane,
        error=repr(error),
        traceback="".join(traceback.format_exception(error)),
    )
    os._exit(EXIT_CRASHED)
