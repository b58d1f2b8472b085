"""Deletes sessions and API keys that ended long ago, with their spent refresh tokens, and expired
counts of wrong passwords.

Every ingress does so once an hour, in batches.
"""

import asyncio
from typing import Final

from ingress.background import Background
from ingress.sql import queries
from plumbing.postgres.connection_pool import Pool

INTERVAL_S: Final = 3_600.0
PAUSE_S: Final = 1.0
KEPT_DAYS: Final = 30
BATCH_ROWS: Final = 5_000


class Cleanup(Background):
    def __init__(self, pool: Pool) -> None:
        super().__init__("cleanup is waiting for Postgres", INTERVAL_S)
        self._pool = pool

    async def run_once(self) -> None:
        await asyncio.sleep(PAUSE_S if await self.sweep() >= BATCH_ROWS else INTERVAL_S)

    async def sweep(self) -> int:
        """Returns how many rows it deleted."""
        async with self._pool.connection() as connection:
            deleted = await queries.run(
                connection, "tokens_sweep", kept_days=KEPT_DAYS, limit=BATCH_ROWS
            )
            return deleted + await queries.run(connection, "attempts_sweep", limit=BATCH_ROWS)
