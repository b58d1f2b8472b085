"""Processors as processes of their own, and a small supervisor that starts again whatever ended.

What a worker is made to suffer is for others to say: here it is started, killed, frozen, counted.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from compose.embedded import ports
from tests import brokers
from tests.waiting import eventually

POLL_S = 0.05
STOP_S = 20.0
LEAST_LIFE_S = 2.0
KILLED = -signal.SIGKILL
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")


class Worker:
    """One `python -m processor` with a data folder of its own. Not started yet."""

    def __init__(
        self, number: int, folder: Path, settings: Mapping[str, str], code: Path | None = None
    ) -> None:
        self.number = number
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.port = ports.next_free(brokers.some_port())
        self._settings = settings
        self._code = code
        self._child: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    def start(self, **settings: str) -> None:
        """`settings` go over the worker's own, for this once."""
        assert self.exit_code() is not None or self._child is None, "it runs"
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "PYTHONUNBUFFERED": "1",
            "DATA": str(self.data),
            "METRICS_PORT": str(self.port),
            **self._settings,
            **settings,
        }
        if self._code is not None:
            environment["PYTHONPATH"] = str(self._code)
        with self.log.open("ab") as log:
            # Elsewhere than in the checkout, whose .env is not for it.
            self._child = subprocess.Popen(
                [sys.executable, "-m", "processor"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        assert self._child is not None, "it was started"
        return self._child.pid

    def exit_code(self) -> int | None:
        """None while it runs, and before it was started."""
        return None if self._child is None else self._child.poll()

    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def kill(self) -> None:
        """As by kill -9; also when it is frozen."""
        if self._child is not None and self.running():
            self._child.kill()
            self._child.wait()

    def stop(self) -> int:
        """As an operator stops it."""
        assert self._child is not None, "it was started"
        self._child.terminate()
        try:
            return self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"worker {self.number} does not stop:\n{self.tail()}") from None

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        assert self._child is not None, "it was started"
        try:
            return self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"worker {self.number} has not ended within {timeout_s:g} s:\n{self.tail()}"
            ) from None

    def ready(self) -> bool:
        return self.get("/ready")[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=2) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def lose_disk(self) -> None:
        shutil.rmtree(self.data, ignore_errors=True)

    def told(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 30) -> str:
        last = self.told().splitlines()[-lines:]
        return "\n".join(f"    {line}" for line in last) + f"\n    ({self.log})"


class Crew:
    """Workers that are started again as soon as they end, each time perhaps with a step at which
    to kill themselves."""

    def __init__(self, seed: int) -> None:
        self.workers: list[Worker] = []
        # Of all ends: the exit codes. Of those by kill -9: where, or why.
        self.exits: Counter[int] = Counter()
        self.kills: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._steps: Sequence[str] = ()
        self._chance = 1.0
        self._gone: list[Worker] = []
        self._plans: dict[int, deque[str]] = {}
        self._crashing: dict[int, str] = {}
        self._noted: dict[int, int] = {}
        self._not_before: dict[int, float] = {}
        self._aside: set[int] = set()
        self._guard = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="crew", daemon=True)

    def __enter__(self) -> "Crew":
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

    def crash_next(self, worker: Worker, steps: Sequence[str]) -> None:
        """Each time that this one is started, it kills itself at the next of these steps."""
        with self._guard:
            self._plans[worker.number] = deque(steps)

    def add(self, worker: Worker) -> None:
        with self._guard:
            self._start(worker)
            self.workers.append(worker)

    def remove(self, worker: Worker) -> int:
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
    def aside(self, worker: Worker) -> Iterator[None]:
        """What ends meanwhile is started again afterwards."""
        with self._guard:
            self._aside.add(worker.number)
        try:
            yield
        finally:
            with self._guard:
                self._aside.discard(worker.number)

    def kill(self, worker: Worker, why: str) -> None:
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

    def _note(self, worker: Worker) -> None:
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

    def _again(self, worker: Worker) -> None:
        if worker.number in self._aside:
            return
        if time.monotonic() >= self._not_before.get(worker.number, 0.0):
            self._start(worker)

    def _start(self, worker: Worker) -> None:
        chance = self._chance
        step = self._dice.choice(self._steps) if self._steps else ""
        if plan := self._plans.get(worker.number):
            step, chance = plan.popleft(), 1.0
        self._crashing[worker.number] = step
        worker.start(CRASH_AT=step, CRASH_CHANCE=str(chance))
