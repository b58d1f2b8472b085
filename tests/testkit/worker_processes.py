"""Processors as separate processes, and a supervisor that restarts programs that end.

It starts, kills and counts. It must not know which faults are injected, or why.
"""

import random
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from tests.testkit.programs import KILLED, Program
from tests.testkit.waiting import eventually

POLL_S = 0.05
MIN_LIFETIME_S = 2.0


class Worker(Program):
    """One processor with its own data folder."""

    MODULE = "processor"

    def __init__(
        self, number: int, folder: Path, settings: Mapping[str, str], code: Path | None = None
    ) -> None:
        self.data = folder / "data"
        super().__init__(number, folder, {"DATA": str(self.data), **settings}, code)

    def lose_disk(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)


P = TypeVar("P", bound=Program)


class ProcessSupervisor(Generic[P]):
    """Restarts programs of one kind as soon as they end, optionally with a crash point at which
    they kill themselves."""

    def __init__(self, seed: int) -> None:
        self.programs: list[P] = []
        # Exit codes of all ends; crash points or reasons of those by kill -9.
        self.exits: Counter[int] = Counter()
        self.kills: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._steps: Sequence[str] = ()
        self._chance = 1.0
        self._removed: list[P] = []
        self._plans: dict[int, deque[str]] = {}
        self._kill_reasons: dict[int, str] = {}
        self._noted_pids: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self._aside: set[int] = set()
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="crew", daemon=True)

    def __enter__(self) -> "ProcessSupervisor[P]":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for program in (*self.programs, *self._removed):
            program.kill()

    def crash_at(self, steps: Sequence[str], chance: float = 1.0) -> None:
        """From now on each started program kills itself at one of these crash points."""
        with self._lock:
            self._steps, self._chance = steps, chance

    def crash_next(self, program: P, steps: Sequence[str]) -> None:
        """At each start this program kills itself at the next of these crash points."""
        with self._lock:
            self._plans[program.number] = deque(steps)

    def add(self, program: P) -> None:
        with self._lock:
            self._start(program)
            self.programs.append(program)

    def remove(self, program: P) -> int:
        """Stops a program cleanly and for good. Returns its exit code."""
        with self._lock:
            self.programs.remove(program)
            self._removed.append(program)
            if not program.running():
                return program.exit_code() or 0
        return program.stop()

    def stop(self) -> list[int]:
        """Stops all programs cleanly and for good. Returns their exit codes."""
        with self._lock:
            programs, self.programs = self.programs, []
            self._removed += programs
        return [program.stop() if program.running() else 0 for program in programs]

    def tails(self) -> str:
        return "\n".join(program.tail() for program in self.programs)

    @contextmanager
    def aside(self, program: P) -> Iterator[None]:
        """Suspends restarts of a program."""
        with self._lock:
            self._aside.add(program.number)
        try:
            yield
        finally:
            with self._lock:
                self._aside.discard(program.number)

    def kill(self, program: P, why: str) -> None:
        with self._lock:
            if program.running():
                self._kill_reasons[program.number] = why
                program.kill()
                self._count_exit(program)

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """Waits until all programs report that they are ready."""
        eventually(lambda: all(program.ready() for program in self.programs), timeout_s)

    def _watch(self) -> None:
        while not self._stopping.wait(POLL_S):
            with self._lock:
                for program in self.programs:
                    if program.exit_code() is not None:
                        self._count_exit(program)
                        self._restart(program)

    def _count_exit(self, program: P) -> None:
        code = program.exit_code()
        if code is None or self._noted_pids.get(program.number) == program.pid:
            return
        self._noted_pids[program.number] = program.pid
        self.exits[code] += 1
        if code == KILLED:
            self.kills[self._kill_reasons.get(program.number) or "unplanned"] += 1
        else:
            # A program that keeps ending at once must not use up the machine.
            self._not_before[program.number] = program.started_at + MIN_LIFETIME_S

    def _restart(self, program: P) -> None:
        if program.number in self._aside:
            return
        if time.monotonic() >= self._not_before.get(program.number, 0.0):
            self._start(program)

    def _start(self, program: P) -> None:
        chance = self._chance
        step = self._rng.choice(self._steps) if self._steps else ""
        if plan := self._plans.get(program.number):
            step, chance = plan.popleft(), 1.0
        self._kill_reasons[program.number] = step
        program.start(CRASH_AT=step, CRASH_CHANCE=str(chance))
