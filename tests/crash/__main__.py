"""`python -m tests.crash`: a ledger under load while faults are injected, and the audit afterwards.

Exit code 1 if the audit finds any difference. It must not know what the audit compares.
"""

import argparse
import json
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.crash.audit import Audit
from tests.crash.fault_injection import FaultInjector, foreign_disk
from tests.crash.harness import CrashHarness, running_harness, wait_until
from tests.testkit import brokers, environment


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5, help="of faults, before the audit")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    parser.add_argument("--workers", type=int, default=3, help="at the start")
    parser.add_argument("--sinks", type=int, default=2)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=float, default=300, help="commands per second, roughly")
    parser.add_argument(
        "--repeats", type=float, default=0.01, help="chance that a read delivers a record twice"
    )
    parser.add_argument("--settle", type=float, default=180, help="seconds to decide all commands")
    parser.add_argument("--code", type=Path, help="a folder with another processor or sink to run")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    # SIGTERM ends it through the context managers, which stop all processes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    print_json({"seed": options.seed, "minutes": options.minutes, "brokers": options.brokers})
    with (
        brokers.data_folder() as folder,
        environment.running_kafka(folder, options.brokers) as cluster,
        environment.running_postgres(folder) as server,
    ):
        prefix = f"crash-{secrets.token_hex(3)}-"
        ledger = environment.Environment(cluster, server, prefix, options.partitions)
        with running_harness(
            ledger,
            options.workers,
            options.seed,
            options.rate,
            options.code,
            sink_count=options.sinks,
            redelivery_chance=options.repeats,
        ) as harness:
            return run(harness, options)


def run(harness: CrashHarness, options: argparse.Namespace) -> int:
    workers, ledger = harness.workers, harness.environment
    wait_until(lambda: all(worker.ready() for worker in workers.programs), 90, harness)
    with foreign_disk(harness) as disk:
        injector = FaultInjector(harness, options.seed, [disk])
        harness.load.start()
        end, printed_at = time.monotonic() + options.minutes * 60, time.monotonic()
        while time.monotonic() < end:
            injector.inject_one()
            injector.pause(0.2, 4)
            if time.monotonic() > printed_at + 60:
                printed_at = time.monotonic()
                print_json({"seconds left": int(end - printed_at), **figures(harness)})
    workers.crash_at(())
    harness.sinks.crash_at(())
    harness.load.stop()
    with Audit(ledger.client, ledger.names, ledger.partitions) as audit:
        try:
            harness.settle(audit, options.settle)
            differences = harness.audit_all(audit)
        except AssertionError as not_settled:
            differences = [str(not_settled), *audit.differences.lines]
        print_json({"seed": options.seed, **figures(harness), **audit.figures()})
    for line in differences:
        sys.stdout.write(f"DIFFERENCE {line}\n")
    verdict = "differences" if differences else "no difference"
    print_json({"seed": options.seed, "verdict": verdict})
    return 1 if differences else 0


def figures(harness: CrashHarness) -> dict[str, Any]:
    workers, sinks = harness.workers, harness.sinks
    return {
        "kills": (workers.kills + sinks.kills).total(),
        "kills of workers": dict(workers.kills.most_common()),
        "kills of sinks": dict(sinks.kills.most_common()),
        "faults": harness.faults,
        "redelivered records": harness.redelivered_records(),
        "exit codes of workers": {str(code): count for code, count in workers.exits.items()},
        "exit codes of sinks": {str(code): count for code, count in sinks.exits.items()},
        "sent": dict(harness.load.sent),
    }


def print_json(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
