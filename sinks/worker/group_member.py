"""The sink's member of the consumer group, which only shares out the lanes.

A lane is one partition of `results.positions`, and the journal partitions whose positions lie
there. The member reads no records: each lane has a consumer of its own, which starts at the
positions of the tables and the results. If a lane fails, the process ends: nothing is skipped.
"""

import threading

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from plumbing.kafka import auth_errors, clients
from plumbing.kafka.clients import ClientConfig
from plumbing.worker.fatal import CrashPolicy
from schemas import topics
from schemas.ledger_parameters import FORMAT_LEVEL
from sinks.journal_chain import BrokenJournal
from sinks.worker.lag_monitor import LagMonitor
from sinks.worker.lane import LaneResources, SinkLane, SinkPhase

log = structlog.get_logger(__name__)

POLL_S = 0.25


def member_id(client_id: str) -> str:
    """The client id in the group. `streamledger configure` reads the format level from it."""
    return f"{client_id}-format-{FORMAT_LEVEL}"


class GroupMember:
    def __init__(
        self,
        resources: LaneResources,
        partitions: int,
        session_timeout_ms: int,
        stopping: threading.Event,
    ) -> None:
        self.assigned = False
        self.crash_policy = CrashPolicy(stopping, refuse_on=(BrokenJournal,))
        self._resources = resources
        self._partitions = partitions
        self._stopping = stopping
        self._lanes: dict[int, SinkLane] = {}
        self._config: ClientConfig = {
            **resources.config,
            "client.id": member_id(resources.config["client.id"]),
            "group.id": resources.config["client.id"],
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": session_timeout_ms,
            "heartbeat.interval.ms": clients.heartbeat_ms(session_timeout_ms),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }

    def run(self) -> None:
        """Runs until stopped; when it returns, all batches in flight are done."""
        member = Consumer(self._config)
        member.subscribe(
            [self._resources.names.results_positions],
            on_assign=self._assign,
            on_revoke=self._revoke,
            on_lost=self._revoke,
        )
        lag_monitor = LagMonitor(self._resources.config, self._resources.names.journal, self._all)
        lag_monitor.start()
        try:
            while not self._stopping.is_set():
                message = member.poll(POLL_S)
                if message is not None and (error := message.error()) is not None:
                    self._raise_unless_transient(error)
        finally:
            lag_monitor.stop()
            self._release(list(self._lanes))
            member.close()

    def phases(self) -> dict[int, SinkPhase]:
        return dict(sorted((p, lane.phase) for lane in self._all() for p in lane.partitions))

    def _all(self) -> list[SinkLane]:
        return list(self._lanes.values())

    def _assign(self, member: Consumer, assigned: list[TopicPartition]) -> None:
        lanes, count = [each.partition for each in assigned], self._partitions
        topic = self._resources.names.results_positions
        assignment = [TopicPartition(topic, lane, OFFSET_BEGINNING) for lane in lanes]
        member.incremental_assign(assignment)
        if assignment:
            member.pause(assignment)
        for lane in lanes:
            partitions = [p for p in range(count) if topics.lane(p, count) == lane]
            sink_lane = self._lanes[lane] = SinkLane(
                lane, partitions, self._resources, self.crash_policy.lane_failed
            )
            sink_lane.start()
        self.assigned = True

    def _revoke(self, member: Consumer, revoked: list[TopicPartition]) -> None:
        self._release([each.partition for each in revoked])
        member.incremental_unassign(revoked)

    def _raise_unless_transient(self, error: KafkaError) -> None:
        """The client recovers from all other errors by itself."""
        if (why := auth_errors.refusal(self._config, error)) is not None:
            raise auth_errors.BrokersRefused(why)
        if error.fatal() or error.code() == KafkaError._MAX_POLL_EXCEEDED:
            raise KafkaException(error)
        log.warning("consumer group error", error=error.str())

    def _release(self, lanes: list[int]) -> None:
        """Waits for the batches in flight."""
        released = [self._lanes.pop(lane) for lane in lanes if lane in self._lanes]
        for sink_lane in released:
            sink_lane.request_stop()
        for sink_lane in released:
            sink_lane.stop()
