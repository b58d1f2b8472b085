"""What services share: how clients connect, what a log line looks like, what a metric may be."""

import json
import logging as standard_logging
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from confluent_kafka import Producer
from prometheus_client import generate_latest

from plumbing import logging, metrics
from plumbing.kafka import clients
from plumbing.metrics import Metric
from plumbing.settings import AppSettings, KafkaSettings, SettingsError

BROKERS = {"KAFKA_BROKERS": "a:9092,b:9092", "TOPIC_PREFIX": "t1-"}
SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "books",
    "KAFKA_SASL_PASSWORD": "hunter2",
}


def test_clients_connect_as_the_settings_say() -> None:
    plain = KafkaSettings.model_validate(BROKERS)
    assert clients.client_config(plain, "books-ingress") == {
        "bootstrap.servers": "a:9092,b:9092",
        "client.id": "t1-:books-ingress",
        "security.protocol": "PLAINTEXT",
        "reconnect.backoff.max.ms": 1_000,
        "log_level": 2,
    }
    assert clients.ssl_context(plain) is None


def test_both_libraries_get_the_same_credentials() -> None:
    secured = KafkaSettings.model_validate(BROKERS | SASL)
    rd = clients.client_config(secured, "x")
    assert rd["sasl.mechanism"] == "SCRAM-SHA-512"
    assert rd["sasl.username"] == "books"
    assert rd["sasl.password"] == "hunter2"
    context = clients.ssl_context(secured)
    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert isinstance(clients.command_producer(secured, "x"), Producer)


def test_the_given_authority_is_the_one_that_is_trusted(tmp_path: Path) -> None:
    location = tmp_path / "ca.pem"
    location.write_text("no certificate")
    given = {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_LOCATION": str(location)}
    settings = KafkaSettings.model_validate(BROKERS | given)
    assert clients.client_config(settings, "x")["ssl.ca.location"] == str(location)
    with pytest.raises(SettingsError, match="KAFKA_SSL_CA_LOCATION"):
        clients.ssl_context(settings)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = standard_logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.usefixtures("logging_restored")
def test_a_production_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("sink", AppSettings.model_validate({"LOG_FORMAT": "json"}))
    log = structlog.stdlib.get_logger("sinks.postgres.ledger_writer")
    log.info("wrote", rows=3)
    log.debug("not shown")
    standard_logging.getLogger("library").warning("from %s", "elsewhere")
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["message"], line["level"], line["logger"]) for line in lines] == [
        ("wrote", "info", "sinks.postgres.ledger_writer"),
        ("from elsewhere", "warning", "library"),
        ("failed", "error", "sinks.postgres.ledger_writer"),
    ]
    assert lines[0]["rows"] == 3
    assert {line["service"] for line in lines} == {"sink"}
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[2]["exception"][0]["exc_value"] == "broken"


@pytest.mark.usefixtures("logging_restored")
def test_a_development_log_line_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure("sink", AppSettings.model_validate({"LOG_LEVEL": "WARNING"}))
    log = structlog.stdlib.get_logger("sinks.postgres.ledger_writer")
    log.info("not shown")
    log.warning("out of reach", part="kafka")
    (line,) = capsys.readouterr().err.splitlines()
    assert "out of reach" in line
    assert "part=kafka" in line


def test_the_registry_tells_what_runs() -> None:
    text = generate_latest(metrics.registry("sink", "1.2.3", "books")).decode()
    assert 'streamledger_info{ledger="books",service="sink",version="1.2.3"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_a_metric_outside_the_list_cannot_be_made() -> None:
    stray = Metric("streamledger_stray_total", "counter", "Not in the list.")
    with pytest.raises(AssertionError, match="streamledger_stray_total"):
        metrics.counter(metrics.registry("sink", "1", "books"), stray)


def test_metric_names_follow_prometheus() -> None:
    names = [metric.name for metric in metrics.ALL]
    assert len(set(names)) == len(names)
    for metric in metrics.ALL:
        assert metric.name.startswith("streamledger_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
