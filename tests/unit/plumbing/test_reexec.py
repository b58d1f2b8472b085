"""Which ends are beginnings, and what the program before leaves to the next one: nothing."""

import subprocess
import sys

import pytest
from confluent_kafka import KafkaError, KafkaException

from plumbing import reexec
from plumbing.failures import Failure
from plumbing.kafka import auth_errors, clients, transient_errors
from plumbing.kafka.partition_consumer import OutOfOrder


def failed(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


@pytest.mark.parametrize(
    "error",
    [
        failed(KafkaError._INCONSISTENT),
        failed(KafkaError._UNKNOWN_PARTITION),
        failed(KafkaError._TIMED_OUT),
        clients.NoAnswer("no answer"),
        OutOfOrder(("commands", 0), 4, 5),
    ],
)
def test_what_passes_with_an_outage(error: Exception) -> None:
    assert transient_errors.is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        failed(KafkaError._FENCED),
        failed(KafkaError.PRODUCER_FENCED),
        failed(KafkaError.INVALID_PRODUCER_EPOCH),
        failed(KafkaError.MSG_SIZE_TOO_LARGE),
        auth_errors.BrokersRefused("who are you"),
        Failure("another ledger"),
        AssertionError("a broken invariant"),
    ],
)
def test_what_does_not(error: Exception) -> None:
    assert not transient_errors.is_transient(error)


PROGRAM = """
import os, sys
print(os.getpid(), sys.argv[1], len(os.listdir("/dev/fd")), flush=True)
from contextlib import suppress
from confluent_kafka import KafkaException, Producer
from plumbing import reexec
client = Producer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
# By its answer the client's threads have opened what they open at their start.
with suppress(KafkaException):
    client.list_topics(timeout=1)
if not os.environ.get("BEGAN"):
    os.environ["BEGAN"] = "once"
    reexec.restart()
"""


def run(program: str) -> list[str]:
    ended = subprocess.run(
        [sys.executable, "-c", program, "told"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return ended.stdout.splitlines()


def test_the_same_command_begins_in_the_same_process_and_has_nothing_open_of_the_one_before() -> (
    None
):
    first, second = run(PROGRAM)
    assert first.split()[1] == "told"
    assert first == second


def test_who_cannot_begin_anew_goes_on_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python/any/more")
    reexec.restart()
