"""A service as a process of its own: started, asked, frozen, killed and started again.

What it serves, and what it is made to suffer, is for others to say.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import psutil

from compose.embedded import ports
from tests.testkit import brokers

STOP_S = 20.0
KILLED = -signal.SIGKILL
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR")
ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "plumbing", "processor", "sinks", "ingress", "compose")
# A file of the sources, a text in it, and the text of another version.
SourceEdit = tuple[str, str, str]
# The least that another version differs in.
FORMAT_LEVEL_2: SourceEdit = (
    "schemas/ledger_parameters.py",
    "FORMAT_LEVEL = 1\n",
    "FORMAT_LEVEL = 2\n",
)


def inherited() -> dict[str, str]:
    """What a program that is started by hand has from its shell, and no setting of anything."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def copy_sources(folder: Path, edits: Iterable[SourceEdit]) -> Path:
    """The sources of another version, in a folder of their own."""
    unwanted = shutil.ignore_patterns("__pycache__", "*.so")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=unwanted)
    for name, before, after in edits:
        text = (folder / name).read_text("utf-8")
        assert text.count(before) == 1, f"{name} has {before!r} {text.count(before)} times"
        (folder / name).write_text(text.replace(before, after), "utf-8")
    return folder


class Program:
    """One `python -m MODULE` with a folder, a log and a port of its own. Not started yet. `code`:
    a folder whose packages go before the installed ones."""

    MODULE = ""

    def __init__(
        self, number: int, folder: Path, settings: Mapping[str, str], code: Path | None = None
    ) -> None:
        self.number = number
        self.folder = folder
        self.log = folder / "log"
        self.port = ports.next_free(brokers.some_port())
        self.started_at = 0.0
        self._settings = settings
        self._code = code
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, **settings: str) -> Self:
        """`settings` go over the program's own, for this once."""
        assert not self.running(), "it runs"
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {
            **inherited(),
            "PYTHONUNBUFFERED": "1",
            "METRICS_PORT": str(self.port),
            **self._settings,
            **settings,
        }
        if self._code is not None:
            environment["PYTHONPATH"] = str(self._code)
        with self.log.open("ab") as log:
            # Elsewhere than in the checkout, whose .env is not for it.
            self._child = subprocess.Popen(
                [sys.executable, "-m", self.MODULE],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started_at = time.monotonic()
        return self

    @property
    def child(self) -> "subprocess.Popen[bytes]":
        assert self._child is not None, "it was started"
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    def exit_code(self) -> int | None:
        """None while it runs, and before it was started."""
        return None if self._child is None else self._child.poll()

    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def frozen(self) -> bool:
        return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED

    def send(self, number: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def kill(self) -> None:
        """As by kill -9; also when it is frozen."""
        if self.running():
            self.child.kill()
            self.child.wait()

    def stop(self) -> int:
        """As an operator stops it."""
        self.child.terminate()
        try:
            return self.child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self} does not stop:\n{self.tail()}") from None

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self} has not ended within {timeout_s:g} s:\n{self.tail()}"
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

    def numbers(self) -> dict[str, float]:
        """What it tells at /metrics, by name and labels as they stand there."""
        lines = self.get("/metrics")[1].splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self, lines: int = 30) -> str:
        last = self.log_text().splitlines()[-lines:]
        return "\n".join(f"    {line}" for line in last) + f"\n    ({self.log})"

    def __str__(self) -> str:
        return f"{self.MODULE} {self.number}"
