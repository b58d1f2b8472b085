"""A background task of the ingress: repeats one piece of work for as long as the process runs.

It waits out transient errors, such as an unavailable Postgres, with growing pauses, and logs them.
Any other error ends the task; the service watches it and ends the process.
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
        """Logs `waiting_message` before each pause after a `transient` error."""
        self._waiting_message = waiting_message
        self._pause_s = pause_s
        self._transient = transient
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def run_once(self) -> None:
        """One round of the work. The next one follows at once."""

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def task(self) -> asyncio.Task[None]:
        """Ends with an unexpected error, or when closed."""
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
                await self.run_once()
            except self._transient as error:
                # A turn that ran for a while is not part of a series of failures.
                if time.monotonic() - started_at > MAX_PAUSE_S:
                    pause_s = self._pause_s
                log.warning(self._waiting_message, error=str(error).strip(), retry_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = max(pause_s, min(2 * pause_s, MAX_PAUSE_S))
            else:
                pause_s = self._pause_s
