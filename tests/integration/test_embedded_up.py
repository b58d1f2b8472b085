"""`streamledger up` from outside, as a person at a terminal or an unkind system treats it."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from compose.embedded import report
from compose.embedded.data_dir import DataFolder
from compose.embedded.processes import ProcessIdentity, identify
from tests.testkit import brokers
from tests.testkit.waiting import eventually

READY_S = 60
COMMAND = [sys.executable, "-m", "compose.cli.main"]
START_AND_WAIT = """
import pathlib, sys
from tests.integration.test_embedded_up import Terminal
up = Terminal(pathlib.Path(sys.argv[1])).up()
print(up.pid, flush=True)
up.wait()
"""
OURS = ("DATABASE_URL", "KAFKA_BROKERS", "HTTP_PORT", "SIGNING_KEY")


class Terminal:
    """A place where commands are typed, all of them on one data folder."""

    def __init__(self, folder: Path) -> None:
        self.cwd = folder
        self.data = DataFolder(folder / "data")
        self.ups: list[subprocess.Popen[str]] = []
        options = ("--port", "--kafka-port", "--postgres-port")
        self.ports = dict(zip(options, brokers.let_go(len(options)), strict=True))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=self.cwd,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )

    def up(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        ports = [text for pair in self.ports.items() for text in map(str, pair)]
        with (self.cwd / "output").open("a") as output:
            started = subprocess.Popen(
                [*COMMAND, "up", "--data", "data", "--fast-start", *ports, *arguments],
                cwd=self.cwd,
                env=self._environment(environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.ups.append(started)
        return started

    def status(self) -> dict[str, Any]:
        shown = self.run("status", "--data", "data", "--json")
        answer: dict[str, Any] = json.loads(shown.stdout)
        assert (shown.returncode == 0) is answer["ready"]
        return answer

    def wait_ready(self, up: "subprocess.Popen[str]", timeout_s: float = READY_S) -> None:
        def ready() -> bool:
            assert up.poll() is None, self.output()
            running = report.read(self.data)
            return bool(running and running.pid == up.pid and running.ready() and running.url)

        def all_parts() -> bool:
            running = report.read(self.data)
            return ready() and running is not None and len(running.parts) >= 3

        eventually(all_parts, timeout_s)

    def output(self) -> str:
        return (self.cwd / "output").read_text()

    def identities(self) -> dict[str, ProcessIdentity]:
        return {record.name: record.identity for record in self.data.processes.running()}

    @staticmethod
    def _environment(more: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in OURS}
        return {**kept, "COLUMNS": "200", **more}


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    for up in made.ups:
        up.kill()
        up.wait()
    made.data.processes.stop_stale()


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=5) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def topics(terminal: Terminal) -> set[str]:
    bootstrap = f"127.0.0.1:{terminal.ports['--kafka-port']}"
    return set(AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).topics)


def test_a_life_of_kills_ends_with_nothing_left(terminal: Terminal) -> None:
    # The first start is killed in the middle: the next one completes it.
    cut = terminal.up()
    eventually(lambda: "kafka-format-1" in terminal.identities(), READY_S)
    # That one ends by itself; this one does not.
    eventually(lambda: "postgres" in terminal.identities(), READY_S)
    cut.kill()
    cut.wait()
    up = terminal.up()
    terminal.wait_ready(up)
    assert "left behind: " in terminal.output()
    url = f"http://127.0.0.1:{terminal.ports['--port']}"
    assert get(f"{url}/health")["status"] == "ok"
    assert {"commands", "journal", "coordination"} <= topics(terminal)

    # What only it knows, people can have too.
    settings = terminal.data.path / "settings.sh"
    assert settings.stat().st_mode & 0o077 == 0
    script = f". {settings} && exec {sys.executable} -m compose.cli.main topics check"
    subprocess.run(["sh", "-c", script], cwd=terminal.cwd, check=True, stdout=subprocess.DEVNULL)

    # A second one on the same folder is refused, with the address of the first.
    second = terminal.run("up", "--data", "data")
    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.count("\n") == 1
    assert url in second.stderr and str(up.pid) in second.stderr

    # The broker is killed: `up` says so and starts it again, with its data.
    before = terminal.identities()
    os.kill(before["kafka"].pid, signal.SIGKILL)
    eventually(lambda: terminal.identities().get("kafka") not in (None, before["kafka"]), READY_S)
    terminal.wait_ready(up)
    assert "kafka ended with exit code -9; starting it again" in terminal.output()
    assert {"commands", "journal", "coordination"} <= topics(terminal)

    # `up` is killed: its parts run on, `status` says what they are, and the next one takes over.
    before = terminal.identities()
    assert set(before) == {"kafka", "postgres", "processor", "sink", "ingress"}
    up.kill()
    up.wait()
    assert {part["state"] for part in terminal.status()["parts"]} == {report.LEFT_BEHIND}
    up = terminal.up()
    terminal.wait_ready(up)
    assert not any(identity.alive() for identity in before.values())
    status = terminal.status()
    assert (status["ready"], status["url"], status["pid"]) == (True, url, up.pid)
    assert {"commands", "journal", "coordination"} <= topics(terminal)

    # Ctrl-C reaches the whole group of the terminal; afterwards nothing runs.
    last = terminal.identities()
    os.killpg(up.pid, signal.SIGINT)
    assert up.wait(READY_S) == 0
    assert not any(identity.alive() for identity in last.values())
    assert terminal.data.processes.records() == []
    said = " ".join(terminal.output().rpartition("Stopping.")[2].split())
    order = ("ingress", "sink", "processor", "postgres", "kafka")
    assert said == " ".join([*(f"stopping {part}" for part in order), "Stopped."])


def test_each_service_has_only_its_own_secrets_and_its_own_login(terminal: Terminal) -> None:
    password = "an-admins-password"
    everything = {"ADMIN_EMAIL": "admin@example.com", "ADMIN_PASSWORD": password}
    up = terminal.up(**everything)
    terminal.wait_ready(up)
    kept = terminal.data.secrets()
    held = {
        name: set(psutil.Process(identity.pid).environ().values())
        for name, identity in terminal.identities().items()
        if name in ("processor", "sink", "ingress")
    }
    assert {name for name, values in held.items() if kept["SIGNING_KEY"] in values} == {"ingress"}
    assert {name for name, values in held.items() if password in values} == {"ingress"}
    by_database = {
        name: {urlsplit(value).username for value in values if value.startswith("postgresql://")}
        for name, values in held.items()
    }
    assert by_database == {
        "processor": set(),
        "sink": {"streamledger_sink"},
        "ingress": {"streamledger_ingress"},
    }
    # And so do they sign in, whatever else is in a file for all of them.
    owner = f"postgresql://streamledger:{kept['POSTGRES_PASSWORD']}@127.0.0.1"
    url = f"{owner}:{terminal.ports['--postgres-port']}/streamledger"
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT DISTINCT usename, application_name FROM pg_stat_activity"
            " WHERE application_name LIKE 'streamledger-%'"
        ).fetchall()
    assert set(rows) == {
        ("streamledger_sink", "streamledger-sink"),
        ("streamledger_ingress", "streamledger-ingress"),
        ("streamledger_ingress", "streamledger-ingress-ready"),
    }


def test_a_shell_with_its_own_settings_starts_it_again(terminal: Terminal) -> None:
    """And one with another's stops nothing before it says so."""
    up = terminal.up()
    terminal.wait_ready(up)
    up.kill()
    up.wait()
    left = terminal.identities()
    port = brokers.some_port()
    refused = terminal.run("up", "--data", "data", KAFKA_BROKERS=f"127.0.0.1:{port}")
    assert refused.returncode == 1
    assert f"No Kafka answers at 127.0.0.1:{port} (KAFKA_BROKERS)" in refused.stderr
    assert terminal.identities() == left
    assert all(identity.alive() for identity in left.values())
    words = shlex.split((terminal.data.path / "settings.sh").read_text())
    own = dict(word.split("=", 1) for word in words if "=" in word)
    again = terminal.up(**own)
    terminal.wait_ready(again)
    assert "KAFKA_BROKERS, DATABASE_URL, SIGNING_KEY" in " ".join(terminal.output().split())
    parts = terminal.status()["parts"]
    assert {part["state"] for part in parts} == {"ready"}
    assert not any(identity.alive() for identity in left.values())


def test_down_stops_it_from_outside_also_while_it_starts(terminal: Terminal) -> None:
    assert terminal.run("down", "--data", "data").returncode == 0
    up = terminal.up()
    eventually(lambda: "postgres" in terminal.identities(), READY_S)
    stopped = terminal.run("down", "--data", "data")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert up.wait(READY_S) == 0
    assert terminal.data.processes.records() == []
    assert terminal.status()["pid"] is None


def test_one_that_a_killed_test_run_started_stops_too(terminal: Terminal) -> None:
    # A test run in small: it starts one, and then it is killed before it can stop it.
    starter = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, str(terminal.cwd)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    eventually(lambda: "postgres" in terminal.identities(), READY_S)
    up, parts = identify(pid), terminal.identities()
    assert up is not None
    starter.kill()
    starter.communicate()
    eventually(lambda: not any(each.alive() for each in (up, *parts.values())), READY_S)
    assert terminal.data.processes.records() == []


def test_down_stops_what_a_killed_one_left_behind(terminal: Terminal) -> None:
    terminal.data.hold()
    sleeper = terminal.data.processes.spawn(
        "sleeper",
        ["sleep", "600"],
        log=terminal.data.logs / "sleeper.log",
        address="",
        environment=dict(os.environ),
    )
    terminal.data.release()
    stopped = subprocess.Popen(
        [*COMMAND, "down", "--data", "data"], cwd=terminal.cwd, stdout=subprocess.PIPE, text=True
    )
    assert sleeper.child.wait(READY_S) == -signal.SIGTERM
    output, _ = stopped.communicate(timeout=READY_S)
    assert output == "Stopped what was left behind: sleeper.\n"
    assert terminal.data.processes.records() == []


@pytest.mark.parametrize("option", ["--port", "--kafka-port", "--postgres-port"])
def test_a_busy_port_that_was_asked_for_is_an_error(terminal: Terminal, option: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        refused = terminal.run("up", "--data", "data", option, port)
    expect_refusal(terminal, refused, f"Port {port} for ")
    assert f"choose another with {option}" in refused.stderr


def test_a_port_in_a_setting_counts_as_asked_for(terminal: Terminal) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (terminal.cwd / ".env").write_text(f"HTTP_PORT={port}\n")
        refused = terminal.run("up", "--data", "data")
    expect_refusal(terminal, refused, f"Port {port} for HTTP is busy")


def test_what_somebody_else_should_run_is_asked_before_anything_starts(terminal: Terminal) -> None:
    port = brokers.some_port()
    refused = terminal.run("up", "--data", "data", "--kafka", f"127.0.0.1:{port}")
    expect_refusal(terminal, refused, f"No Kafka answers at 127.0.0.1:{port}")
    url = f"postgresql://nobody:secret-word@127.0.0.1:{port}/none"
    refused = terminal.run("up", "--data", "data", "--postgres", url)
    expect_refusal(terminal, refused, "No Postgres answers at the address given")
    assert "secret-word" not in refused.stderr


def test_no_network_at_the_first_start_is_one_line(terminal: Terminal) -> None:
    nowhere = f"http://127.0.0.1:{brokers.some_port()}"
    empty = str(terminal.cwd / "cache")
    proxies = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), nowhere)
    refused = terminal.run("up", "--data", "data", XDG_CACHE_HOME=empty, NO_PROXY="", **proxies)
    expect_refusal(terminal, refused, "Check the network and start again")


def test_a_folder_of_somebody_else_is_left_alone(terminal: Terminal) -> None:
    theirs = terminal.cwd / "data" / "theirs.txt"
    theirs.parent.mkdir()
    theirs.write_text("kept")
    refused = terminal.run("up", "--data", "data", "--fresh")
    expect_refusal(terminal, refused, "not empty and not a StreamLedger data folder")
    assert theirs.read_text() == "kept"


def test_a_folder_that_cannot_be_made_is_one_line(terminal: Terminal) -> None:
    (terminal.cwd / "data").write_text("a file")
    refused = terminal.run("up", "--data", "data")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1 and str(terminal.cwd / "data") in refused.stderr


def test_a_wrong_setting_is_named_with_exit_code_2(terminal: Terminal) -> None:
    (terminal.cwd / ".env").write_text("COMISSION_BPS=150\n")
    refused = terminal.run("up", "--data", "data", PARTITIONS="none")
    assert refused.returncode == 2
    assert "COMISSION_BPS: no such setting" in refused.stderr
    assert "PARTITIONS=none: not allowed" in refused.stderr
    assert not (terminal.cwd / "data").exists()


def expect_refusal(
    terminal: Terminal, refused: "subprocess.CompletedProcess[str]", reason: str
) -> None:
    """One line, exit code 1, and nothing that runs."""
    assert refused.returncode == 1, refused.stderr
    assert refused.stderr.count("\n") == 1 and reason in refused.stderr, refused.stderr
    assert terminal.data.processes.records() == []
    assert not terminal.data.held()
