"""Starts every part in order, keeps the parts running, and stops them in the reverse order.

Rule: nothing half started is left, and nothing is left running. A part that dies is started again,
later each time; that is also how a processor that gave up its partitions comes back. It must not
know what the parts do.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from time import monotonic

from compose.embedded import processes
from compose.embedded.console import Display, Row
from compose.embedded.problems import RuntimeProblem

LOOK_S = 0.2
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
STEADY_S = 60.0  # a part that ran for so long starts at once after a failure


class PartState(StrEnum):
    """What a part is doing; `yours` is one that somebody else runs."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    YOURS = "yours"


@dataclass
class SupervisedPart:
    """One line of the table. `launch` starts its process without waiting, `answers` asks once."""

    name: str
    address: str
    port: int
    answers: Callable[[], bool]
    launch: Callable[[], processes.Process] | None = None
    process: processes.Process | None = None
    state: PartState = PartState.STARTING
    began_at: float = 0.0
    due_at: float = 0.0
    backoff_s: float = FIRST_BACKOFF_S

    @property
    def log(self) -> str:
        return self.process.record.log if self.process else ""

    def ready(self) -> bool:
        """Whether it answers, and not somebody else at its address."""
        return self.process is not None and self.process.listens(self.port) and self.answers()

    def row(self) -> Row:
        return Row(self.name, self.address, str(self.state), self.log)


class Supervisor:
    """The parts that run, in the order of their start."""

    def __init__(
        self,
        display: Display,
        stop: threading.Event,
        changed: Callable[[Sequence[SupervisedPart]], None],
    ) -> None:
        self.parts: list[SupervisedPart] = []
        self._display = display
        self._stop = stop
        self._changed = changed

    def add(self, part: SupervisedPart) -> None:
        """Takes over a part, started or not; from now on it is stopped with the others."""
        self.parts.append(part)
        self._changed(self.parts)

    def launch(self, part: SupervisedPart) -> None:
        """Starts a part and adds it."""
        assert part.launch is not None, "only its owner starts what is somebody else's"
        part.process = part.launch()
        part.began_at = monotonic()
        self.add(part)

    def wait(self, part: SupervisedPart, timeout_s: float) -> None:
        """Returns when a part that was launched is ready."""
        assert part.process is not None, "it was launched"
        part.process.wait_until(part.ready, timeout_s, self._stop)
        self._move(part, PartState.READY)

    def watch(self) -> None:
        """Keeps all parts running until the stop flag is set."""
        while not self._stop.wait(LOOK_S):
            for part in self.parts:
                if part.process is not None and not self._stop.is_set():
                    self._look_after(part, part.process)

    def stop(self) -> None:
        """Stops all parts, the last started first."""
        own = [part.process for part in reversed(self.parts) if part.process is not None]
        for _, group in groupby(own, key=lambda process: process.record.together):
            at_once = list(group)
            names = ", ".join(process.record.name for process in at_once)
            self._display.say(f"  stopping {names}")
            with ThreadPoolExecutor(len(at_once)) as pool:
                list(pool.map(processes.Process.stop, at_once))
        self.parts.clear()

    def _look_after(self, part: SupervisedPart, process: processes.Process) -> None:
        if part.state is PartState.RESTARTING:
            if monotonic() >= part.due_at:
                self._restart(part)
        elif (code := process.exit_code()) is not None:
            self._died(part, process, code)
        elif part.state is PartState.STARTING and part.ready():
            self._move(part, PartState.READY)
            self._display.say(f"{part.name} is ready again")

    def _died(self, part: SupervisedPart, process: processes.Process, code: int) -> None:
        steady = monotonic() - part.began_at > STEADY_S
        part.backoff_s = FIRST_BACKOFF_S if steady else part.backoff_s
        self._display.say(
            f"{part.name} ended with exit code {code}; starting it again in "
            f"{part.backoff_s:g} s. The end of its log:\n"
            f"{processes.tail(Path(process.record.log))}",
            style="yellow",
        )
        part.due_at = monotonic() + part.backoff_s
        part.backoff_s = min(2 * part.backoff_s, LONGEST_BACKOFF_S)
        self._move(part, PartState.RESTARTING)

    def _restart(self, part: SupervisedPart) -> None:
        assert part.launch is not None, "what has a process was launched"
        part.began_at = monotonic()
        try:
            part.process = part.launch()
        except RuntimeProblem as problem:
            self._display.say(f"{part.name}: {problem}", style="yellow")
            part.due_at = monotonic() + part.backoff_s
            part.backoff_s = min(2 * part.backoff_s, LONGEST_BACKOFF_S)
            return
        self._move(part, PartState.STARTING)

    def _move(self, part: SupervisedPart, state: PartState) -> None:
        part.state = state
        self._changed(self.parts)
