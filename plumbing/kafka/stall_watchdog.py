"""Finds a consumer that has stopped fetching a partition.

librdkafka may stop fetching for good, without an error, when the partition's broker restarts at a
bad moment. So this asks the brokers, every few seconds, how far the partitions go, and compares
that with what the consumer has read. It replaces nothing and knows no topic.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from plumbing.kafka import clients

CHECK_INTERVAL_S = 5.0
# The consumer must have read so often between two checks: the records of a quiet partition may be
# queued behind those of a busy one, with its owner.
MIN_READS = 5
# At so many checks in a row a partition must be behind at the same offset.
STALLED_CHECKS: Final = 2
ANSWER_TIMEOUT_S: Final = 4.0
# A topic and a partition.
Place = tuple[str, int]


class StallWatchdog:
    """`next_offsets` says what is read, and how far."""

    def __init__(
        self, config: Mapping[str, Any], next_offsets: Callable[[], Mapping[Place, int]]
    ) -> None:
        self._config = config
        self._next_offsets = next_offsets
        self._admin: AdminClient | None = None
        self._end_requests: dict[TopicPartition, Future[Any]] = {}
        self._check_at = time.monotonic() + CHECK_INTERVAL_S
        self._reads = 0
        # Where the consumer has seen partitions end, past markers and aborted records.
        self._seen_ends: dict[Place, int] = {}
        # The next offset of each partition that goes further, and for how many checks in a row.
        self._behind: dict[Place, tuple[int, int]] = {}
        # Where a consumer was replaced, and after how many checks the next one is: doubling each
        # time, so that a slow fetch is not restarted forever.
        self._patience: dict[Place, tuple[int, int]] = {}

    def note_end(self, place: Place, offset: int) -> None:
        """The consumer has read to the end of a partition."""
        self._seen_ends[place] = offset

    def before_read(self) -> Mapping[Place, int]:
        """Call it before each read. Returns the stalled partitions with their next offsets; the
        caller replaces its consumer if there are any."""
        self._reads += 1
        if time.monotonic() < self._check_at:
            return {}
        stalled = self._check()
        self._check_at = time.monotonic() + CHECK_INTERVAL_S
        return stalled

    def close(self) -> None:
        # The client's threads end with it.
        self._end_requests, self._admin = {}, None

    def _check(self) -> Mapping[Place, int]:
        next_offsets = self._next_offsets()
        stalled: dict[Place, int] = {}
        if self._reads >= MIN_READS:
            self._reads = 0
            self._behind = {
                place: (offset, 1 + _noted_at(self._behind.get(place), offset, 0))
                for place, end in self._ends().items()
                if (offset := max(next_offsets[place], self._seen_ends.get(place, 0))) < end
            }
            for place, (offset, checks) in self._behind.items():
                patience = _noted_at(self._patience.get(place), offset, STALLED_CHECKS)
                if checks >= patience:
                    stalled[place] = offset
                    self._patience[place] = offset, 2 * patience
            if stalled:
                self._behind = {}
        self._request_ends(next_offsets)
        return stalled

    def _request_ends(self, places: Iterable[Place]) -> None:
        if self._admin is None:
            # A request about a topic may create it, where brokers do so and the client lets them.
            self._admin = AdminClient({**self._config, "allow.auto.create.topics": False})
        where = [TopicPartition(*place) for place in places]
        self._end_requests = clients.request_ends(self._admin, where, ANSWER_TIMEOUT_S)

    def _ends(self) -> dict[Place, int]:
        """The ends that brokers have answered since the last check."""
        return {
            (where.topic, where.partition): int(answer.result().offset)
            for where, answer in self._end_requests.items()
            if answer.done() and answer.exception() is None
        }


def _noted_at(noted: tuple[int, int] | None, offset: int, default: int) -> int:
    """What was noted, if it was noted at this offset."""
    return noted[1] if noted is not None and noted[0] == offset else default
