"""Takes away the rows of sessions and keys that ended long ago, with them the refresh tokens that
were used, and counts of wrong passwords that count no more: each ingress now and then, some at a
time.
"""

import asyncio
from typing import Final

from ingress import queries
from ingress.background import Background
from plumbing.postgres.connection_pool import Pool

EVERY_S: Final = 3_600.0
PAUSE_S: Final = 1.0
KEPT_DAYS: Final = 30
MOST: Final = 5_000


class Sweeping(Background):
    def __init__(self, pool: Pool) -> None:
        super().__init__("cleanup is waiting for Postgres", EVERY_S)
        self._pool = pool

    async def turn(self) -> None:
        await asyncio.sleep(PAUSE_S if await self.sweep() >= MOST else EVERY_S)

    async def sweep(self) -> int:
        """How many rows are gone."""
        async with self._pool.connection() as connection:
            gone = await queries.run(connection, "tokens_sweep", kept_days=KEPT_DAYS, most=MOST)
            return gone + await queries.run(connection, "attempts_sweep", most=MOST)
