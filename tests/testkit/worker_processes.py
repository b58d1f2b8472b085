"""Processors as processes of their own, and a small supervisor that starts again whatever ended.

What they are made to suffer is for others to say: here they are started, killed, counted.
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
LEAST_LIFE_S = 2.0


class Worker(Program):
    """One processor with a data folder of its own."""

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
    """Programs of one kind that are started again as soon as they end, each time perhaps with a
    step at which to kill themselves."""

    def __init__(self, seed: int) -> None:
        self.workers: list[P] = []
        # Of all ends: the exit codes. Of those by kill -9: where, or why.
        self.exits: Counter[int] = Counter()
        self.kills: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._steps: Sequence[str] = ()
        self._chance = 1.0
        self._gone: list[P] = []
        self._plans: dict[int, deque[str]] = {}
        self._crashing: dict[int, str] = {}
        self._noted: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self._aside: set[int] = set()
        self._guard = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="crew", daemon=True)

    def __enter__(self) -> "ProcessSupervisor[P]":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for worker in (*self.workers, *self._gone):
            worker.kill()

    def crash_at(self, steps: Sequence[str], chance: float = 1.0) -> None:
        """From now on a worker that is started kills itself at one of these steps."""
        with self._guard:
            self._steps, self._chance = steps, chance

    def crash_next(self, worker: P, steps: Sequence[str]) -> None:
        """Each time that this one is started, it kills itself at the next of these steps."""
        with self._guard:
            self._plans[worker.number] = deque(steps)

    def add(self, worker: P) -> None:
        with self._guard:
            self._start(worker)
            self.workers.append(worker)

    def remove(self, worker: P) -> int:
        """Stops it cleanly; it does not come back."""
        with self._guard:
            self.workers.remove(worker)
            self._gone.append(worker)
            if not worker.running():
                return worker.exit_code() or 0
        return worker.stop()

    def stop(self) -> list[int]:
        """Stops all of them cleanly; none comes back. Returns their exit codes."""
        with self._guard:
            workers, self.workers = self.workers, []
            self._gone += workers
        return [worker.stop() if worker.running() else 0 for worker in workers]

    def tails(self) -> str:
        return "\n".join(worker.tail() for worker in self.workers)

    @contextmanager
    def aside(self, worker: P) -> Iterator[None]:
        """What ends meanwhile is started again afterwards."""
        with self._guard:
            self._aside.add(worker.number)
        try:
            yield
        finally:
            with self._guard:
                self._aside.discard(worker.number)

    def kill(self, worker: P, why: str) -> None:
        with self._guard:
            if worker.running():
                self._crashing[worker.number] = why
                worker.kill()
                self._note(worker)

    def wait_until_ready(self, timeout_s: float = 60) -> None:
        """All of them own what they should, and are where they should be."""
        eventually(lambda: all(worker.ready() for worker in self.workers), timeout_s)

    def _watch(self) -> None:
        while not self._over.wait(POLL_S):
            with self._guard:
                for worker in self.workers:
                    if worker.exit_code() is not None:
                        self._note(worker)
                        self._again(worker)

    def _note(self, worker: P) -> None:
        code = worker.exit_code()
        if code is None or self._noted.get(worker.number) == worker.pid:
            return
        self._noted[worker.number] = worker.pid
        self.exits[code] += 1
        if code == KILLED:
            self.kills[self._crashing.get(worker.number) or "unplanned"] += 1
        else:
            # What ends at once, again and again, must not eat the machine.
            self._not_before[worker.number] = worker.started_at + LEAST_LIFE_S

    def _again(self, worker: P) -> None:
        if worker.number in self._aside:
            return
        if time.monotonic() >= self._not_before.get(worker.number, 0.0):
            self._start(worker)

    def _start(self, worker: P) -> None:
        chance = self._chance
        step = self._dice.choice(self._steps) if self._steps else ""
        if plan := self._plans.get(worker.number):
            step, chance = plan.popleft(), 1.0
        self._crashing[worker.number] = step
        worker.start(CRASH_AT=step, CRASH_CHANCE=str(chance))
