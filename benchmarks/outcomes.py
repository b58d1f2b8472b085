"""When outcomes become visible to readers of committed records, and which they were.

For throughput the journal's stable ends are polled and the records are counted afterwards, so that
reading takes nothing from what is measured. For latency a reader in a process of its own notes when
each outcome reaches it.
"""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

import msgspec
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from benchmarks import children
from benchmarks.machine import Config
from schemas.journal import OUTCOMES

BURST = 5_000
TIMEOUT_S = 120.0


class _Source(msgspec.Struct):
    topic: str
    offset: int = -1


class _Record(msgspec.Struct):
    """What is needed of a journal record."""

    step: str
    source: _Source
    command_offset: int | None = None
    reason: str | None = None


_decode = msgspec.json.Decoder(_Record).decode


class Ends:
    """The stable ends of one topic: where a read_committed reader would have to wait."""

    def __init__(self, client: Config, topic: str, partitions: int) -> None:
        self._admin = AdminClient(client)
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has no types
        self._asked = {TopicPartition(topic, partition): latest for partition in range(partitions)}

    def read(self) -> list[int]:
        told = self._admin.list_offsets(
            self._asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=10
        )
        return [answer.result().offset for answer in told.values()]


class Found(NamedTuple):
    """The outcomes between two ends: how many of each, and the last one of each partition."""

    counts: Counter[str]
    last: dict[int, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def between(client: Config, topic: str, begin: list[int], ends: list[int]) -> Found:
    counts: Counter[str] = Counter()
    last: dict[int, int] = {}
    for message in records(client, topic, begin, ends):
        record = _decode(message.value() or b"")
        if record.step in OUTCOMES:
            counts[record.reason or record.step] += 1
            last[message.partition() or 0] = message.offset() or 0
    return Found(counts, last)


def append_times(
    client: Config, topic: str, begin: list[int], ends: list[int]
) -> dict[tuple[int, int], float]:
    """When each record was appended, in seconds, by partition and offset."""
    return {
        (message.partition() or 0, message.offset() or 0): message.timestamp()[1] / 1_000
        for message in records(client, topic, begin, ends)
    }


def records(client: Config, topic: str, begin: list[int], ends: list[int]) -> Iterator[Message]:
    """Every committed record from begin up to, not with, the ends."""
    consumer = _reader(client, **{"enable.partition.eof": True})
    wanted = {p: end for p, end in enumerate(ends) if end > begin[p]}
    consumer.assign([TopicPartition(topic, p, begin[p]) for p in wanted])
    deadline = time.monotonic() + TIMEOUT_S
    while wanted:
        assert time.monotonic() < deadline, f"{topic} cannot be read to its end: {wanted}"
        for message in consumer.consume(BURST, 0.1):
            partition = message.partition() or 0
            if message.error() is not None:
                # The end of the partition: markers are all that follows its last record.
                wanted.pop(partition, None)
            elif (message.offset() or 0) < ends[partition]:
                deadline = time.monotonic() + TIMEOUT_S
                yield message
    consumer.close()


def _reader(client: Config, **settings: str | int | bool) -> Consumer:
    return Consumer(
        {
            **client,
            "group.id": "none",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            **settings,
        }
    )


class Seen(NamedTuple):
    """An outcome's command, and when a reader had the outcome."""

    partition: int
    offset: int
    at: float


# Partition and offset of the command whose outcome a record is.
OutcomeOf = Callable[[Message], tuple[int, int] | None]


class Watch:
    """A reader of committed records, from its end on, until it has seen enough."""

    def __init__(self, theirs: Connection) -> None:
        self._theirs = theirs

    def seen(self) -> list[Seen]:
        """Waits until all outcomes that were asked for are there."""
        assert self._theirs.poll(TIMEOUT_S), "the outcomes did not come"
        return [Seen(*each) for each in self._theirs.recv()]


@contextmanager
def watching(
    client: Config, topic: str, begin: list[int], count: int, outcome_of: OutcomeOf | None = None
) -> Iterator[Watch]:
    """Of the journal, unless `outcome_of` reads something else."""
    of = outcome_of or outcome_of_record
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    process = spawning.Process(target=_watch, args=(theirs, client, topic, begin, count, of))
    process.start()
    children.end_with_us(process.pid or 0)
    theirs.close()  # so that its end is noticed
    try:
        assert ours.poll(TIMEOUT_S), "the reader does not start"
        ours.recv()
        yield Watch(ours)
        process.join(TIMEOUT_S)
    finally:
        process.kill()


def outcome_of_record(message: Message) -> tuple[int, int] | None:
    record = _decode(message.value() or b"")
    if record.step not in OUTCOMES:
        return None
    offset = record.command_offset
    return message.partition() or 0, record.source.offset if offset is None else offset


def _watch(
    ours: Connection,
    client: Config,
    topic: str,
    begin: list[int],
    count: int,
    outcome_of: OutcomeOf,
) -> None:
    consumer = _reader(client)
    consumer.assign([TopicPartition(topic, p, offset) for p, offset in enumerate(begin)])
    consumer.poll(0.5)
    ours.send("reading")
    seen: list[tuple[int, int, float]] = []
    while len(seen) < count:
        first = consumer.poll(1.0)
        if first is None:
            continue
        messages = [first, *consumer.consume(BURST, 0)]
        at = time.time()
        for message in messages:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            if (command := outcome_of(message)) is not None:
                seen.append((*command, at))
    ours.send(seen)
    consumer.close()
