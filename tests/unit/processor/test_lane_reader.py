"""A lane's reader thread and its writer: one batch is open at a time, and closed once."""

import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from plumbing.worker.lane_thread import StopRequested
from processor.lanes.batch_reader import Batch
from processor.lanes.lane_reader import READ_AHEAD_MIN_BACKLOG, LaneReader, OpenBatch

TIMEOUT_S = 10.0


class BatchSource:
    """Stands for a BatchReader. `arrived` holds what the client has; a test adds to it."""

    def __init__(self) -> None:
        self.arrived: SimpleQueue[int] = SimpleQueue()
        self.taken: list[int] = []
        self.ahead: list[int] = []
        self.waiting = 0
        self.failure: Exception | None = None
        self.in_use = threading.Lock()
        self.filled = threading.Event()

    def wait_for_record(self, timeout_s: float) -> tuple[int, int] | None:
        with self.in_use:
            if self.arrived.empty():
                return None
            self.ahead.append(self.arrived.get())
            return 0, self.ahead[0]

    def take(self, timeout_s: float) -> list[Batch]:
        assert self.in_use.acquire(blocking=False), "two threads use the client"
        while not self.arrived.empty():
            self.ahead.append(self.arrived.get())
        batches = [Batch(0, 0, [], offset, []) for offset in self.ahead]
        self.ahead = []
        self.in_use.release()
        return batches

    def read_ahead(self, timeout_s: float) -> bool:
        with self.in_use:
            if self.failure is not None:
                raise self.failure
            if self.arrived.empty():
                self.filled.set()
                return False
            self.ahead.append(self.arrived.get())
            return True

    def backlog(self) -> int:
        return self.waiting


class Lane:
    def __init__(self) -> None:
        self.source = BatchSource()
        self.inbox: SimpleQueue[OpenBatch | None] = SimpleQueue()
        self.failures: SimpleQueue[BaseException] = SimpleQueue()
        source: Any = self.source
        self.reader = LaneReader(
            0,
            {},
            source,
            self.inbox,
            OpenBatch.deliver,
            lambda lane, error: self.failures.put(error),
        )

    def close(self) -> list[int]:
        return [batch.commands_from for batch in self.reader.close_batch()]

    def delivered(self) -> OpenBatch:
        batch = self.inbox.get(timeout=TIMEOUT_S)
        assert batch is not None
        return batch


@pytest.fixture
def lane() -> Iterator[Lane]:
    running = Lane()
    running.reader.start()
    yield running
    running.reader.stop()


def test_a_batch_is_delivered_once_and_takes_what_arrives_until_it_is_closed(lane: Lane) -> None:
    lane.source.arrived.put(7)
    batch = lane.delivered()
    assert (batch.partition, batch.offset) == (0, 7)
    lane.source.arrived.put(8)
    assert lane.close() == [7, 8]
    assert lane.inbox.empty()
    lane.source.arrived.put(9)
    assert lane.delivered().offset == 9
    assert lane.close() == [9]


def test_with_little_backlog_nothing_is_read_ahead_of_a_commit(lane: Lane) -> None:
    lane.source.waiting = READ_AHEAD_MIN_BACKLOG - 1
    lane.source.arrived.put(1)
    lane.delivered()
    lane.source.arrived.put(2)
    lane.reader.begin_reading_ahead()
    assert lane.source.ahead == [1]
    lane.reader.end_reading_ahead()
    assert lane.close() == [1, 2]


def test_with_a_backlog_the_reader_fills_the_batch_during_a_commit(lane: Lane) -> None:
    lane.source.waiting = READ_AHEAD_MIN_BACKLOG
    lane.source.arrived.put(1)
    lane.delivered()
    for offset in range(2, 50):
        lane.source.arrived.put(offset)
    lane.reader.begin_reading_ahead()
    assert lane.source.filled.wait(TIMEOUT_S)
    assert lane.source.ahead == list(range(1, 50))
    lane.reader.end_reading_ahead()
    lane.source.arrived.put(50)
    assert lane.close() == list(range(1, 51))


def test_a_failed_read_stops_the_writer_before_it_decides_what_came_later(lane: Lane) -> None:
    """The records that the failed read returned are lost, and a gap in offsets is legal."""
    lane.source.waiting = READ_AHEAD_MIN_BACKLOG
    lane.source.failure = RuntimeError("a read failed")
    lane.source.arrived.put(1)
    lane.delivered()
    lane.reader.begin_reading_ahead()
    assert lane.failures.get(timeout=TIMEOUT_S) is lane.source.failure
    lane.source.arrived.put(3)
    with pytest.raises(StopRequested):
        lane.reader.close_batch()


def test_a_reader_stops_while_a_batch_is_open(lane: Lane) -> None:
    lane.source.arrived.put(1)
    lane.delivered()
    lane.reader.stop()
    assert lane.failures.empty()


def test_a_batch_whose_event_was_sent_twice_is_closed_once(lane: Lane) -> None:
    lane.source.arrived.put(1)
    batch = lane.delivered()
    batch.deliver()
    assert lane.close() == [1]
    assert lane.reader.open_batch is None
    assert lane.delivered() is batch
    assert lane.close() == []
