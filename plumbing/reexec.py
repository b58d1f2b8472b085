"""Replaces this process by a new one that runs the same command.

After an outage of Kafka it is unknown whether the last transaction was committed. Only a new owner
can find out, as after a crash. So the process becomes a new owner itself and needs no supervisor.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

STDERR: Final = 2
# Lets other members of the group hear that this one left, and a reader see the last log lines.
PAUSE_S: Final = 1.0

log = structlog.get_logger(__name__)


def restart() -> None:
    """Returns only if the restart failed. The process must end then."""
    try:
        _close_on_exec()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except Exception as error:
        log.error("restart failed", error=repr(error))


def _close_on_exec() -> None:
    """Python's own files are not inheritable, but those of librdkafka and RocksDB are."""
    for path in list(Path("/dev/fd").iterdir()):
        if (number := int(path.name)) > STDERR:
            # The descriptor that listed the folder is closed by now.
            with suppress(OSError):
                os.set_inheritable(number, False)
