"""No process that a benchmark starts outlives it, however the benchmark ends.

A guard, in a process and session of its own, is told of each by its recorded identity. The pipe to
it closes when the benchmark is gone, by kill -9 too, and then it kills what is left of them. So it
holds for brokers and databases as well, which others start. It must not know what they serve.
"""

import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from signal import SIGKILL

import msgspec

from compose.embedded.processes import ProcessIdentity, identify


def end_with_us(pid: int) -> None:
    """To be called as soon as it was started."""
    told = identify(pid)
    if told is not None:
        pipe = _guard().stdin
        assert pipe is not None, "it was started with a pipe"
        pipe.write(msgspec.json.encode(asdict(told)) + b"\n")
        pipe.flush()


@cache
def _guard() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.children"],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )


def main() -> None:
    decode = msgspec.json.Decoder(ProcessIdentity).decode
    # To the end of the pipe: the end of the benchmark.
    for identity in [decode(line) for line in sys.stdin.buffer]:
        identity.send(SIGKILL)


if __name__ == "__main__":
    main()
