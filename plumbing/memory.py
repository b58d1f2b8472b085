"""The interpreter's memory as a service needs it: hardly anything that one makes is a cycle, and
looking for cycles must not stop its threads often.
"""

import gc

_THRESHOLDS = (50_000, 20, 100)


def collect_seldom() -> None:
    """Called once, when all that stays for good has been imported."""
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
