"""Faust's transport, less what a ledger cannot use: membership and assignment stay, fetching goes.

Faust's consumer joins the group and is told which partitions are this worker's; it fetches nothing.
Batches come from the lanes' owners and go on as Faust events, one for what a lane has read. Nothing
is acknowledged or committed here: where work goes on is in the ledger's own state. What stock Faust
does instead, and why that loses and doubles money, is told in docs/decisions/0004.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import structlog
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # it has no types
from aiokafka.structs import (  # type: ignore[import-untyped]  # likewise
    OffsetAndMetadata,
    TopicPartition,
)
from faust.transport.consumer import TransactionManager
from faust.transport.drivers import aiokafka
from faust.types import TP, ConsumerMessage

log = structlog.get_logger(__name__)


RETRY_BACKOFF_MS = 500
LOOK_S = 1.0


class Partitions(TransactionManager):
    """Told by Faust, in each rebalance, which partitions are revoked and which are assigned."""

    app: Any

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.app.ledger.let_go()

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]
    ) -> None:
        self.app.consumer.fetch_nothing(assigned)
        await self.app.ledger.own({tp.partition for tp in assigned})

    async def commit(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        return True

    async def flush(self) -> None:
        """Nothing is produced through Faust."""


class Membership(aiokafka.AIOKafkaConsumerThread):
    """Faust's connection to the group, in a thread of its own."""

    app: Any
    _watching: asyncio.Future[None] | None = None

    async def on_start(self) -> None:
        await super().on_start()
        self._watching = asyncio.ensure_future(self._watch())

    async def on_thread_stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        await super().on_thread_stop()

    async def _watch(self) -> None:
        """There are errors after which the client waits until it is asked for records, to tell
        them: for ever, as nobody asks."""
        while True:
            try:
                self._ensure_consumer()._coordinator.check_errors()
            except KafkaError as error:
                self.app.ledger.left_out(error.errno, str(error))
                return
            await asyncio.sleep(LOOK_S)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no setting for it. The client's own, 100 ms, costs a quarter of a core for as
        # long as the brokers are away.
        consumer._retry_backoff_ms = RETRY_BACKOFF_MS
        return consumer


class BatchConsumer(aiokafka.Consumer):
    """Delivers what the owners have read: one event for all that has arrived in a lane."""

    app: Any

    def _new_consumer_thread(self) -> Membership:
        return Membership(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            await self._pass_on(fetcher)
        except asyncio.CancelledError:
            # Faust would call a cancelled fetcher crashed where a rebalance is under way.
            if not self.app.should_stop:
                raise

    async def _pass_on(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            batch = await self.app.ledger.batches.get()
            await self.app.settled.wait()
            tp = TP(self.app.ledger.topic, batch.partition)
            message = ConsumerMessage(
                tp.topic,
                tp.partition,
                batch.offset,
                0.0,
                0,
                None,
                None,
                None,
                None,
                0,
                0,
                tp,
                generation_id=self.app.consumer_generation_id,
            )
            event = self.app.create_event(None, batch, None, message)
            for channel in self.app.topics._tp_index[tp]:
                message.incref()
                await channel.queue.put(event)

    def fetch_nothing(self, assigned: Iterable[TP]) -> None:
        """Faust's client would read ahead what nobody takes from it."""
        self._thread._ensure_consumer().pause(*(TopicPartition(*tp) for tp in assigned))

    async def tell_group(self, offsets: Mapping[TP, int]) -> None:
        """Commit group offsets for tools to see; if it fails, the next time will do."""
        consumer = self._thread._ensure_consumer()
        told = {TopicPartition(*tp): OffsetAndMetadata(at, "") for tp, at in offsets.items()}
        try:
            await self._thread.call_thread(consumer.commit, told)
        except KafkaError as error:
            log.info("group offsets not told", error=repr(error))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust looks for its own fetches and commits, of which there are none."""


class BatchTransport(aiokafka.Transport):
    Consumer: ClassVar[type[aiokafka.Consumer]] = BatchConsumer
    TransactionManager: ClassVar[type[TransactionManager]] = Partitions
