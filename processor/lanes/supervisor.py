"""The lanes that this worker owns: started and stopped as the group assigns them."""

import asyncio
import threading
from pathlib import Path

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from plumbing.failures import Failure
from plumbing.kafka import auth_errors
from plumbing.kafka.clients import ClientConfig
from plumbing.worker.crash_points import CrashPoints
from plumbing.worker.fatal import CrashPolicy
from processor.lanes.broker_clock import ClockDisagrees, WorkerClock
from processor.lanes.lane import LanePhase, LaneProcessor, LedgerIdentity
from processor.lanes.lane_reader import OpenBatch
from processor.lanes.transaction_encoding import Encode
from processor.metrics import ProcessorMetrics
from processor.state import checkpoint
from processor.state.store import Damaged, Memory, StateStore
from schemas import topics
from schemas.encoding.codecs import AvroSchemas
from schemas.state import PartitionPosition
from schemas.topics import Names

log = structlog.get_logger(__name__)


class LaneSupervisor:
    def __init__(
        self,
        identity: LedgerIdentity,
        config: ClientConfig,
        names: Names,
        data: Path,
        schemas: AvroSchemas,
        metrics: ProcessorMetrics,
        crash_points: CrashPoints,
        *,
        rocksdb_mib: int,
        cache_entries: int,
        encode_transaction: Encode,
    ) -> None:
        self.topic = names.commands
        self.names = names
        self.identity = identity
        # Open batches on their way to Faust's agent, at most one of each lane.
        self.batches: asyncio.Queue[OpenBatch] = asyncio.Queue()
        self._config = config
        self._data = data
        self._schemas = schemas
        self._metrics = metrics
        self._crash_points = crash_points
        self._memory = Memory(rocksdb_mib)
        self._cache_entries = cache_entries
        self._encode_transaction = encode_transaction
        self.clock = WorkerClock(config, names, identity.partitions)
        # By lane. Other threads read it, so it is replaced and never changed.
        self._lanes: dict[int, LaneProcessor] = {}
        self._share = cache_entries
        # Whether the group has assigned partitions to this worker; that may be none.
        self.assigned = False
        # Set once the worker has begun to stop.
        self.stopping = threading.Event()
        self.crash_policy = CrashPolicy(self.stopping, restart_on=(Damaged, ClockDisagrees))
        self._lane_failed = self.crash_policy.lane_failed
        self._admin = AdminClient(config)
        self._trimmed: dict[int, int] = {}

    async def own(self, partitions: set[int]) -> None:
        """Returns at once: the lanes' threads take over, so that the group's heartbeats do not wait
        for a restore."""
        appeared = [p for p in sorted(partitions) if p >= self.identity.partitions]
        if appeared:
            self._lane_failed(None, PartitionsAppeared(appeared, self.identity.partitions))
            return
        assert not self._lanes, "all lanes are released before any is assigned"
        self.assigned = True
        lanes: dict[int, list[int]] = {}
        for partition in sorted(partitions):
            lanes.setdefault(topics.lane(partition, self.identity.partitions), []).append(partition)
        self._share = self._cache_entries // max(1, len(partitions))
        whole = topics.whole_lanes(lanes, self.identity.partitions)
        if sorted(partitions) != whole:
            self._lane_failed(None, LanesCut(sorted(partitions), whole))
            return
        loop = asyncio.get_running_loop()

        def send_event(batch: OpenBatch) -> None:
            loop.call_soon_threadsafe(self.batches.put_nowait, batch)

        self._lanes = {
            lane: LaneProcessor(
                lane,
                together,
                self.identity,
                self._config,
                self.names,
                self._open_store,
                self._schemas,
                self._metrics,
                self._crash_points,
                send_event,
                self._lane_failed,
                self._encode_transaction,
                self.clock,
            )
            for lane, together in lanes.items()
        }
        for processor in self._lanes.values():
            processor.start()

    async def release(self) -> None:
        """Waits for the batches in flight."""
        self.assigned = False
        lanes, self._lanes = list(self._lanes.values()), {}
        await asyncio.gather(*(asyncio.to_thread(lane.stop) for lane in lanes))
        while not self.batches.empty():
            self.batches.get_nowait()

    def send_open_batches_again(self) -> None:
        """Called when a rebalance has ended, in which Faust has emptied its queues."""
        for lane in self._lanes.values():
            if (batch := lane.open_batch()) is not None:
                self.batches.put_nowait(batch)

    def positions(self) -> dict[int, PartitionPosition]:
        """Of the partitions that run, as far as they are committed."""
        lanes = self._lanes.values()
        return {number: read for lane in lanes for number, read in lane.committed().items()}

    def trim_coordination(self) -> None:
        """Deletes the messages that were read, except the last: that one proves that the log was
        not cut.

        Each message has one reader, whose position in it is committed.
        """
        read = [
            TopicPartition(self.names.coordination, partition, position.coordination.last_offset)
            for partition, position in self.positions().items()
            if position.coordination.last_offset > self._trimmed.get(partition, 0)
        ]
        if not read:
            return
        for trimmed, deletion in self._admin.delete_records(read).items():
            try:
                deletion.result()
            except KafkaException as error:
                log.warning(
                    "coordination messages not trimmed",
                    partition=trimmed.partition,
                    error=str(error),
                )
            else:
                self._trimmed[trimmed.partition] = trimmed.offset

    def phases(self) -> dict[int, LanePhase]:
        lanes = self._lanes.values()
        return {number: lane.phase for lane in lanes for number in lane.partitions}

    def _open_store(self, partition: int) -> StateStore:
        return StateStore(self._store_path(partition), partition, self._memory, self._share)

    def local_records(self) -> dict[int, int]:
        """How many records each lane has on the local disk, as far as it is noted."""
        noted: dict[int, int] = {}
        for partition in range(self.identity.partitions):
            lane = topics.lane(partition, self.identity.partitions)
            noted[lane] = noted.get(lane, 0) + checkpoint.noted(self._store_path(partition))
        return {lane: records for lane, records in noted.items() if records}

    def _store_path(self, partition: int) -> Path:
        return self._data / f"partition-{partition}"

    def excluded_from_group(self, code: int, reason: str) -> None:
        """The group rejects this worker. `code` is Kafka's."""
        error = KafkaException(KafkaError(code, reason))
        self._lane_failed(None, auth_errors.with_operator_hint(self._config, error))


class PartitionsAppeared(Failure):
    def __init__(self, appeared: list[int], partitions: int) -> None:
        super().__init__(
            f"the topics have grown by the partitions {appeared}; the ledger has {partitions} for"
            " life, and what is sent to others would never be decided"
        )


class LanesCut(Failure):
    def __init__(self, assigned: list[int], whole: list[int]) -> None:
        super().__init__(
            f"the group assigns the partitions {assigned} to this worker, not their whole lanes"
            f" {whole}: another program is in the group"
        )
