"""Takes away the rows of sessions and keys that ended long ago, and with them the refresh tokens
that were used: each ingress now and then, some at a time.
"""

import asyncio
from typing import Final

import structlog

from ingress import queries
from plumbing.postgres import Pool

EVERY_S: Final = 3_600.0
PAUSE_S: Final = 1.0
KEPT_DAYS: Final = 30
MOST: Final = 5_000

log = structlog.stdlib.get_logger(__name__)


class Sweeping:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def task(self) -> asyncio.Task[None]:
        """Ends by an error that is not expected, or when it is closed."""
        assert self._task is not None, "it was started"
        return self._task

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            try:
                gone = await self.sweep()
            except queries.AWAY as error:
                log.warning("sweeping waits for Postgres", error=str(error).strip())
                gone = 0
            await asyncio.sleep(PAUSE_S if gone == MOST else EVERY_S)

    async def sweep(self) -> int:
        """How many rows are gone."""
        async with self._pool.connection() as connection:
            return await queries.run(connection, "tokens_sweep", kept_days=KEPT_DAYS, most=MOST)
