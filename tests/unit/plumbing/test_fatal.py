"""What the failure of a lane does to its process: restart, orderly stop or crash."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, threading
import structlog
from confluent_kafka import KafkaError, KafkaException
from plumbing.failures import Failure
from plumbing.kafka import clients
from plumbing.worker.fatal import CrashPolicy
from plumbing.worker.lane_thread import LaneThread, StopRequested
import signal

errors = {
    "outage": KafkaException(KafkaError(KafkaError._TIMED_OUT)),
    "failure": Failure("first line", "second line"),
    "own refusal": LookupError("names a record"),
    "own restart": EOFError("damaged"),
    "defect": AssertionError("an invariant"),
    "stop": StopRequested(),
}
error = errors[sys.argv[1]]

class Lane(LaneThread):
    def _own(self):
        raise error
    def _released(self):
        print("released", flush=True)

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
print("began", flush=True)
if os.environ.get("RESTARTED"):
    sys.exit(0)
os.environ["RESTARTED"] = "once"
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopping.set())
policy = CrashPolicy(stopping, restart_on=(EOFError,), refuse_on=(LookupError,))
if len(sys.argv) > 2:
    stopping.set()
lane = Lane(0, {"bootstrap.servers": "x", "security.protocol": "PLAINTEXT"}, policy.lane_failed)
lane.start()
if sys.argv[1] != "stop":
    stopping.wait(30)
lane.stop()
print("stopped in order", flush=True)
sys.exit(1 if policy.refusal else 0)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "lines"),
    [
        (["outage"], 0, ["began", "began"]),
        (["own restart"], 0, ["began", "began"]),
        # A process that is stopping does not begin again.
        (["outage", "stopping"], 70, ["began"]),
        (["failure"], 1, ["began", "released", "stopped in order"]),
        (["own refusal"], 1, ["began", "released", "stopped in order"]),
        (["defect"], 70, ["began"]),
        (["stop"], 0, ["began", "released", "stopped in order"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_how_a_process_ends(arguments: list[str], code: int, lines: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout.split("\n")[:-1]) == (code, lines), ended.stderr
