"""The long simulation, by one command: `python -m tests.simulation --commands 1000000 --partitions
8 --seed 1`; with `--store`, beside tables in RocksDB as a processor has them, byte for byte.

Prints its seed first, so that what it finds can be had again; ends with 1 and the first difference.
"""

import argparse
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from processor.rules_build import rules_build

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    options.add_argument("--commands", type=int, default=100_000)
    options.add_argument("--partitions", type=int, default=8)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument(
        "--minutes", type=float, help="seed after seed, until this time has passed"
    )
    options.add_argument("--thorough", action="store_true", help="crash often, replay everything")
    options.add_argument(
        "--store", action="store_true", help="compare with a processor's tables, in RocksDB"
    )
    given = options.parse_args()
    say(f"the rules are {rules_build()}")
    began = time.monotonic()
    seed = given.seed
    while True:
        with ExitStack() as closing:
            folder = None
            if given.store:
                folder = Path(closing.enter_context(tempfile.TemporaryDirectory("-simulation")))
            simulate(seed, given.commands, given.partitions, thorough=given.thorough, folder=folder)
        seed += 1
        if given.minutes is None or time.monotonic() - began >= given.minutes * 60:
            return 0


def simulate(
    seed: int, commands: int, partitions: int, *, thorough: bool, folder: Path | None
) -> None:
    from tests.simulation.run import Run

    say(f"seed {seed}: {commands:,} commands over {partitions} partitions")
    began = time.monotonic()

    def progress(cluster: "Cluster", count: int) -> None:
        passed = time.monotonic() - began
        records = sum(cluster.steps.values())
        say(f"{count:>11,} commands  {records:>11,} records  {count / passed:>7,.0f} commands/s")

    run = Run(seed, commands, partitions, thorough=thorough, folder=folder)
    try:
        cluster = run.run(progress)
    except BaseException:
        say(f"seed {seed}: failed at command {run.generator.count:,}, step {run.steps:,}")
        raise
    finally:
        run.cluster.close()
    passed = time.monotonic() - began
    say(f"steps      {counts_line(cluster.steps)}")
    say(f"reasons    {counts_line(cluster.reasons)}")
    say(f"accidents  {counts_line(cluster.all_accidents())}")
    say(
        f"seed {seed}: the model agrees on all of {sum(cluster.steps.values()):,} records of"
        f" {commands:,} commands, in {passed:,.0f} s, {commands / passed:,.0f} commands/s"
    )


def counts_line(counts: dict[str, int]) -> str:
    return "  ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
