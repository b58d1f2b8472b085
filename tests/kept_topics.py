"""A history put into real topics, as a ledger would have left it there; a tampered one just so.

The topics keep the times that records bring along, as the history has times of its own.
"""

from collections.abc import Iterable

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas import topics
from schemas.topics import Names
from tests.histories import Kept

CONFIRM_S = 30.0


def make(bootstrap: str, prefix: str, partitions: int) -> Names:
    names = Names(prefix)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
    kept = (topics.COMMANDS, topics.LEGS, topics.JOURNAL, topics.TRANSACTIONS, topics.STATE)
    new = [
        NewTopic(
            names.of(topic),
            num_partitions=partitions,
            replication_factor=1,
            config={
                **topic.config(1),
                "message.timestamp.type": "CreateTime",
                "message.timestamp.after.max.ms": str(2**62),
            },
        )
        for topic in kept
    ]
    for made in admin.create_topics(new).values():
        made.result(CONFIRM_S)
    return names


def write(
    bootstrap: str,
    names: Names,
    history: Iterable[Kept],
    state: Iterable[Kept] | None = None,
) -> None:
    """Every record at its own offset; the state may be that of another time."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for one in history:
        for topic, logged in ((names.commands, one.commands), (names.legs, one.legs)):
            for key, value, time_ms in logged:
                _produce(producer, topic, one.number, key, value, time_ms)
        for key, value in one.journal:
            _produce(producer, names.journal, one.number, key, value)
    for one in state if state is not None else history:
        for key, value in one.changelog():
            _produce(producer, names.state, one.number, key, value)
    assert producer.flush(CONFIRM_S) == 0, "not confirmed in time"


def _produce(
    producer: Producer,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    time_ms: int = 0,
) -> None:
    while True:
        try:
            producer.produce(topic, value, key, partition, timestamp=time_ms)
        except BufferError:
            producer.poll(0.1)
        else:
            return
