"""The thread of one lane: from assignment to revocation the only writer of the lane's partitions.

Keeps the rule that no lane ends unnoticed: any error reaches the crash policy. It does not know
what a lane does.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable

from plumbing.kafka import auth_errors
from plumbing.kafka.clients import ClientConfig


class StopRequested(Exception):
    """The lane was stopped while it waited. This is no error."""


class LaneThread(ABC):
    def __init__(
        self, lane: int, config: ClientConfig, on_failure: Callable[[int, BaseException], None]
    ) -> None:
        self._lane = lane
        self._config = config
        self._on_failure = on_failure
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lane-{lane}")

    def start(self) -> None:
        self._thread.start()

    def request_stop(self) -> None:
        self._stopping.set()

    def stop(self) -> None:
        """Waits for the batch in flight. A second call does nothing."""
        self.request_stop()
        self._thread.join()

    @abstractmethod
    def _own(self) -> None:
        """Takes the lane over and works until a stop is requested."""

    @abstractmethod
    def _released(self) -> None:
        """The lane is no longer owned, whatever the reason."""

    def _run(self) -> None:
        try:
            self._own()
        except StopRequested:
            pass
        except BaseException as error:
            self._on_failure(self._lane, auth_errors.with_operator_hint(self._config, error))
        finally:
            self._released()
