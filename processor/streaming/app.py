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

LAG_TOOLS_EVERY_S = 5.0
TRIM_COORDINATION_EVERY_S = 30.0
LEAST_REQUEST_TIMEOUT_S = 60.0


class LedgerApp(faust.App):
    ledger: LaneSupervisor
    serve: Callable[[], Awaitable[web.AppRunner]] | None = None
    _served: web.AppRunner | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Set between two rebalances. In one, Faust empties its queues: nothing may be in them.
        self.settled = asyncio.Event()

    def on_rebalance_start(self) -> None:
        self.settled.clear()
        super().on_rebalance_start()

    def on_rebalance_end(self) -> None:
        super().on_rebalance_end()
        self.settled.set()

    async def on_start(self) -> None:
        if self.serve is not None:
            self._served = await self.serve()
        await super().on_start()

    async def on_stop(self) -> None:
        self.ledger.stopping.set()
        await self.ledger.let_go()
        await super().on_stop()
        if self._served is not None:
            await self._served.cleanup()


class Bearer(AbstractTokenProvider):  # type: ignore[misc]  # it has no types
    """Tokens as Faust's client asks for them."""

    def __init__(self, tokens: oauth.Tokens) -> None:
        self._tokens = tokens

    async def token(self) -> str:
        return await asyncio.to_thread(self._tokens.token)


def credentials(settings: ProcessorSettings) -> Any:
    """How Faust's own connection, to the group, proves who it is: the same as librdkafka's."""
    context = clients.ssl_context(settings)
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=Bearer(oauth.Tokens(settings)), ssl_context=context)
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


def make(settings: ProcessorSettings, ledger: LaneSupervisor, group: str) -> LedgerApp:
    session_s = settings.session_timeout_ms / 1_000
    names, partitions = ledger.names, ledger.identity.partitions
    url = URL(f"aiokafka://{settings.brokers.split(',')[0]}")
    app = LedgerApp(
        group,
        broker=[URL(f"aiokafka://{each}") for each in settings.brokers.split(",")],
        broker_credentials=credentials(settings),
        broker_client_id=group,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=clients.heartbeat_ms(settings.session_timeout_ms) / 1_000,
        broker_request_timeout=max(LEAST_REQUEST_TIMEOUT_S, 2 * session_s),
        consumer_auto_offset_reset="earliest",
        datadir=str(settings.data),
        # The rebalance hooks of the transaction manager are called in this mode alone.
        processing_guarantee="exactly_once",
        PartitionAssignor=LaneAssignor,
        # With it, Faust's own assignor keeps the partitions of both topics together, and what
        # `shares` gives a worker: without, it would take from who has one lane more than others.
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
    app.ledger = ledger

    def consumer() -> BatchConsumer:
        made = app.consumer
        assert isinstance(made, BatchConsumer)
        return made

    @app.agent(app.topic(names.commands, names.coordination, value_type=bytes, internal=False))
    async def ledger_agent(stream: StreamT[Any]) -> None:
        async for event in stream.events():
            event.value.deliver()

    @app.timer(LAG_TOOLS_EVERY_S)  # type: ignore[untyped-decorator]  # Faust has no types for it
    async def tell_lag_tools() -> None:
        """Group offsets decide nothing here: they are for tools that show a group's lag."""
        offsets = {
            TP(topic, partition): read.next_offset
            for partition, position in ledger.positions().items()
            for topic, read in (
                (names.commands, position.commands),
                (names.coordination, position.coordination),
            )
        }
        if offsets and not app.rebalancing:
            await consumer().tell_group(offsets)

    @app.timer(TRIM_COORDINATION_EVERY_S)  # type: ignore[untyped-decorator]  # likewise
    async def trim_coordination() -> None:
        await asyncio.to_thread(ledger.trim_coordination)

    return app
