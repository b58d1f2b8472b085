"""Places where a test may have the process killed, as if by kill -9, or frozen: named steps of a
commit order.

Off unless CRASH_AT names a step (or `*`); production refuses that setting. `freeze:STEP` stops the
process there once, as SIGSTOP does, until somebody wakes it.
"""

import os
import random
import signal
import threading

FREEZE = "freeze:"


class CrashPoints:
    """`step` names where to die, with a chance each time that it is reached."""

    def __init__(self, step: str, chance: float = 1.0) -> None:
        self._step = step.removeprefix(FREEZE)
        self._freeze = step.startswith(FREEZE)
        self._chance = chance
        self._random = random.Random()

    def reach(self, step: str) -> None:
        if self._step and self._step in (step, "*") and self._random.random() < self._chance:
            if not self._freeze:
                os.kill(os.getpid(), signal.SIGKILL)
            self._step = ""
            # Sent to the process, another thread would take it, and this one go on until it has.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
