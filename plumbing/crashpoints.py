"""Places where a test may have the process killed, as if by kill -9: named steps of a commit order.

Off unless CRASH_AT names a step (or `*`); production refuses that setting.
"""

import os
import random
import signal


class CrashPoints:
    """`step` names where to die, with a chance each time that it is reached."""

    def __init__(self, step: str, chance: float = 1.0) -> None:
        self._step = step
        self._chance = chance
        self._random = random.Random()

    def reach(self, step: str) -> None:
        if self._step and self._step in (step, "*") and self._random.random() < self._chance:
            os.kill(os.getpid(), signal.SIGKILL)
