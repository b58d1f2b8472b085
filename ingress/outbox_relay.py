"""The outbox relay: sends commands from the Postgres outbox to `commands`.

It takes a batch of rows at a time, in this order:

1. lock unsent rows, skipping those that another ingress has locked;
2. send each command, and wait for Kafka's acknowledgement;
3. record the offsets, and commit.

A crash between 2 and 3 sends the commands again, with the same keys; the ledger answers replays.
Commands that cannot be sent stay in the outbox and are retried.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec
from confluent_kafka import KafkaException
from msgspec import Struct

from ingress.background import Background
from ingress.sql import queries
from plumbing.postgres.connection_pool import Pool
from plumbing.worker.crash_points import CrashPoints
from schemas.commands import Command

BATCH_ROWS: Final = 100
# How often to look for rows that another ingress wrote but did not send.
POLL_INTERVAL_S: Final = 1.0
RETRY_PAUSE_S: Final = 0.5

_decode: Final[Callable[[str], Command]] = msgspec.json.Decoder(Command).decode


class Sender(Protocol):
    async def send(self, command: Command) -> tuple[int, int]:
        """Returns the partition and the offset. Raises if the append is uncertain."""


class _OutboxRow(Struct, frozen=True):
    id: int
    command: str


class OutboxRelay(Background):
    def __init__(self, pool: Pool, sender: Sender, crash: CrashPoints) -> None:
        transient = (*queries.UNAVAILABLE, KafkaException)
        super().__init__("outbox relay is waiting", RETRY_PAUSE_S, transient=transient)
        self._pool = pool
        self._sender = sender
        self._crash = crash
        self._woken = asyncio.Event()

    def nudge(self) -> None:
        self._woken.set()

    async def run_once(self) -> None:
        self._woken.clear()
        if await self._send_some() < BATCH_ROWS:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), POLL_INTERVAL_S)

    async def _send_some(self) -> int:
        async with self._pool.connection() as connection, connection.transaction():
            rows = await queries.every(connection, "outbox_unsent", _OutboxRow, limit=BATCH_ROWS)
            if not rows:
                return 0
            self._crash.reach("relay.1-locked")
            positions = await asyncio.gather(*(self._send(row) for row in rows))
            self._crash.reach("relay.2-sent")
            await self._record_sent(connection, rows, positions)
        return len(rows)

    async def _send(self, row: _OutboxRow) -> tuple[int, int]:
        return await self._sender.send(_decode(row.command))

    async def _record_sent(
        self,
        connection: queries.Connection,
        rows: Sequence[_OutboxRow],
        positions: Sequence[tuple[int, int]],
    ) -> None:
        await queries.run(
            connection,
            "outbox_sent",
            ids=[row.id for row in rows],
            partitions=[partition for partition, _ in positions],
            offsets=[offset for _, offset in positions],
        )
