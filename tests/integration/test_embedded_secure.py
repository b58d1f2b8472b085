"""`streamledger up --secure`: the same folder with and without, and who may do what meanwhile."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from compose.embedded.data_dir import DataFolder
from plumbing import setting_names
from tests.testkit import brokers
from tests.testkit.waiting import eventually

READY_S = 90.0
STOP_S = 60.0
COMMAND = [sys.executable, "-m", "compose.cli.main"]
OPEN = (
    '{"kind": "open_account", "account": "ada", "id": "1", "type": "wallet", "currency": "NGN"}\n'
)
CREDIT = '{"kind": "credit", "account": "ada", "id": "%s", "amount": 1000}\n'


class Place:
    """A folder in which commands are typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ups = 0
        self.data = DataFolder(folder / ".streamledger")
        options = ("--port", "--kafka-port", "--postgres-port")
        asked = dict(zip(options, brokers.let_go(len(options)), strict=True))
        self.ports = [text for pair in asked.items() for text in map(str, pair)]
        self.kafka = f"127.0.0.1:{asked['--kafka-port']}"

    @property
    def environment(self) -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k not in setting_names.ALL}

    @contextmanager
    def up(self, *options: str) -> Iterator[None]:
        self.ups += 1
        with (self.folder / f"output-{self.ups}").open("w") as output:
            started = subprocess.Popen(
                [*COMMAND, "up", "--fast-start", *self.ports, *options],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually(lambda: self.ready(started), READY_S)
            yield
            started.terminate()
            assert started.wait(STOP_S) == 0, self.output()
        finally:
            # Killed, it would leave its parts behind.
            started.terminate()
            started.wait(STOP_S)

    def ready(self, up: "subprocess.Popen[bytes]") -> bool:
        assert up.poll() is None, self.output()
        return "Ctrl-C stops everything" in self.output()

    def output(self) -> str:
        """Of the last one."""
        return (self.folder / f"output-{self.ups}").read_text()

    def run(self, text: str, given: str = "", exit_code: int = 0) -> str:
        ended = subprocess.run(
            ["sh", "-euc", f'streamledger() {{ {" ".join(COMMAND)} "$@"; }}\n{text}'],
            cwd=self.folder,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )
        assert ended.returncode == exit_code, f"{text}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout + ended.stderr

    def answers_anyone(self) -> bool:
        admin = AdminClient({"bootstrap.servers": self.kafka, "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=3).topics)
        except KafkaException:
            return False


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.data.processes.stop_stale()


def test_a_folder_is_secure_is_opened_and_secured_again(place: Place) -> None:
    producer = ". .streamledger/users/producer.sh\n"
    with place.up("--secure"):
        assert not place.answers_anyone()
        place.run(f"{producer}streamledger produce --wait --strict", OPEN + CREDIT % "2")
        output = place.run(f"{producer}streamledger consume journal --from-beginning", exit_code=1)
        assert "authorization failed" in output
        wrong = f"{producer}export KAFKA_SASL_PASSWORD=wrong\nstreamledger topics check"
        assert "refuses the user 'producer'" in place.run(wrong, exit_code=2)
        # Beside `up` one is the operator.
        place.run("streamledger topics check")
        place.run(". .streamledger/settings.sh\nstreamledger topics check")
        secret_files = [place.data.path / "users.json", place.data.path / "settings.sh"]
        secret_files += (place.data.path / "users").iterdir()
        for path in secret_files:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        passwords = json.loads((place.data.path / "users.json").read_text())
    assert place.data.secured
    assert place.data.passwords(list(passwords)) == passwords

    with place.up("--no-secure"):
        assert place.answers_anyone()
        assert not (place.data.path / "users.json").exists()
        assert not (place.data.path / "users").exists()
        place.run("streamledger produce --wait --strict", CREDIT % "3")

    with place.up("--secure"):
        assert not place.answers_anyone()
        analyst = ". .streamledger/users/analyst.sh\n"
        seen = place.run(f"{analyst}streamledger consume --from-beginning --key ada --json")
        balances = [json.loads(line)["value"]["balance"] for line in seen.splitlines()]
        assert balances == [1000, 2000]

    written = (*place.data.logs.iterdir(), *place.folder.glob("output-*"))
    logs = "".join(path.read_text(errors="replace") for path in written)
    for password in passwords.values():
        assert password not in logs


def test_your_own_kafka_is_not_secured_by_us(place: Place) -> None:
    output = place.run("streamledger up --secure --kafka 127.0.0.1:1 --fast-start", exit_code=1)
    assert "--secure is for the embedded Kafka" in output
