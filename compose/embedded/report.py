"""What a running `up` says about itself to those that ask from outside, in a file.

Rule: a reader trusts it only as far as the processes that it names are alive. No secret in it.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from compose.embedded import processes
from compose.embedded.data_dir import DataFolder
from compose.embedded.processes import ProcessIdentity
from compose.embedded.supervisor import PartState

NAME = "up.json"
STOPPED = "stopped"
LEFT_BEHIND = "left behind"  # alive, and the `up` that started it is not


@dataclass(frozen=True)
class PartReport:
    name: str
    address: str
    state: str
    log: str


@dataclass(frozen=True)
class RuntimeReport:
    """`url` is where the HTTP side answers, once that is known."""

    pid: int
    started: str
    url: str
    parts: tuple[PartReport, ...]

    @property
    def identity(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.started)

    def ready(self) -> bool:
        states = {part.state for part in self.parts}
        return bool(states) and states <= {PartState.READY, PartState.YOURS}


def write(folder: DataFolder, url: str, parts: Sequence[PartReport]) -> None:
    me = processes.identify(os.getpid())
    assert me is not None, "this process is alive"
    report = RuntimeReport(me.pid, me.started, url, tuple(parts))
    processes.write_private(folder.path / NAME, json.dumps(asdict(report), indent=2) + "\n")


def read(folder: DataFolder) -> RuntimeReport | None:
    """The last report, as it was written; the files' own race is the writer's rename."""
    try:
        kept = json.loads((folder.path / NAME).read_text())
    except FileNotFoundError:
        return None
    parts = tuple(PartReport(**part) for part in kept.pop("parts"))
    return RuntimeReport(**kept, parts=parts)


def look(folder: DataFolder) -> tuple[RuntimeReport | None, list[PartReport]]:
    """The report of a running `up`, or none; and the parts as they are now."""
    report = read(folder)
    alive = {record.name: record for record in folder.processes.running()}
    if report is None:
        return None, [left_behind(record) for record in alive.values()]
    if report.identity.alive():
        return report, list(report.parts)
    known = [
        left_behind(alive.pop(part.name))
        if part.name in alive
        else PartReport(part.name, part.address, STOPPED, part.log)
        for part in report.parts
    ]
    return None, known + [left_behind(record) for record in alive.values()]


def left_behind(record: processes.ProcessRecord) -> PartReport:
    return PartReport(record.name, record.address, LEFT_BEHIND, str(Path(record.log)))
