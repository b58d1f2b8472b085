"""The lanes that this worker owns: taken over and let go of as the group assigns them."""

import asyncio
import threading
from pathlib import Path

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from plumbing.failures import Failure
from plumbing.kafka import clients
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
        recorder: ProcessorMetrics,
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
        self._recorder = recorder
        self._crash_points = crash_points
        self._memory = Memory(rocksdb_mib)
        self._cache_entries = cache_entries
        self._encode_transaction = encode_transaction
        self.clock = WorkerClock(config, names, identity.partitions)
        # By lane. Other threads read it, so it is replaced and never changed.
        self._owners: dict[int, LaneProcessor] = {}
        self._share = cache_entries
        # Whether the group has told what is ours; that may be nothing.
        self.assigned = False
        # Set once the worker has begun to stop.
        self.stopping = threading.Event()
        self.crash_policy = CrashPolicy(self.stopping, restart_on=(Damaged, ClockDisagrees))
        self._lane_failed = self.crash_policy.lane_failed
        self._admin = AdminClient(config)
        self._trimmed: dict[int, int] = {}

    async def own(self, partitions: set[int]) -> None:
        """Returns at once: taking over goes on in the lanes' threads, so that the group's
        heartbeats do not wait for a restore."""
        appeared = [p for p in sorted(partitions) if p >= self.identity.partitions]
        if appeared:
            self._lane_failed(None, PartitionsAppeared(appeared, self.identity.partitions))
            return
        assert not self._owners, "what was owned is let go of before anything is assigned"
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

        self._owners = {
            lane: LaneProcessor(
                lane,
                together,
                self.identity,
                self._config,
                self.names,
                self._table,
                self._schemas,
                self._recorder,
                self._crash_points,
                send_event,
                self._lane_failed,
                self._encode_transaction,
                self.clock,
            )
            for lane, together in lanes.items()
        }
        for owner in self._owners.values():
            owner.start()

    async def let_go(self) -> None:
        """Waits for the batches in flight."""
        self.assigned = False
        owners, self._owners = list(self._owners.values()), {}
        await asyncio.gather(*(asyncio.to_thread(owner.stop) for owner in owners))
        while not self.batches.empty():
            self.batches.get_nowait()

    def positions(self) -> dict[int, PartitionPosition]:
        """Of the partitions that run, as far as they are committed."""
        owners = self._owners.values()
        return {number: at for owner in owners for number, at in owner.committed().items()}

    def trim_coordination(self) -> None:
        """Deletes the messages that were read, but the last: it proves that the log was not cut.

        Each message has one reader, and its position is committed when it is told here.
        """
        read = [
            TopicPartition(self.names.coordination, partition, position.coordination.last_offset)
            for partition, position in self.positions().items()
            if position.coordination.last_offset > self._trimmed.get(partition, 0)
        ]
        if not read:
            return
        for asked, deleted in self._admin.delete_records(read).items():
            try:
                deleted.result()
            except KafkaException as error:
                log.warning(
                    "coordination messages not trimmed", partition=asked.partition, error=str(error)
                )
            else:
                self._trimmed[asked.partition] = asked.offset

    def phases(self) -> dict[int, LanePhase]:
        owners = self._owners.values()
        return {number: owner.phase for owner in owners for number in owner.partitions}

    def _table(self, partition: int) -> StateStore:
        return StateStore(self._copy(partition), partition, self._memory, self._share)

    def copies(self) -> dict[int, int]:
        """How many records each lane's copy on disk has, as far as it is noted."""
        found: dict[int, int] = {}
        for partition in range(self.identity.partitions):
            lane = topics.lane(partition, self.identity.partitions)
            found[lane] = found.get(lane, 0) + checkpoint.noted(self._copy(partition))
        return {lane: records for lane, records in found.items() if records}

    def _copy(self, partition: int) -> Path:
        return self._data / f"partition-{partition}"

    def left_out(self, code: int, reason: str) -> None:
        """The group does not take this worker. `code` is Kafka's."""
        error = KafkaException(KafkaError(code, reason))
        self._lane_failed(None, clients.explained(self._config, error))


class PartitionsAppeared(Failure):
    def __init__(self, appeared: list[int], partitions: int) -> None:
        super().__init__(
            f"the topics have grown by the partitions {appeared}; the ledger has {partitions} for"
            " life, and what is sent to others would never be decided"
        )


class LanesCut(Failure):
    def __init__(self, given: list[int], whole: list[int]) -> None:
        super().__init__(
            f"the group gives this worker the partitions {given}, and not all of their lanes,"
            f" {whole}: another program is in the group"
        )
