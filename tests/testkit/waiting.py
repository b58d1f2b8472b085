"""Waiting on what a test expects, with a deadline: never for a length of time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.02


def eventually(condition: Callable[[], T], timeout_s: float = 10) -> T:
    """What the condition returns, once that is true. An AssertionError in it means not yet; at the
    deadline it is raised as it is, and a condition that is merely false fails."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        try:
            if found := condition():
                return found
            assert time.monotonic() <= deadline, f"not within {timeout_s:g} s: {found!r}"
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        pause.wait(POLL_S)
