"""What an owner's producer is given is in its transaction whole, or it is told."""

import pytest
from confluent_kafka import Producer

from plumbing import transactions
from plumbing.transactions import NotTaken


def test_records_that_the_client_has_no_room_for_are_told() -> None:
    nowhere = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    producer = Producer({**nowhere, "queue.buffering.max.messages": 10})
    some: list[dict[str, object]] = [{"key": f"{n}", "value": b"x"} for n in range(8)]
    transactions.produce_all(producer, "topic", some, 0)
    with pytest.raises(NotTaken, match=r"6 records for topic .*QUEUE_FULL"):
        transactions.produce_all(producer, "topic", some, 0)
    producer.purge()
    producer.flush(5)
