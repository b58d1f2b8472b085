"""Which ends are beginnings, and how often in a row."""

import subprocess
import sys
import time

import pytest
from confluent_kafka import KafkaError, KafkaException

from plumbing import kafka, restarting
from plumbing.failures import Failure


@pytest.fixture(autouse=True)
def count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMLEDGER_BEGINNINGS", raising=False)
    monkeypatch.setattr(restarting, "_began_at", time.monotonic())


def failed(code: int) -> KafkaException:
    return KafkaException(KafkaError(code))


@pytest.mark.parametrize(
    "error",
    [
        failed(KafkaError._INCONSISTENT),
        failed(KafkaError._UNKNOWN_PARTITION),
        failed(KafkaError._TIMED_OUT),
        kafka.NoAnswer("no answer"),
    ],
)
def test_what_passes_with_an_outage(error: Exception) -> None:
    assert restarting.helps(error)


@pytest.mark.parametrize(
    "error",
    [
        failed(KafkaError._FENCED),
        failed(KafkaError.PRODUCER_FENCED),
        failed(KafkaError.INVALID_PRODUCER_EPOCH),
        failed(KafkaError.MSG_SIZE_TOO_LARGE),
        kafka.Refused("who are you"),
        Failure("another ledger"),
        AssertionError("a broken invariant"),
    ],
)
def test_what_does_not(error: Exception) -> None:
    assert not restarting.helps(error)


def test_so_many_in_a_row_are_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = failed(KafkaError._TIMED_OUT)
    monkeypatch.setenv("STREAMLEDGER_BEGINNINGS", str(restarting.MOST - 1))
    assert restarting.helps(outage)
    monkeypatch.setenv("STREAMLEDGER_BEGINNINGS", str(restarting.MOST))
    assert not restarting.helps(outage)
    # One that has run for long begins to count anew.
    long_ago = time.monotonic() - restarting.SOON_S
    monkeypatch.setattr(restarting, "_began_at", long_ago)
    assert restarting.helps(outage)


def test_the_same_command_begins_in_the_same_process() -> None:
    program = (
        "import os, sys; from plumbing import restarting;"
        "print(os.getpid(), sys.argv[1], os.environ.get('STREAMLEDGER_BEGINNINGS'));"
        "'STREAMLEDGER_BEGINNINGS' in os.environ or restarting.restart()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, "told"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, second = (line.split() for line in ended.stdout.splitlines())
    assert first[0] == second[0]
    assert (first[1:], second[1:]) == (["told", "None"], ["told", "1"])
