"""What Faust's event queues get: the batches of lanes that this worker owns."""

import asyncio
from collections import defaultdict
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from processor.lanes.lane_reader import OpenBatch
from processor.streaming.transport import BatchConsumer

TIMEOUT_S = 10.0


class Running:
    """A consumer of Faust's with as much around it as a batch passes."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[OpenBatch] = asyncio.Queue()
        self.queue: asyncio.Queue[OpenBatch] = asyncio.Queue()
        index: defaultdict[TP, set[Any]] = defaultdict(set)
        index[TP("commands", 3)].add(Channel(self.queue))
        self.consumer: Any = BatchConsumer.__new__(BatchConsumer)
        self.consumer.app = SimpleNamespace(
            lanes=SimpleNamespace(topic="commands", batches=self.batches),
            topics=SimpleNamespace(_tp_index=index),
            consumer_generation_id=1,
            create_event=lambda key, value, headers, message: value,
        )

    async def pass_on(self) -> None:
        while True:
            await self.consumer._send_next_batch()


class Channel:
    def __init__(self, queue: asyncio.Queue[OpenBatch]) -> None:
        self.queue = queue


def batch(partition: int) -> OpenBatch:
    return OpenBatch(partition, 0, SimpleQueue())


def test_a_batch_of_a_partition_that_was_given_up_reaches_nobody() -> None:
    async def story() -> None:
        running = Running()
        passing = asyncio.create_task(running.pass_on())
        expected = batch(3)
        running.batches.put_nowait(batch(7))
        running.batches.put_nowait(expected)
        assert await asyncio.wait_for(running.queue.get(), TIMEOUT_S) is expected
        assert running.queue.empty()
        passing.cancel()

    asyncio.run(story())
