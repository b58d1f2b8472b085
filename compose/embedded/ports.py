"""Ports on the loopback address.

Rule: below the ports that the system hands out for outgoing connections, or one of those could
take ours while it is down. A busy default gives way; one that was named does not. A port that
was chosen stays this process's until it ends, so that two that start at once choose differently.
"""

import contextlib
import fcntl
import os
import socket

from compose.embedded import artifacts
from compose.embedded.problems import RuntimeProblem

HOST = "127.0.0.1"
HIGHEST = 32767
TRIED = 500

_chosen: dict[int, int] = {}  # file descriptors, whose locks the kernel takes back at our end


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers set it: what only waits for late packets of an earlier run is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def require_free(port: int, name: str, option: str) -> int:
    """The port, which somebody chose."""
    if not is_free(port) or not (port in _chosen or choose(port)):
        raise RuntimeProblem(
            f"Port {port} for {name} is busy. Free it, or choose another with {option}."
        )
    return port


def next_free(start: int) -> int:
    """The first port from start on that nobody uses and nobody chose."""
    for port in range(start, min(start + TRIED, HIGHEST + 1)):
        if port not in _chosen and is_free(port) and choose(port):
            return port
    raise RuntimeProblem(f"No free port from {start} on.")


def choose(port: int) -> bool:
    """Marks the port as ours for all processes of this user; False where another was faster."""
    try:
        folder = artifacts.user_cache() / "ports"
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:  # where nothing can be marked, being free has to do
        return True
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _chosen[port] = descriptor
        return True
    os.close(descriptor)
    return False
