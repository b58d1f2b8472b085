"""What is not set is taken from an `up` that runs, and only from one that does."""

from pathlib import Path

import pytest

from compose.cli import embedded_connection
from compose.embedded import data_dir, report
from compose.embedded import up as embedded
from compose.embedded.report import PartReport
from compose.embedded.supervisor import PartState
from plumbing import setting_names

PARTS = [
    PartReport("kafka-1", "127.0.0.1:9092", PartState.READY, ""),
    PartReport("kafka-2", "127.0.0.1:9093", PartState.READY, ""),
    PartReport("postgres", "127.0.0.1:5433", PartState.READY, ""),
]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in setting_names.ALL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def up(data: Path, parts: list[PartReport]) -> data_dir.DataFolder:
    """A report as `up` writes it; the process that it names is this one."""
    made = data_dir.DataFolder(data)
    made.hold()
    report.write(made, "", parts)
    made.release()
    return made


def test_nothing_runs_and_nothing_is_made(data: Path) -> None:
    settings = embedded_connection.settings(data)
    assert (settings.kafka_brokers, settings.database_url) == (None, None)
    assert not data.exists()


def test_addresses_are_those_of_what_runs(data: Path) -> None:
    password = up(data, PARTS).secrets()[data_dir.POSTGRES_PASSWORD]
    settings = embedded_connection.settings(data)
    assert settings.brokers == "127.0.0.1:9092,127.0.0.1:9093"
    assert settings.database == f"postgresql://streamledger:{password}@127.0.0.1:5433/streamledger"


def test_what_is_set_stays(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up(data, PARTS)
    monkeypatch.setenv("KAFKA_BROKERS", "elsewhere:9092")
    settings = embedded_connection.settings(data)
    assert settings.brokers == "elsewhere:9092"
    assert "127.0.0.1:5433" in settings.database


def test_a_shell_that_has_this_folders_own_settings_names_nobody_elses(data: Path) -> None:
    data.mkdir()
    own = {
        "KAFKA_BROKERS": "127.0.0.1:9092",
        "DATABASE_URL": "postgresql://streamledger:x@127.0.0.1:5432/streamledger",
        "SIGNING_KEY": "a key",
        "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "KAFKA_SASL_USERNAME": "operator",
    }
    embedded.exported(data / embedded.SETTINGS_FILE, own)
    shell = {**own, "PARTITIONS": "4"}
    assert sorted(embedded.forget_own_settings(data, shell)) == sorted(own)
    assert shell == {"PARTITIONS": "4"}
    # As one of Kafka's other users, with the files of `users`.
    shell = {**own, "KAFKA_SASL_USERNAME": "producer"}
    embedded.forget_own_settings(data, shell)
    assert shell == {}
    # What is somebody else's stays.
    shell = {**own, "KAFKA_BROKERS": "elsewhere:9092"}
    embedded.forget_own_settings(data, shell)
    assert shell == {name: shell[name] for name in shell if name.startswith("KAFKA_")}
    assert shell["KAFKA_BROKERS"] == "elsewhere:9092"
    assert embedded.forget_own_settings(data / "none", dict(own)) == []


def test_parts_that_are_not_ours_or_not_ready_are_not_taken(data: Path) -> None:
    up(
        data,
        [
            PartReport("kafka", "elsewhere:9092", PartState.YOURS, ""),
            PartReport("postgres", "127.0.0.1:5433", report.STOPPED, ""),
        ],
    )
    settings = embedded_connection.settings(data)
    assert (settings.kafka_brokers, settings.database_url) == (None, None)
