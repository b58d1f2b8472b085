"""A worker's clock against the brokers': which of them is wrong, and whom that stops."""

import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from processor.lanes.admission import Admission, Stopped
from processor.lanes.broker_clock import ClockDisagrees, WorkerClock
from processor.rules.journal_header import input_of
from schemas import coordination
from schemas.state import PartitionState
from schemas.topics import Names

NAMES = Names("")
HOUR_MS = 3_600_000
AHEAD_MS = 3 * HOUR_MS


@dataclass
class Metadata:
    """Of a cluster, a topic, a partition or a broker."""

    brokers: dict[int, Any] = field(default_factory=dict)
    topics: dict[str, Any] = field(default_factory=dict)
    partitions: dict[int, Any] = field(default_factory=dict)
    leader: int = -1
    error: None = None
    id: int = -1
    host: str = ""
    port: int = 9092


class Acknowledgement:
    def __init__(self, time_ms: int, partition: int) -> None:
        self._time_ms, self._partition = time_ms, partition

    def timestamp(self) -> tuple[int, int]:
        return 2, self._time_ms

    def partition(self) -> int:
        return self._partition


class Cluster:
    """Brokers with clocks of their own, and the partitions of `coordination` that each leads."""

    def __init__(self, leaders: list[int], ahead_ms: dict[int, int]) -> None:
        self.leaders, self.ahead_ms = leaders, ahead_ms
        self.appended: list[int] = []
        self.aborted = False
        self._reports: list[tuple[Any, int]] = []

    def list_topics(self, topic: str, timeout: float) -> Metadata:
        partitions = {n: Metadata(leader=leader) for n, leader in enumerate(self.leaders)}
        brokers = {n: Metadata(id=n, host=f"kafka-{n}") for n in self.ahead_ms}
        return Metadata(brokers, {topic: Metadata(partitions=partitions)})

    def init_transactions(self, timeout: float) -> None: ...

    def begin_transaction(self) -> None: ...

    def produce(
        self, topic: str, value: bytes, key: None, partition: int, on_delivery: Any
    ) -> None:
        self._reports.append((on_delivery, partition))

    def flush(self, timeout: float) -> None:
        for report, partition in self._reports:
            self.appended.append(partition)
            time_ms = int(time.time() * 1_000) + self.ahead_ms[self.leaders[partition]]
            report(None, Acknowledgement(time_ms, partition))

    def abort_transaction(self, timeout: float) -> None:
        self.aborted = True


def clock_of(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> WorkerClock:
    monkeypatch.setattr("processor.lanes.broker_clock.Producer", lambda config: cluster)
    return WorkerClock({"client.id": "books"}, NAMES, len(cluster.leaders))


def admit_late_record(monkeypatch: pytest.MonkeyPatch, clock: WorkerClock) -> None:
    """One that a broker with a wrong clock has stamped, and no operator has decided on."""
    monkeypatch.setattr("processor.lanes.admission.CommittedReader", NothingThere)
    time_ms = int(time.time() * 1_000) + AHEAD_MS
    late = input_of("coordination", 12, None, b"{}", time_ms, coordination.Tick())
    Admission({}, NAMES, clock)(PartitionState(0), late)


class NothingThere:
    def __init__(self, config: object) -> None: ...

    def __enter__(self) -> "NothingThere":
        return self

    def __exit__(self, *_: object) -> None: ...

    def range(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, 0

    def read(self, *_: object) -> list[object]:
        return []


@pytest.mark.parametrize(
    "leaders", [[1, 2], [1, 1, 1, 2], [2, 2, 2, 1]], ids=["one each", "few", "most"]
)
def test_one_wrong_broker_of_two_stops_no_correct_worker(
    monkeypatch: pytest.MonkeyPatch, leaders: list[int]
) -> None:
    clock_of(monkeypatch, Cluster(leaders, {1: 0, 2: AHEAD_MS})).check()


def test_a_record_that_it_stamped_names_the_broker_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = clock_of(monkeypatch, Cluster([1, 2], {1: 0, 2: AHEAD_MS}))
    with pytest.raises(Stopped) as stopped:
        admit_late_record(monkeypatch, clock)
    reason = str(stopped.value)
    assert "broker 2 (kafka-2:9092) is 10,800 s ahead" in reason
    assert "broker 1" not in reason
    assert "streamledger log-time 0:12 --topic coordination --time" in reason


def test_a_record_that_no_leader_of_now_has_stamped_names_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = clock_of(monkeypatch, Cluster([1, 2], {1: 0, 2: 0}))
    with pytest.raises(Stopped, match="agrees with the clocks of all brokers that lead"):
        admit_late_record(monkeypatch, clock)


@pytest.mark.parametrize(
    "ahead_ms",
    [
        {1: AHEAD_MS},
        {1: -AHEAD_MS, 2: -AHEAD_MS},
        {1: AHEAD_MS, 2: AHEAD_MS, 3: 0},
    ],
    ids=["the only broker", "every broker", "two of three"],
)
def test_a_worker_that_too_few_brokers_agree_with_is_wrong(
    monkeypatch: pytest.MonkeyPatch, ahead_ms: dict[int, int]
) -> None:
    clock = clock_of(monkeypatch, Cluster(list(ahead_ms), ahead_ms))
    with pytest.raises(ClockDisagrees, match=r"broker 1 \(kafka-1:9092\) is 10,800 s"):
        clock.check()


def test_the_check_touches_one_partition_of_each_broker_and_aborts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While its transaction is open, nobody reads on in a partition that it touches."""
    cluster = Cluster([1, 2, 1, 2, 1, 2, 1, 3], {1: 0, 2: 0, 3: 0})
    clock_of(monkeypatch, cluster).check()
    assert sorted(cluster.appended) == [0, 1, 7]
    assert cluster.aborted
