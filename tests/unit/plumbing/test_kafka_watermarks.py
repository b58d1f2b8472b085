"""A partition's ends are asked for again while a broker that has come back learns what it has."""

from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from plumbing.kafka import clients

WHERE = TopicPartition("journal", 1)


class Client:
    """Fails so often, then answers: no real broker can be made to do that at will."""

    def __init__(self, code: int, times: int) -> None:
        self._code, self._left = code, times
        self.learnt = 0

    def get_watermark_offsets(self, _: TopicPartition, timeout: float) -> tuple[int, int]:
        if self._left > 0:
            self._left -= 1
            raise KafkaException(KafkaError(self._code))
        return 3, 7

    def list_topics(self, topic: str, timeout: float) -> None:
        assert topic == WHERE.topic
        self.learnt += 1


def asked(code: int, times: int, timeout_s: float) -> tuple[int, int]:
    client = Client(code, times)
    ends = clients.watermarks(cast(Consumer, client), WHERE, timeout_s)
    # A real one would not know of the partition else.
    assert client.learnt == times
    return ends


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._TRANSPORT,
    ],
)
def test_what_passes_is_waited_for_and_not_for_ever(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "RETRY_PAUSE_S", 0.001)
    assert asked(code, 3, 10) == (3, 7)
    with pytest.raises(KafkaException):
        asked(code, 1_000_000, 0.01)


def test_what_does_not_pass_is_told_at_once() -> None:
    with pytest.raises(KafkaException):
        asked(KafkaError.TOPIC_AUTHORIZATION_FAILED, 1, 10)
