"""Processes, ports and leftovers: what is ours is known by its identity, and none of it stays."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from compose.embedded import ports, processes, up
from compose.embedded.console import Display
from compose.embedded.data_dir import DataFolder
from compose.embedded.problems import RuntimeProblem
from compose.embedded.processes import Process, ProcessIdentity, ProcessRegistry
from compose.embedded.supervisor import PartState, SupervisedPart, Supervisor
from tests.testkit import brokers
from tests.testkit.waiting import eventually

IGNORES_SIGTERM = "trap '' TERM; echo ready; while :; do sleep 0.1; done"

WAITS = """
import pathlib, threading
import pytest
from tests.testkit import brokers

@pytest.fixture(scope="session")
def server(embedded_folder):
    with brokers.embedded_postgres(embedded_folder) as url:
        yield url

def test_waits(server, embedded_folder):
    pathlib.Path("folder").write_text(str(embedded_folder.path))
    while True:
        threading.Event().wait(0.05)
"""


class Home:
    """A registry with a folder for logs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "log"
        self.registry = ProcessRegistry(folder / "run")

    def spawn(self, name: str, script: str = "exec sleep 600", stop_s: float = 10) -> Process:
        return self.registry.spawn(
            name,
            ["sh", "-c", script],
            log=self.logs / f"{name}.log",
            address="",
            environment=dict(os.environ),
            stop_s=stop_s,
        )

    def rewrite(self, process: Process, **fields: object) -> None:
        path = self.folder / "run" / f"{process.record.name}.json"
        path.write_text(json.dumps({**asdict(process.record), **fields}))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.registry.stop_stale()


def test_what_is_left_behind_is_stopped_the_last_started_first(home: Home) -> None:
    started = [home.spawn(name) for name in ("a", "b", "c")]
    assert [record.name for record in home.registry.running()] == ["a", "b", "c"]
    # The parent reaps, as init does for those whose parent was killed.
    reapers = [threading.Thread(target=process.child.wait) for process in started]
    for reaper in reapers:
        reaper.start()
    assert ProcessRegistry(home.folder / "run").stop_stale() == ["c", "b", "a"]
    for reaper in reapers:
        reaper.join()
    assert home.registry.records() == []


def test_a_stranger_with_a_recorded_pid_is_left_alone(home: Home) -> None:
    stranger = home.spawn("ours")
    home.rewrite(stranger, started="some other moment")
    assert home.registry.running() == []
    assert home.registry.stop_stale() == []
    assert stranger.exit_code() is None
    assert not ProcessIdentity(stranger.record.pid, "some other moment").alive()
    stranger.stop()


def test_one_whose_record_was_cut_short_is_found_by_its_mark(home: Home) -> None:
    process = home.spawn("ours")
    home.rewrite(process, pid=0, started="")
    assert [record.pid for record in home.registry.running()] == [process.child.pid]
    reaper = threading.Thread(target=process.child.wait)
    reaper.start()
    assert home.registry.stop_stale() == ["ours"]
    reaper.join()


def test_one_that_does_not_end_in_time_is_killed(home: Home) -> None:
    process = home.spawn("deaf", IGNORES_SIGTERM, stop_s=0.3)
    eventually(lambda: "ready" in processes.tail(home.logs / "deaf.log"))
    assert process.stop() == -signal.SIGKILL
    assert home.registry.records() == []


def test_waiting_ends_with_the_log_when_the_process_does(home: Home) -> None:
    process = home.spawn("short", "echo the reason; exit 3")
    with pytest.raises(processes.Ended, match=r"(?s)short ended with exit code 3:.*the reason"):
        process.wait_until(lambda: False, 10, threading.Event())
    process.stop()


def test_a_process_does_not_hear_the_terminal(home: Home) -> None:
    process = home.spawn("part")
    assert os.getsid(process.child.pid) == process.child.pid
    process.stop()


def test_a_part_that_dies_is_started_again_and_said(home: Home) -> None:
    shown = StringIO()
    stop = threading.Event()
    states: list[str] = []
    supervisor = Supervisor(
        Display(Console(file=shown, width=200)),
        stop,
        lambda parts: states.extend(str(part.state) for part in parts),
    )
    port = ports.next_free(brokers.some_port())
    server = f"exec {sys.executable} -m http.server --bind 127.0.0.1 {port}"
    part = SupervisedPart("part", "", port, lambda: True, lambda: home.spawn("part", server))
    supervisor.launch(part)
    supervisor.wait(part, 20)
    first = part.process
    assert first is not None
    watcher = threading.Thread(target=supervisor.watch)
    watcher.start()
    os.kill(first.child.pid, signal.SIGKILL)
    eventually(lambda: part.process is not first and part.state is PartState.READY, 20)
    stop.set()
    watcher.join()
    second = part.process
    supervisor.stop()
    assert states[:2] == ["starting", "ready"]
    assert states[-3:] == ["restarting", "starting", "ready"]
    assert "part ended with exit code -9; starting it again in 0.5 s" in shown.getvalue()
    assert "part is ready again" in shown.getvalue()
    assert second is not None and second.exit_code() == -signal.SIGTERM
    assert home.registry.records() == []


def test_somebody_elses_answer_is_not_taken_for_the_parts_own(home: Home) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = home.spawn("part")
        assert not process.listens(port)
        assert not SupervisedPart("part", "", port, lambda: True, process=process).ready()
        process.stop()


def test_a_busy_port_gives_way_to_the_next() -> None:
    with socket.socket() as other:
        busy = ports.next_free(brokers.some_port())
        other.bind(("127.0.0.1", busy))
        other.listen()
        assert busy < ports.next_free(busy) <= ports.HIGHEST
        with pytest.raises(RuntimeProblem, match=rf"^Port {busy} for HTTP is busy.*--port\.$"):
            ports.require_free(busy, "HTTP", "--port")


def test_two_that_start_at_once_choose_different_ports() -> None:
    first = ports.next_free(brokers.some_port())  # chosen, and nobody listens yet
    script = f"from compose.embedded import ports; print(ports.next_free({first}))"
    chosen = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(chosen.stdout) != first


def test_a_full_disk_is_one_line_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    options = up.UpOptions(data=tmp_path / "data")
    settings = up.UpSettings()
    quiet = Display(Console(file=StringIO()))
    with pytest.raises(
        RuntimeProblem, match=r"^The disk is full: 1 MB are free in .*300 MB are needed\.$"
    ):
        up.Up(options, settings, quiet, threading.Event()).run()
    folder = DataFolder(tmp_path / "data")
    assert folder.processes.records() == []
    assert not folder.held()


def test_secrets_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    folder.hold()
    made = folder.secrets()
    assert DataFolder(folder.path).secrets() == made
    assert all(len(value) >= 32 for value in made.values())
    assert (folder.path / "secrets.env").stat().st_mode & 0o077 == 0
    folder.clear()
    assert folder.secrets() != made
    folder.release()


def test_what_a_killed_test_run_left_is_stopped_by_the_next(tmp_path: Path) -> None:
    killed = DataFolder(brokers.RUNS / f"killed-{tmp_path.parent.name}-{os.getpid()}")
    killed.path.mkdir(parents=True)
    killed.hold()
    left = killed.processes.spawn(
        "left", ["sleep", "600"], log=killed.logs / "left.log", address="", environment={}
    )
    killed.release()
    reaper = threading.Thread(target=left.child.wait)
    reaper.start()
    with brokers.data_folder() as mine:
        reaper.join(20)
        assert left.exit_code() == -signal.SIGTERM
        assert not killed.path.exists()
        assert mine.held()
    assert not mine.path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_test_run_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_waits.py").write_text(WAITS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    written = tmp_path / "folder"
    try:
        eventually(lambda: written.exists() and written.read_text(), 60)
        folder = DataFolder(Path(written.read_text()))
        (server,) = folder.processes.running()
    finally:
        run.send_signal(number)
        exit_code = run.wait(30)
    assert exit_code != 0
    assert not server.identity.alive()
    assert not folder.path.exists()
