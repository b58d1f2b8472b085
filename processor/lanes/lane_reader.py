"""The reading thread of a lane: reader -> Faust event -> agent -> the lane's writer thread.

The reader waits for the first record of the next batch and sends that batch, still open, through
Faust. The writer closes it once its last batch is committed, with everything that has arrived by
then: so a batch that waits for a commit costs no thread switch, and at most one is ever open. Where
much waits, the reader fills the open batch while the brokers commit (docs/decisions/0023).

Only one thread uses the client at a time: the reader while no batch is open, and afterwards
the holder of the condition. It must not know what is decided.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from plumbing.kafka.clients import ClientConfig
from plumbing.worker.lane_thread import LaneThread, StopRequested
from processor.lanes.batch_reader import Batch, BatchReader

IDLE_S = 0.5
# Below this backlog a second thread costs more than it gains.
READ_AHEAD_MIN_BACKLOG = 500
# A commit that has ended waits at most this long for the reader, and for what it then decodes.
READ_AHEAD_STEP_S = 0.002


class OpenBatch(NamedTuple):
    """The value of a Faust event. `partition` and `offset` are where the batch begins."""

    partition: int
    offset: int
    inbox: SimpleQueue["OpenBatch | None"]

    def deliver(self) -> None:
        """To the writer of its lane, which may be gone by now; then nobody closes it."""
        self.inbox.put(self)


class LaneReader(LaneThread):
    def __init__(
        self,
        lane: int,
        config: ClientConfig,
        batches: BatchReader,
        inbox: SimpleQueue[OpenBatch | None],
        send_event: Callable[[OpenBatch], object],
        on_failure: Callable[[int, BaseException], None],
    ) -> None:
        super().__init__(lane, config, on_failure)
        self._thread.name = f"lane-{lane}-reader"
        self._batches = batches
        self._inbox = inbox
        self._send_event = send_event
        self._changed = threading.Condition(threading.Lock())
        # The batch that the writer has not closed.
        self.open_batch: OpenBatch | None = None
        self._reading_ahead = self._failed = False

    def request_stop(self) -> None:
        super().request_stop()
        with self._changed:
            self._changed.notify()

    def close_batch(self) -> list[Batch]:
        """Called by the writer: the open batch, with what has arrived by now. Empty if its event
        was sent twice. Raises StopRequested if a read has failed: what the client returned then is
        lost, and nothing behind it may be decided."""
        with self._changed:
            if self._failed:
                raise StopRequested
            if self.open_batch is None:
                return []
            batches = self._batches.take(0)
            self.open_batch = None
            self._changed.notify()
        return batches

    def begin_reading_ahead(self) -> None:
        """Called by the writer before it waits for the brokers."""
        if self._batches.backlog() >= READ_AHEAD_MIN_BACKLOG:
            with self._changed:
                self._reading_ahead = True
                self._changed.notify()

    def end_reading_ahead(self) -> None:
        self._reading_ahead = False

    def _own(self) -> None:
        try:
            while not self._stopping.is_set():
                first = self._batches.wait_for_record(IDLE_S)
                if first is not None:
                    self.open_batch = OpenBatch(*first, self._inbox)
                    self._send_event(self.open_batch)
                    self._fill()
        except BaseException:
            self._failed = True
            raise

    def _fill(self) -> None:
        """Until the writer has closed the batch."""
        with self._changed:
            while self.open_batch is not None and not self._stopping.is_set():
                if not self._reading_ahead:
                    self._changed.wait()
                elif not self._read_ahead():
                    self._reading_ahead = False

    def _read_ahead(self) -> bool:
        try:
            return self._batches.read_ahead(READ_AHEAD_STEP_S)
        except BaseException:
            # Before the condition is released: the writer may wait for it.
            self._failed = True
            raise

    def _released(self) -> None:
        """The writer closes the client: it may still ask it how far partitions go."""
