"""Memory as a service needs it: hardly anything that the interpreter makes is a cycle, and looking
for cycles must not stop its threads often; what was freed must not stay with the process.
"""

import contextlib
import ctypes
import gc

_THRESHOLDS = (50_000, 20, 100)
_M_ARENA_MAX = -8

# Only glibc has what is called below.
_glibc_only = contextlib.suppress(AttributeError, OSError)


def collect_rarely() -> None:
    """Called once, when all that stays for good has been imported."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def limit_malloc_arenas() -> None:
    """Each thread would keep what it once needed in an arena of its own: a quarter of the memory
    of a busy processor."""
    with _glibc_only:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def trim_heap() -> None:
    """To the system, what is free: after something that took much for once."""
    with _glibc_only:
        ctypes.CDLL(None).malloc_trim(0)
