"""The data folder: who holds it, its secrets, and where each part keeps its files.

Rule: one holder at a time, by a lock that the kernel takes back when the holder dies. Secrets are
made at the first start and are readable by their owner alone.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from compose.embedded import os_user, problems, processes
from compose.embedded.problems import RuntimeProblem
from plumbing import folders

SIGNING_KEY = "SIGNING_KEY"
POSTGRES_PASSWORD = "POSTGRES_PASSWORD"
INGRESS_PASSWORD = "INGRESS_DATABASE_PASSWORD"
SINK_PASSWORD = "SINK_DATABASE_PASSWORD"
SECRETS = (SIGNING_KEY, POSTGRES_PASSWORD, INGRESS_PASSWORD, SINK_PASSWORD)
MARKER = "streamledger.json"
USERS = "users"
LAYOUT = 1


class Busy(RuntimeProblem):
    """Somebody else holds the folder."""


class DataFolder:
    """Everything that the embedded runtime keeps."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.kafka = self.path / "kafka"
        self.postgres = self.path / "postgres"
        self.logs = self.path / "log"
        self._run = self.path / "run"
        self.processes = processes.ProcessRegistry(self._run)
        self._lock: IO[str] | None = None

    def hold(self) -> None:
        """Makes the folder if need be and takes it; raises Busy where another process has it."""
        try:
            if not self.path.exists():
                folders.make_private(self.path)
            self._recognise()
            self._close()  # only now is it certain that it is ours
            file = (self.path / "lock").open("a")
        except OSError as error:
            raise problems.of_system(error, f"keeping data in {self.path}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise Busy(f"The data folder {self.path} is in use.") from error
        self._lock = file

    def _close(self) -> None:
        for each in (self.path, self.kafka, self.logs, self._run):
            folders.make_private(each)

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def held(self) -> bool:
        """Whether some process holds it now."""
        try:
            with (self.path / "lock").open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def clear(self) -> None:
        """Deletes everything except the lock. The caller must hold the folder."""
        try:
            shutil.rmtree(os_user.outside(self.postgres), ignore_errors=True)
            for entry in self.path.iterdir():
                if entry.name in ("lock", MARKER):
                    continue
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
            self._close()
        except OSError as error:
            raise problems.of_system(error, "clearing the data folder") from error

    def secrets(self) -> dict[str, str]:
        """The keys and passwords of this folder, created at first use."""
        path = self.path / "secrets.env"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = dict(line.split("=", 1) for line in lines if "=" in line)
        wanted = {name: kept.get(name) or secrets.token_hex(32) for name in SECRETS}
        if wanted != kept:
            text = "".join(f"{name}={value}\n" for name, value in wanted.items())
            processes.write_private(path, text)
        return wanted

    @property
    def secured(self) -> bool:
        """Whether its Kafka authenticates clients."""
        return self._users.exists()

    def passwords(self, users: Sequence[str]) -> dict[str, str]:
        """Of Kafka's users, created at first use."""
        known: dict[str, str] = json.loads(self._users.read_text()) if self.secured else {}
        wanted = {user: known.get(user) or secrets.token_hex(32) for user in users}
        if wanted != known:
            processes.write_private(self._users, json.dumps(wanted, indent=2) + "\n")
        return wanted

    def open_to_all(self) -> None:
        """From now on its Kafka requires no authentication."""
        self._users.unlink(missing_ok=True)
        shutil.rmtree(self.path / USERS, ignore_errors=True)

    @property
    def _users(self) -> Path:
        return self.path / "users.json"

    def _recognise(self) -> None:
        """Refuses a folder that has files of somebody else, which --fresh would delete."""
        marker = self.path / MARKER
        if not marker.exists():
            if any(entry.name != "lock" for entry in self.path.iterdir()):
                raise RuntimeProblem(
                    f"{self.path} is not empty and not a StreamLedger data folder. Choose another "
                    "with --data."
                )
            processes.write_private(marker, json.dumps({"layout": LAYOUT}) + "\n")
        elif json.loads(marker.read_text()).get("layout") != LAYOUT:
            raise RuntimeProblem(f"{self.path} was made by another version of StreamLedger.")
        if not os.access(self.path, os.W_OK):
            raise PermissionError(13, "Permission denied", str(self.path))
