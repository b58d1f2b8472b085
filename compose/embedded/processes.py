"""Processes that we start, and how they are found again after their parent was killed.

Rule: a process is ours by recorded identity alone, its pid together with the moment that it was
started, never by its name. Each runs in a session of its own, so that Ctrl-C in the terminal
reaches only the supervisor and the order of stopping is kept. It must not know what they serve.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path

import psutil

from compose.embedded import problems
from compose.embedded.problems import Interrupted, RuntimeProblem

POLL_S = 0.02
MARK = "STREAMLEDGER_STARTED_AS"
LOG_KEPT_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True)
class ProcessIdentity:
    """One process for all time: a pid comes back, the moment of its start does not."""

    pid: int
    started: str

    def alive(self) -> bool:
        return identify(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a running process; None for one that is gone or only waits to be reaped."""
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        if sys.platform != "linux":
            return ProcessIdentity(pid, f"{process.create_time():.3f}")
        # Ticks since boot: unlike a time of day they do not move when the clock is set.
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return ProcessIdentity(pid, f"{boot}:{ticks}")
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None


@dataclass(frozen=True)
class ProcessRecord:
    """What is kept on disk about one process while it should run."""

    name: str
    order: int
    mark: str
    pid: int
    started: str
    address: str
    log: str
    stop_signal: int
    stop_s: float
    together: str  # those of one such name are stopped at the same time

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.started)


class Ended(RuntimeProblem):
    """A process ended that should have gone on."""


class Process:
    """A process that this one started, with its record."""

    def __init__(self, child: "subprocess.Popen[bytes]", record: ProcessRecord, path: Path) -> None:
        self.child = child
        self.record = record
        self._path = path

    def exit_code(self) -> int | None:
        return self.child.poll()

    def listens(self, port: int) -> bool:
        """Whether it is this process that is reached at the port, and not somebody else."""
        try:
            sockets = psutil.Process(self.child.pid).net_connections("tcp")
        except psutil.Error:
            return False
        return any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets)

    def kill(self) -> None:
        """As a crash would end it; the record stays, as it would."""
        self.child.kill()
        self.child.wait()

    def stop(self) -> int:
        """Sends its stop signal, after a deadline SIGKILL, and removes the record."""
        self.child.send_signal(self.record.stop_signal)
        try:
            code = self.child.wait(self.record.stop_s)
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = self.child.wait()
        self.forget()
        return code

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)

    def wait_until(
        self, ready: Callable[[], bool], timeout_s: float, stop: threading.Event
    ) -> None:
        """Returns once ready; raises when the process ends, the time is over, or stop is set."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if stop.wait(POLL_S):
                raise Interrupted
            name, code = self.record.name, self.exit_code()
            if code is not None:
                raise Ended(f"{name} ended with exit code {code}:\n{tail(Path(self.record.log))}")
            if time.monotonic() > deadline:
                raise RuntimeProblem(
                    f"{name} was not ready within {timeout_s:g} s:\n{tail(Path(self.record.log))}"
                )

    def succeed(self, timeout_s: float, stop: threading.Event) -> None:
        """Returns when it has ended well; whatever happens it is gone then."""
        deadline = time.monotonic() + timeout_s
        try:
            while self.exit_code() is None:
                if stop.wait(POLL_S):
                    raise Interrupted
                if time.monotonic() > deadline:
                    break
        finally:
            code = self.stop()
        if code != 0:
            name = self.record.name
            raise Ended(f"{name} failed with exit code {code}:\n{tail(Path(self.record.log))}")


class ProcessRegistry:
    """The records of one data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()

    def spawn(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        address: str,
        environment: Mapping[str, str],
        folder: Path = Path("/"),
        user: int | None = None,
        group: int | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        stop_s: float = 15,
        together: str = "",
    ) -> Process:
        """Starts a process and records it. The mark in its environment is on disk before it starts,
        so that one whose record was cut short is found too."""
        path = self._folder / f"{name}.json"
        mark = secrets.token_hex(16)
        record = ProcessRecord(
            name=name,
            order=time.time_ns(),
            mark=mark,
            pid=0,
            started="",
            address=address,
            log=str(log),
            stop_signal=int(stop_signal),
            stop_s=stop_s,
            together=together or name,
        )
        with self._guard:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                log.parent.mkdir(parents=True, exist_ok=True)
                rotate(log)
                write_private(path, json.dumps(asdict(record)))
                with log.open("ab") as output:
                    child = subprocess.Popen(
                        command,
                        cwd=folder,
                        env={**environment, MARK: mark},
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        user=user,
                        group=group,
                        extra_groups=None if user is None else [],
                    )
            except OSError as error:
                path.unlink(missing_ok=True)
                raise problems.of_system(error, f"starting {name}") from error
            identity = identify(child.pid)
            started = identity.started if identity else "already ended"
            record = replace(record, pid=child.pid, started=started)
            write_private(path, json.dumps(asdict(record)))
        return Process(child, record, path)

    def records(self) -> list[ProcessRecord]:
        """All that is recorded, the first started first."""
        found = []
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                found.append(ProcessRecord(**json.loads(path.read_text())))
        return sorted(found, key=lambda record: record.order)

    def running(self) -> list[ProcessRecord]:
        """The recorded processes that are alive, the first started first."""
        return [r for r in map(with_identity, self.records()) if r.identity.alive()]

    def stop_stale(self) -> list[str]:
        """Stops what an earlier run left behind, the last started first; returns the names."""
        stopped = []
        recorded = [with_identity(record) for record in reversed(self.records())]
        for _, group in groupby(recorded, key=lambda record: record.together):
            at_once = [record for record in group if record.identity.alive()]
            with ThreadPoolExecutor(len(at_once) or 1) as pool:
                list(pool.map(end, at_once))
            stopped += [record.name for record in at_once]
        for record in recorded:
            (self._folder / f"{record.name}.json").unlink(missing_ok=True)
        return stopped


def with_identity(record: ProcessRecord) -> ProcessRecord:
    """The record, completed from the mark where its writer died before it knew the pid."""
    if record.pid:
        return record
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == record.mark and (found := identify(process.pid)):
                return replace(record, pid=found.pid, started=found.started)
    return record


def end(record: ProcessRecord) -> None:
    """Ends a process that is nobody's child of ours; returns when it is gone."""
    for number in (signal.Signals(record.stop_signal), signal.SIGKILL):
        record.identity.send(number)
        if gone(record.identity, record.stop_s):
            return
    raise RuntimeProblem(f"{record.name} (pid {record.pid}) does not end, not even when killed.")


def gone(identity: ProcessIdentity, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while identity.alive():
        if time.monotonic() > deadline:
            return False
        pause.wait(POLL_S)
    return True


def write_private(path: Path, text: str) -> None:
    """Replaces a file whole; nobody but its owner may read it."""
    new = path.with_suffix(".new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        new.replace(path)
    except OSError as error:
        raise problems.of_system(error, f"writing {path.name}") from error


def rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_KEPT_BYTES:
        log.replace(log.with_suffix(".log.1"))


def tail(log: Path, lines: int = 12) -> str:
    """The end of a log, for showing beside an error."""
    if not log.exists():
        return f"    ({log} is not there)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16 * 1024))
        text = file.read().decode(errors="replace")
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) + f"\n    ({log})"
