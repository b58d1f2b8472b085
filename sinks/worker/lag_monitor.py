"""Reports the lag of lanes that wait for Postgres.

A lane reports its lag between two batches, and a batch takes as long as Postgres is away. The
monitor reads only the journal's end offsets. It moves and decides nothing. If Kafka is away too,
the lanes report that.
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

INTERVAL_S = 2.0
REQUEST_TIMEOUT_S = 2.0


class LagMonitor:
    """In a thread of its own, from `start` until `stop`."""

    def __init__(
        self, config: ClientConfig, topic: str, lanes: Callable[[], Sequence[SinkLane]]
    ) -> None:
        self._config: dict[str, Any] = {**config}
        self._topic = topic
        self._lanes = lanes
        self._admin: AdminClient | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lag")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            blocked = [lane for lane in self._lanes() if lane.is_blocked()]
            if blocked:
                self._report(blocked)

    def _report(self, blocked: list[SinkLane]) -> None:
        # Most sinks never need it.
        self._admin = self._admin or AdminClient(self._config)
        partitions = [number for lane in blocked for number in lane.partitions]
        journals = [TopicPartition(self._topic, number) for number in partitions]
        requests = clients.request_ends(self._admin, journals, REQUEST_TIMEOUT_S)
        ends = {journal.partition: _end(request) for journal, request in requests.items()}
        for lane in blocked:
            lane.report_while_blocked(ends)


def _end(request: Future[Any]) -> int | None:
    try:
        return int(request.result().offset)
    except KafkaException:
        return None
