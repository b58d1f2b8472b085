"""The backup that docs/deploying.md describes: a cold copy of the data folder, restored after the
ledger has gone on, is the ledger as it was, and goes on from there."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_embedded_up import COMMAND, READY_S, Terminal

COMMAND_S = 180.0


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path)
    yield made
    for up in made.ups:
        up.kill()
        up.wait()
    made.data.processes.stop_stale()


def produce(terminal: Terminal, *commands: dict[str, Any]) -> list[dict[str, Any]]:
    """The results, in the order of the commands."""
    sent = subprocess.run(
        [*COMMAND, "produce", "--data", "data", "--wait", "--json", "--timeout", str(COMMAND_S)],
        cwd=terminal.cwd,
        env=terminal._environment({}),
        input="".join(json.dumps(command) + "\n" for command in commands),
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert sent.returncode == 0, sent.stderr
    return [json.loads(line) for line in sent.stdout.splitlines()]


def verify(terminal: Terminal) -> None:
    shown = subprocess.run(
        [*COMMAND, "verify", "--data", "data", "--against-rules"],
        cwd=terminal.cwd,
        env=terminal._environment({}),
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert shown.returncode == 0, f"{shown.stdout}\n{shown.stderr}"


def credit(id: str, amount: int) -> dict[str, Any]:
    return {"kind": "credit", "account": "kept", "amount": amount, "id": id}


OPEN = {"kind": "open_account", "account": "kept", "type": "wallet", "currency": "NGN", "id": "o"}


def test_a_cold_copy_of_the_data_folder(terminal: Terminal) -> None:
    data, backup = terminal.cwd / "data", terminal.cwd / "backup"

    def started() -> "subprocess.Popen[str]":
        up = terminal.up()
        terminal.wait_ready(up, COMMAND_S)
        return up

    def stop(up: "subprocess.Popen[str]") -> None:
        up.send_signal(signal.SIGINT)
        assert up.wait(READY_S) == 0, terminal.output()

    up = started()
    produce(terminal, OPEN, credit("first", 100))
    stop(up)
    subprocess.run(["cp", "-a", str(data), str(backup)], check=True)
    up = started()
    after = produce(terminal, credit("second", 50))
    assert balance(after[0]) == 150
    stop(up)
    subprocess.run(["rm", "-rf", str(data)], check=True)
    subprocess.run(["cp", "-a", str(backup), str(data)], check=True)

    up = started()
    verify(terminal)
    again = produce(terminal, credit("first", 100), credit("third", 7))
    assert again[0]["replay"] and balance(again[1]) == 107
    verify(terminal)
    stop(up)


def balance(result: dict[str, Any]) -> int:
    assert result["outcome"] == "posted", result
    found = {entry["account"]: entry["balance"] for entry in result["entries"]}
    kept: int = found["kept"]
    return kept
