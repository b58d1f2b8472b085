"""Faust's transport, less what a ledger cannot use: membership and assignment stay, fetching goes.

Faust's consumer joins the group and learns which partitions are this worker's; it fetches nothing.
The lanes' readers fetch, and send each batch through Faust as one event. Nothing is acknowledged or
committed here: the ledger's own state says where to read on. docs/decisions/0004 says what stock
Faust does instead, and why that loses and duplicates money.
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
ERROR_CHECK_INTERVAL_S = 1.0


class RebalanceHooks(TransactionManager):
    """Faust calls these in each rebalance. They start and stop lanes instead of transactions."""

    app: Any

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await self.app.lanes.release()

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP]
    ) -> None:
        self.app.consumer.pause_fetching(assigned)
        await self.app.lanes.own({tp.partition for tp in assigned})

    async def commit(self, offsets: Mapping[TP, int], start_new_transaction: bool = True) -> bool:
        return True

    async def flush(self) -> None:
        """Nothing is produced through Faust."""


class GroupMembership(aiokafka.AIOKafkaConsumerThread):
    """Faust's connection to the group, in a thread of its own."""

    app: Any
    _error_check: asyncio.Future[None] | None = None

    async def on_start(self) -> None:
        await super().on_start()
        self._error_check = asyncio.ensure_future(self._check_errors())

    async def on_thread_stop(self) -> None:
        if self._error_check is not None:
            self._error_check.cancel()
        await super().on_thread_stop()

    async def _check_errors(self) -> None:
        """The client reports some errors only when it is asked for records, which never happens."""
        while True:
            try:
                self._ensure_consumer()._coordinator.check_errors()
            except KafkaError as error:
                self.app.lanes.excluded_from_group(error.errno, str(error))
                return
            await asyncio.sleep(ERROR_CHECK_INTERVAL_S)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no setting for it. With the client's default of 100 ms, an outage of the brokers
        # costs a quarter of a core.
        consumer._retry_backoff_ms = RETRY_BACKOFF_MS
        return consumer


class BatchConsumer(aiokafka.Consumer):
    """Turns each batch of a lane into one Faust event, instead of each fetched record."""

    app: Any

    def _new_consumer_thread(self) -> GroupMembership:
        return GroupMembership(self, loop=self.loop, beacon=self.beacon)

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._send_next_batch()
        except asyncio.CancelledError:
            # During a rebalance, Faust would report a cancelled fetcher as crashed.
            if not self.app.should_stop:
                raise

    async def _send_next_batch(self) -> None:
        batch = await self.app.lanes.batches.get()
        tp = TP(self.app.lanes.topic, batch.partition)
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

    def pause_fetching(self, assigned: Iterable[TP]) -> None:
        """Faust's client would fetch records that nobody takes from it."""
        self._thread._ensure_consumer().pause(*(TopicPartition(*tp) for tp in assigned))

    async def commit_group_offsets(self, offsets: Mapping[TP, int]) -> None:
        """For lag tools alone. If it fails, the next commit follows in a few seconds."""
        consumer = self._thread._ensure_consumer()
        commits = {TopicPartition(*tp): OffsetAndMetadata(at, "") for tp, at in offsets.items()}
        try:
            await self._thread.call_thread(consumer.commit, commits)
        except KafkaError as error:
            log.info("group offsets not committed", error=repr(error))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust checks its own fetches and commits here. There are none."""


class BatchTransport(aiokafka.Transport):
    Consumer: ClassVar[type[aiokafka.Consumer]] = BatchConsumer
    TransactionManager: ClassVar[type[TransactionManager]] = RebalanceHooks
