"""What a worker says of its lanes while the group gives it more of them."""

import asyncio
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from plumbing.worker.crash_points import CrashPoints
from processor.lanes import supervisor as ledgers
from processor.lanes.lane import LanePhase, LedgerIdentity
from processor.lanes.lane_reader import OpenBatch
from processor.lanes.supervisor import LaneSupervisor
from processor.metrics import ProcessorMetrics
from schemas.encoding.codecs import AvroSchemas
from schemas.ledger_parameters import LedgerParameters
from schemas.state import InputPosition, PartitionPosition, PartitionState
from schemas.topics import Names

WAIT_S = 10.0
POSITION = PartitionPosition(PartitionState(0), InputPosition(), InputPosition(), "")


def supervisor(tmp_path: Path) -> LaneSupervisor:
    return LaneSupervisor(
        LedgerIdentity("mine", 8, LedgerParameters()),
        {"bootstrap.servers": "127.0.0.1:1", "log_level": 0},
        Names(),
        tmp_path,
        AvroSchemas(tmp_path / "schemas", None),
        ProcessorMetrics(CollectorRegistry()),
        CrashPoints(""),
        rocksdb_mib=16,
        cache_entries=100,
        encode_transaction=lambda _: b"",
    )


def test_positions_while_lanes_are_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read in other threads: to trim `coordination`, and for tools that show lag."""
    ledger = supervisor(tmp_path)
    reading, owned = threading.Event(), threading.Event()
    found: list[object] = []

    def read() -> None:
        try:
            found.append(ledger.positions())
        except RuntimeError as error:
            found.append(error)
        finally:
            reading.set()

    reader = threading.Thread(target=read)

    class Slow:
        """The second lane is added while somebody reads the first one's position."""

        phase = LanePhase.RUNNING

        def __init__(self, lane: int, partitions: list[int], *_: Any) -> None:
            self.partitions = partitions
            if lane == 1:
                reader.start()
                assert reading.wait(WAIT_S)

        def committed(self) -> dict[int, PartitionPosition]:
            reading.set()
            assert owned.wait(WAIT_S)
            return dict.fromkeys(self.partitions, POSITION)

        def start(self) -> None:
            pass

    monkeypatch.setattr(ledgers, "LaneProcessor", Slow)
    asyncio.run(ledger.own(set(range(8))))
    owned.set()
    reader.join()
    assert found == [{}] or found == [dict.fromkeys(range(8), POSITION)]
    assert ledger.positions() == dict.fromkeys(range(8), POSITION)


def test_open_batches_are_sent_again_after_a_rebalance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust empties its queues in one: a lane whose event is lost would stand still."""

    class Waiting:
        """Its second lane has an open batch."""

        def __init__(self, lane: int, partitions: list[int], *_: Any) -> None:
            self.batch = OpenBatch(1, 7, SimpleQueue()) if lane == 1 else None

        def open_batch(self) -> OpenBatch | None:
            return self.batch

        def start(self) -> None:
            pass

    monkeypatch.setattr(ledgers, "LaneProcessor", Waiting)
    lanes = supervisor(tmp_path)
    asyncio.run(lanes.own(set(range(8))))
    lanes.send_open_batches_again()
    assert lanes.batches.get_nowait().offset == 7
    assert lanes.batches.empty()
