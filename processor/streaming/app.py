"""The Faust app: one agent that reads `commands` and `coordination`, so one worker owns both."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import faust
from aiohttp import web
from aiokafka.abc import AbstractTokenProvider  # type: ignore[import-untyped]  # it has no types
from faust.auth import OAuthCredentials
from faust.types import TP, StreamT
from yarl import URL

from plumbing.kafka import clients, oauth
from processor.lanes.supervisor import LaneSupervisor
from processor.settings import ProcessorSettings
from processor.streaming.assignor import LaneAssignor
from processor.streaming.transport import BatchConsumer, BatchTransport

GROUP_OFFSETS_INTERVAL_S = 5.0
TRIM_INTERVAL_S = 30.0
MIN_REQUEST_TIMEOUT_S = 60.0


class LedgerApp(faust.App):
    lanes: LaneSupervisor
    start_health_server: Callable[[], Awaitable[web.AppRunner]] | None = None
    _health_server: web.AppRunner | None = None

    def on_rebalance_end(self) -> None:
        super().on_rebalance_end()
        self.lanes.send_open_batches_again()

    async def on_start(self) -> None:
        if self.start_health_server is not None:
            self._health_server = await self.start_health_server()
        await super().on_start()

    async def on_stop(self) -> None:
        self.lanes.stopping.set()
        await self.lanes.release()
        await super().on_stop()
        if self._health_server is not None:
            await self._health_server.cleanup()


class BearerTokens(AbstractTokenProvider):  # type: ignore[misc]  # it has no types
    """OAuth tokens in the form that Faust's client takes."""

    def __init__(self, tokens: oauth.Tokens) -> None:
        self._tokens = tokens

    async def token(self) -> str:
        return await asyncio.to_thread(self._tokens.token)


def credentials(settings: ProcessorSettings) -> Any:
    """Faust's own connection, to the group, authenticates as librdkafka's clients do."""
    context = clients.ssl_context(settings)
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=BearerTokens(oauth.Tokens(settings)), ssl_context=context)
    if settings.kafka_sasl_mechanism is not None:
        password = settings.kafka_sasl_password
        assert password is not None, "the settings were checked"
        return faust.SASLCredentials(
            username=settings.kafka_sasl_username,
            password=password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def create_app(settings: ProcessorSettings, lanes: LaneSupervisor, group: str) -> LedgerApp:
    session_s = settings.session_timeout_ms / 1_000
    names, partitions = lanes.names, lanes.identity.partitions
    url = URL(f"aiokafka://{settings.brokers.split(',')[0]}")
    app = LedgerApp(
        group,
        broker=[URL(f"aiokafka://{each}") for each in settings.brokers.split(",")],
        broker_credentials=credentials(settings),
        broker_client_id=group,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=clients.heartbeat_ms(settings.session_timeout_ms) / 1_000,
        broker_request_timeout=max(MIN_REQUEST_TIMEOUT_S, 2 * session_s),
        consumer_auto_offset_reset="earliest",
        datadir=str(settings.data),
        # Only in this mode does Faust call the rebalance hooks of the transaction manager.
        processing_guarantee="exactly_once",
        PartitionAssignor=LaneAssignor,
        # With a standby replica, Faust's own assignor keeps the partitions of both topics together,
        # and each member what `assign_lanes` gave it. Without, it takes a lane from each member
        # that has one more than others.
        table_standby_replicas=1,
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        key_serializer="raw",
        value_serializer="raw",
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.transport = BatchTransport([url], app)
    app.lanes = lanes

    def batch_consumer() -> BatchConsumer:
        consumer = app.consumer
        assert isinstance(consumer, BatchConsumer)
        return consumer

    @app.agent(app.topic(names.commands, names.coordination, value_type=bytes, internal=False))
    async def ledger_agent(stream: StreamT[Any]) -> None:
        async for event in stream.events():
            event.value.deliver()

    @app.timer(GROUP_OFFSETS_INTERVAL_S)  # type: ignore[untyped-decorator]  # Faust has no types for it
    async def commit_group_offsets() -> None:
        """They decide nothing: they are for tools that show a group's lag."""
        offsets = {
            TP(topic, partition): input.next_offset
            for partition, position in lanes.positions().items()
            for topic, input in (
                (names.commands, position.commands),
                (names.coordination, position.coordination),
            )
        }
        if offsets and not app.rebalancing:
            await batch_consumer().commit_group_offsets(offsets)

    @app.timer(TRIM_INTERVAL_S)  # type: ignore[untyped-decorator]  # likewise
    async def trim_coordination() -> None:
        await asyncio.to_thread(lanes.trim_coordination)

    return app
