"""What an operator reads when Kafka does not confirm a message that may have been written."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from plumbing.failures import Failure
from plumbing.kafka.auth_errors import BrokersRefused
from processor.admin import coordination_sender
from processor.admin.coordination_sender import Unconfirmed
from schemas.coordination import LogTime
from schemas.topics import Names

CONFIG = {"bootstrap.servers": "broker:9092", "security.protocol": "SASL_SSL"}
MESSAGE = LogTime(topic="commands", first=1, last=1, time_ms=1)
REPORTS: dict[str, KafkaError | None] = {
    "confirmed": None,
    "timed out": KafkaError(KafkaError._MSG_TIMED_OUT),
    "refused": KafkaError(KafkaError.MSG_SIZE_TOO_LARGE),
    "no right": KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED),
}


def answer(monkeypatch: pytest.MonkeyPatch, *reports: str) -> None:
    """The client reports so on one message after the other; on the rest it says nothing."""

    class Client:
        def __init__(self, config: dict[str, Any]) -> None:
            self.callbacks: list[Callable[[KafkaError | None, Any], None]] = []

        def produce(self, *_: object, on_delivery: Callable[..., None]) -> None:
            self.callbacks.append(on_delivery)

        def flush(self, timeout_s: float) -> int:
            for report, callback in zip(reports, self.callbacks, strict=False):
                callback(REPORTS[report], None)
            return len(self.callbacks) - len(reports)

    monkeypatch.setattr(coordination_sender, "Producer", Client)


def send(partitions: int) -> None:
    coordination_sender.send(CONFIG, Names(""), dict.fromkeys(range(partitions), MESSAGE))


def test_all_are_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "confirmed", "confirmed")
    send(2)


@pytest.mark.parametrize(
    "reports",
    [(), ("timed out",), ("confirmed",), ("confirmed", "refused"), ("refused", "timed out")],
)
def test_what_may_have_been_written_is_not_called_unchanged(
    monkeypatch: pytest.MonkeyPatch, reports: tuple[str, ...]
) -> None:
    answer(monkeypatch, *reports)
    with pytest.raises(Unconfirmed, match="may have been written") as raised:
        send(2)
    assert "nothing was changed" not in str(raised.value)


def test_a_refusal_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "refused")
    with pytest.raises(Failure, match="nothing was changed"):
        send(1)


def test_a_missing_right_names_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "no right")
    with pytest.raises(BrokersRefused, match=r"docs/securing\.md"):
        send(1)
