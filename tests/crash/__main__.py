"""`python -m tests.crash`: a ledger under load that is killed, frozen, robbed and cut off for as
long as asked, from the commands to the rows and results, and the audit afterwards. Exit code 1 on
any difference.
"""

import argparse
import json
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.crash import harness
from tests.crash.audit import Audit
from tests.crash.fault_injection import FaultInjector, foreign_copy
from tests.testkit import brokers, environment


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="of chaos; the audit comes after")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--workers", type=int, default=3, help="to begin with")
    parser.add_argument("--sinks", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=float, default=300, help="commands a second, about")
    parser.add_argument(
        "--repeats", type=float, default=0.01, help="chance that a read delivers a record twice"
    )
    parser.add_argument("--settle", type=float, default=180, help="seconds to come to rest in")
    parser.add_argument("--code", type=Path, help="a folder with another processor or sink to run")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    # Told to terminate it still leaves no process behind.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    say({"seed": asked.seed, "minutes": asked.minutes, "brokers": asked.brokers})
    with (
        brokers.data_folder() as folder,
        environment.running_kafka(folder, asked.brokers) as cluster,
        environment.running_postgres(folder) as server,
    ):
        place = environment.Environment(
            cluster, server, f"crash-{secrets.token_hex(3)}-", asked.partitions
        )
        told = asked.workers, asked.seed, asked.rate, asked.code
        with harness.running_harness(
            place, *told, sinks=asked.sinks, repeats=asked.repeats
        ) as made:
            return run(made, asked)


def run(made: harness.CrashHarness, asked: argparse.Namespace) -> int:
    crew = made.crew
    harness.until(lambda: all(worker.ready() for worker in crew.workers), 90, made)
    with foreign_copy(made) as foreign:
        chaos = FaultInjector(made, asked.seed, [foreign])
        made.load.start()
        end, told = time.monotonic() + asked.minutes * 60, time.monotonic()
        while time.monotonic() < end:
            chaos.one()
            chaos.pause(0.2, 4)
            if time.monotonic() > told + 60:
                told = time.monotonic()
                say({"seconds left": int(end - told), **figures(made)})
    crew.crash_at(())
    made.sinks.crash_at(())
    made.load.stop()
    place = made.stage
    with Audit(place.client, place.names, place.partitions) as audit:
        try:
            made.settle(audit, asked.settle)
            differences = made.verdict(audit)
        except AssertionError as stuck:
            differences = [str(stuck), *audit.differences.lines]
        say({"seed": asked.seed, **figures(made), **audit.figures()})
    for line in differences:
        sys.stdout.write(f"DIFFERENCE {line}\n")
    say({"seed": asked.seed, "verdict": "differences" if differences else "not one difference"})
    return 1 if differences else 0


def figures(made: harness.CrashHarness) -> dict[str, Any]:
    crew, sinks = made.crew, made.sinks
    return {
        "kills": (crew.kills + sinks.kills).total(),
        "kills of workers": dict(crew.kills.most_common()),
        "kills of sinks": dict(sinks.kills.most_common()),
        "deeds": made.deeds,
        "records that came twice": made.repeated(),
        "exit codes of workers": {str(code): count for code, count in crew.exits.items()},
        "exit codes of sinks": {str(code): count for code, count in sinks.exits.items()},
        "sent": dict(made.load.sent),
    }


def say(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
