"""Goes on telling how far behind the tables are while owners cannot: they wait for Postgres.

An owner tells its lag between two batches, and a batch takes for as long as Postgres is away. Here
only the journal's ends are asked for; nothing is read, moved or decided, and Kafka being away, too,
is for the owners to tell.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from plumbing.kafka import clients
from plumbing.kafka.clients import ClientConfig
from sinks.worker.lane import SinkLane

EVERY_S = 2.0
ANSWER_S = 2.0


class LagMonitor:
    """In a thread of its own, from `start` until `stop`."""

    def __init__(
        self, config: ClientConfig, topic: str, owners: Callable[[], Sequence[SinkLane]]
    ) -> None:
        self._config: dict[str, Any] = {**config}
        self._topic = topic
        self._owners = owners
        self._admin: AdminClient | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            waiting = [owner for owner in self._owners() if owner.waits()]
            if waiting:
                self._tell(waiting)

    def _tell(self, waiting: list[SinkLane]) -> None:
        # Most sinks never need it.
        self._admin = self._admin or AdminClient(self._config)
        partitions = [number for owner in waiting for number in owner.partitions]
        where = [TopicPartition(self._topic, number) for number in partitions]
        asked = clients.ask_ends(self._admin, where, ANSWER_S)
        ends = {where.partition: _end(answer) for where, answer in asked.items()}
        for owner in waiting:
            owner.tell_waiting(ends)


def _end(answer: Future[Any]) -> int | None:
    try:
        return int(answer.result().offset)
    except KafkaException:
        return None
