"""Work that goes on beside the requests for as long as the process: turn after turn, in one task.

What passes by itself, Postgres being away for one, is told and waited out, with pauses that grow;
any other error ends the task, and its watcher ends the process.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from typing import Final

import structlog

from ingress.sql import queries

log = structlog.stdlib.get_logger(__name__)


MAX_PAUSE_S: Final = 5.0


class Background(ABC):
    def __init__(
        self,
        waiting_message: str,
        pause_s: float,
        *,
        transient: tuple[type[Exception], ...] = queries.UNAVAILABLE,
    ) -> None:
        """`waits` is what is told of it, before each pause, while `passing` errors come."""
        self._waiting_message = waiting_message
        self._pause_s = pause_s
        self._transient = transient
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def turn(self) -> None:
        """One round of the work; at once followed by the next."""

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
        pause_s = self._pause_s
        while True:
            started_at = time.monotonic()
            try:
                await self.turn()
            except self._transient as error:
                # A turn that went on for a while was not what fails again and again.
                if time.monotonic() - started_at > MAX_PAUSE_S:
                    pause_s = self._pause_s
                log.warning(self._waiting_message, error=str(error).strip(), retry_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = max(pause_s, min(2 * pause_s, MAX_PAUSE_S))
            else:
                pause_s = self._pause_s
