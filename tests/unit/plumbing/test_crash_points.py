"""Where a test has a process frozen, it does not take another step."""

import select
import subprocess
import sys

import psutil

from tests.testkit.waiting import eventually

# As a service is: the main thread sleeps, the machine is busy, another thread reaches the step.
PROGRAM = """
import os, sys, threading
from plumbing.worker.crash_points import CrashPoints

def burn():
    while True:
        os.getppid()

def work():
    CrashPoints("freeze:here").reach("here")
    os.write(1, b"went on")
    os._exit(0)

for task in (burn, burn, burn, work):
    threading.Thread(target=task, daemon=True).start()
threading.Event().wait()
"""


def test_who_is_frozen_at_a_step_does_not_go_beyond_it() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as child:
        try:
            frozen = psutil.Process(child.pid)
            eventually(lambda: frozen.status() == psutil.STATUS_STOPPED, 30)
            assert child.stdout is not None, "it is a pipe"
            assert select.select([child.stdout], [], [], 0)[0] == [], "it went on"
            frozen.resume()
            assert child.communicate(timeout=30)[0] == b"went on"
        finally:
            child.kill()
