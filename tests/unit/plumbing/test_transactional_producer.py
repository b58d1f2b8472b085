"""What an owner's producer is given is in its transaction whole, or it is told."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from plumbing.kafka import transactional_producer
from plumbing.kafka.transactional_producer import NotTaken
from sinks.worker import result_publisher


def test_records_that_the_client_has_no_room_for_are_told() -> None:
    nowhere = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    producer = Producer({**nowhere, "queue.buffering.max.messages": 10})
    some: list[dict[str, object]] = [{"key": f"{n}", "value": b"x"} for n in range(8)]
    transactional_producer.produce_all(producer, "topic", some, 0)
    with pytest.raises(NotTaken, match=r"6 records for topic .*QUEUE_FULL"):
        transactional_producer.produce_all(producer, "topic", some, 0)
    producer.purge()
    producer.flush(5)


class Refusing:
    """A producer whose commits fail, each with the next of some errors."""

    def __init__(self, *errors: KafkaError) -> None:
        self.errors = [*errors]

    def commit_transaction(self, timeout_s: float) -> None:
        if self.errors:
            raise KafkaException(self.errors.pop(0))


def fails(*, retriable: bool) -> KafkaError:
    return KafkaError(KafkaError._TIMED_OUT, "", False, retriable, False)


def test_a_commit_is_tried_again_while_the_client_says_that_it_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transactional_producer, "PAUSE_S", 0.001)
    producer: Any = Refusing(*[fails(retriable=True)] * 20)
    transactional_producer.commit(producer, 0)
    assert not producer.errors
    producer = Refusing(fails(retriable=True), fails(retriable=False), fails(retriable=True))
    with pytest.raises(KafkaException):
        transactional_producer.commit(producer, 0)
    assert len(producer.errors) == 1


def test_a_commit_is_given_up_before_the_client_could_ask_for_it_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    socket_timeout_s = 60
    assert socket_timeout_s > transactional_producer.END_TIMEOUT_S + 2 * result_publisher.MAX_OPEN_S
    monkeypatch.setattr(transactional_producer, "END_TIMEOUT_S", transactional_producer.TRY_S)
    producer: Any = Refusing(fails(retriable=True))
    with pytest.raises(KafkaException):
        transactional_producer.commit(producer, 0)
