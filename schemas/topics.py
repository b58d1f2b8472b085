"""The topics, as data: names, partitions, retention, writers and readers.

Topic creation and topic checks both follow this definition. It must not know a Kafka client. Names
are `<prefix><role>`, except that the operator may rename `transactions`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

DAY_MS = 24 * 60 * 60 * 1000
MIB = 1024 * 1024
NAME_PATTERN = r"^[A-Za-z0-9._-]{1,100}$"
UNLIMITED = -1


# A lane has about this many partitions, and a ledger has at least this many lanes. Neither may ever
# change: the lane of a partition determines where the positions of its results are stored.
LANE_PARTITIONS, MIN_LANES = 4, 2


def lanes(partitions: int) -> int:
    """The number of lanes of a ledger; at most this many processors, and as many sinks, have work
    at once."""
    return min(partitions, max(MIN_LANES, -(-partitions // LANE_PARTITIONS)))


def lane(partition: int, partitions: int) -> int:
    """The lane of a partition; also the partition of `results.positions` with its position."""
    return partition % lanes(partitions)


def whole_lanes(some: Collection[int], partitions: int) -> list[int]:
    """All partitions of the given lanes."""
    return [number for number in range(partitions) if lane(number, partitions) in some]


@dataclass(frozen=True, slots=True)
class Topic:
    role: str
    key: str
    writers: str
    readers: str
    kept: str
    # None: the ledger's number of partitions, or of lanes if `lanes` is set.
    partitions: int | None = None
    lanes: bool = False
    cleanup: Literal["delete", "compact"] = "delete"
    retention_ms: int = UNLIMITED
    retention_fixed: bool = True  # False: the operator may set another retention
    log_append_time: bool = False
    # The broker recompresses each batch: it numbers the records itself, and a small batch cannot
    # decompress to a huge one (docs/decisions/0028).
    compressed_by_broker: bool = False
    max_message_bytes: int = 4 * MIB
    delete_retention_ms: int | None = None
    min_compaction_lag_ms: int | None = None

    def count(self, partitions: int) -> int:
        """The topic's number of partitions in a ledger with this many partitions."""
        if self.lanes:
            return lanes(partitions)
        return partitions if self.partitions is None else self.partitions

    def config(self, replication_factor: int) -> dict[str, str]:
        """The topic's broker configuration. A write waits for a majority of the replicas."""
        config = {
            "cleanup.policy": self.cleanup,
            "message.timestamp.type": "LogAppendTime" if self.log_append_time else "CreateTime",
            "max.message.bytes": str(self.max_message_bytes),
            "min.insync.replicas": str(replication_factor // 2 + 1),
            "unclean.leader.election.enable": "false",
        }
        if self.compressed_by_broker:
            config["compression.type"] = "lz4"
        if self.cleanup == "delete":
            config["retention.bytes"] = str(UNLIMITED)
            config["retention.ms"] = str(self.retention_ms)
        if self.delete_retention_ms is not None:
            config["delete.retention.ms"] = str(self.delete_retention_ms)
        if self.min_compaction_lag_ms is not None:
            config["min.compaction.lag.ms"] = str(self.min_compaction_lag_ms)
        return config


COMMANDS = Topic(
    "commands",
    key="account id",
    writers="ingress, any producer",
    readers="processor",
    kept="always",
    log_append_time=True,
    compressed_by_broker=True,
    max_message_bytes=1 * MIB,
)
COORDINATION = Topic(
    "coordination",
    key="account id",
    writers="processor",
    readers="processor",
    kept="until its one reader has read it: never by time or size",
    log_append_time=True,
)
JOURNAL = Topic(
    "journal",
    key="account id",
    writers="processor",
    readers="sink, verify, replay",
    kept="always",
)
TRANSACTIONS = Topic(
    "transactions",
    key="account id",
    writers="processor",
    readers="analytics, anyone",
    kept="always, unless the operator sets a time",
    retention_fixed=False,
)
STATE = Topic(
    "state",
    key="state key",
    writers="processor",
    readers="processor, in recovery",
    kept="the last of each key",
    cleanup="compact",
    delete_retention_ms=7 * DAY_MS,
    min_compaction_lag_ms=1 * DAY_MS,
)
RESULTS = Topic(
    "results",
    key="transaction id, else partition:offset",
    writers="sink",
    readers="ingress, any producer that waits for results",
    kept="7 days",
    partitions=8,
    retention_ms=7 * DAY_MS,
)
RESULTS_POSITIONS = Topic(
    "results.positions",
    key="partition",
    writers="sink",
    readers="sink",
    kept="the last of each key",
    lanes=True,
    cleanup="compact",
)
COMMANDS_DEAD = Topic(
    "commands.dead",
    key="as read",
    writers="processor",
    readers="people",
    kept="always",
    partitions=1,
)

ALL = (
    COMMANDS,
    COORDINATION,
    JOURNAL,
    TRANSACTIONS,
    STATE,
    RESULTS,
    RESULTS_POSITIONS,
    COMMANDS_DEAD,
)


@dataclass(frozen=True, slots=True)
class Names:
    """The topic names of one installation."""

    prefix: str = ""
    transactions_name: str = TRANSACTIONS.role

    def name_of(self, topic: Topic) -> str:
        own = self.transactions_name if topic is TRANSACTIONS else topic.role
        return self.prefix + own

    @property
    def commands(self) -> str:
        return self.name_of(COMMANDS)

    @property
    def coordination(self) -> str:
        return self.name_of(COORDINATION)

    @property
    def journal(self) -> str:
        return self.name_of(JOURNAL)

    @property
    def transactions(self) -> str:
        return self.name_of(TRANSACTIONS)

    @property
    def state(self) -> str:
        return self.name_of(STATE)

    @property
    def results(self) -> str:
        return self.name_of(RESULTS)

    @property
    def results_positions(self) -> str:
        return self.name_of(RESULTS_POSITIONS)

    @property
    def commands_dead(self) -> str:
        return self.name_of(COMMANDS_DEAD)
