"""Which lanes this sink writes: as the consumer group shares them out, and nothing else of it.

A lane is a partition of `results.positions`, and the partitions of the journal of which that one
tells. The member reads nothing: each lane's owner has a consumer of its own, at the offsets that
the tables and the results name. Any failure of an owner ends the process: nothing is skipped.
"""

import threading

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from plumbing.kafka import clients
from plumbing.kafka.clients import ClientConfig
from plumbing.worker.fatal import CrashPolicy
from schemas import topics
from schemas.ledger_parameters import FORMAT_LEVEL
from sinks.journal_chain import BrokenJournal
from sinks.worker.lag_monitor import LagMonitor
from sinks.worker.lane import SinkLane, SinkPhase, Tools

log = structlog.get_logger(__name__)

POLL_S = 0.25


def member_id(client_id: str) -> str:
    """What the group shows of this program: `streamledger configure` reads the level from it."""
    return f"{client_id}-format-{FORMAT_LEVEL}"


class Group:
    def __init__(
        self, tools: Tools, partitions: int, session_timeout_ms: int, stopping: threading.Event
    ) -> None:
        self.assigned = False
        self.crash_policy = CrashPolicy(stopping, refuse_on=(BrokenJournal,))
        self._tools = tools
        self._partitions = partitions
        self._stopping = stopping
        self._owners: dict[int, SinkLane] = {}
        self._config: ClientConfig = {
            **tools.config,
            "client.id": member_id(tools.config["client.id"]),
            "group.id": tools.config["client.id"],
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": clients.heartbeat_ms(session_timeout_ms),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }

    def run(self) -> None:
        """Until told to stop; then all batches in flight are done."""
        member = Consumer(self._config)
        member.subscribe(
            [self._tools.names.results_positions],
            on_assign=self._assign,
            on_revoke=self._revoke,
            on_lost=self._revoke,
        )
        watch = LagMonitor(self._tools.config, self._tools.names.journal, self._all)
        watch.start()
        try:
            while not self._stopping.is_set():
                message = member.poll(POLL_S)
                if message is not None and (error := message.error()) is not None:
                    self._raise_unless_passing(error)
        finally:
            watch.stop()
            self._let_go(list(self._owners))
            member.close()

    def phases(self) -> dict[int, SinkPhase]:
        return dict(sorted((p, owner.phase) for owner in self._all() for p in owner.partitions))

    def _all(self) -> list[SinkLane]:
        return list(self._owners.values())

    def _assign(self, member: Consumer, given: list[TopicPartition]) -> None:
        lanes, count = [each.partition for each in given], self._partitions
        topic = self._tools.names.results_positions
        places = [TopicPartition(topic, lane, OFFSET_BEGINNING) for lane in lanes]
        member.incremental_assign(places)
        if places:
            member.pause(places)
        for lane in lanes:
            partitions = [p for p in range(count) if topics.lane(p, count) == lane]
            owner = self._owners[lane] = SinkLane(
                lane, partitions, self._tools, self.crash_policy.lane_failed
            )
            owner.start()
        self.assigned = True

    def _revoke(self, member: Consumer, taken: list[TopicPartition]) -> None:
        self._let_go([each.partition for each in taken])
        member.incremental_unassign(taken)

    def _raise_unless_passing(self, error: KafkaError) -> None:
        """The client goes on by itself after all but these."""
        if (why := clients.refusal(self._config, error)) is not None:
            raise clients.BrokersRefused(why)
        if error.fatal() or error.code() == KafkaError._MAX_POLL_EXCEEDED:
            raise KafkaException(error)
        log.warning("the group is disturbed", error=error.str())

    def _let_go(self, lanes: list[int]) -> None:
        """Waits for the batches in flight."""
        owners = [self._owners.pop(lane) for lane in lanes if lane in self._owners]
        for owner in owners:
            owner.request_stop()
        for owner in owners:
            owner.stop()
