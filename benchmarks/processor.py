"""How fast the processor decides, and how soon its outcomes can be read: real Kafka, real rules.

    python -m benchmarks.processor            # short, a few minutes
    python -m benchmarks.processor --full     # a minute of credits, and a large state: an hour

Prints a JSON line for each measure. docs/benchmarks.md says what each number means. Every command
has an idempotency key of its own; every outcome is counted, so nothing fast is wrong.
"""

import argparse
import gc
import json
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks import load, machine, outcomes, plain
from benchmarks.load import Account, Command
from benchmarks.machine import Ledger, Machine

POLL_S = 0.05
# So long must the journal be still, and hold enough, before it is looked at.
QUIET_S = 1.5
STALLED_S = 120.0
# A broker's code for many small transactions is compiled while it runs: that is not measured.
WARM_UP_S = 25.0
LATENCY_S = 10.0
TURNS, LARGE_TURNS = 5, 3
MB = 1_000_000

CREDITS_PER_S = 34_000
CREDITS_TO_PLAIN = 0.3
HOT_TO_CREDITS = 0.8
TRANSFERS_PER_S = 8_000
P50_MS, P99_MS = 15, 60
MEMORY_MB = 400
LARGE_TO_EMPTY = 0.75
RESTORE_S, RESTART_S = 120, 10


class Options(NamedTuple):
    partitions: int
    processors: int
    accounts: int
    credits: int
    transfers: int
    mix: int
    latency_s: float


class Measured(NamedTuple):
    """One backlog, from the moment that the workers may begin to its last committed outcome."""

    commands: int
    seconds: float
    worker_cpu_s: float
    broker_cpu_s: float
    memory_mb: float
    load_cpu_s: float
    counts: dict[str, int]

    @property
    def rate(self) -> float:
        return self.commands / self.seconds

    def told(self) -> dict[str, Any]:
        return {
            "commands_per_second": round(self.rate),
            "commands": self.commands,
            "seconds": round(self.seconds, 2),
            "worker_cpu_us": round(self.worker_cpu_s / self.commands * 1e6, 1),
            "broker_cpu_us": round(self.broker_cpu_s / self.commands * 1e6, 1),
            "load_cpu_s": round(self.load_cpu_s, 2),
            "worker_memory_mb": round(self.memory_mb),
            "outcomes": self.counts,
        }


class Mark(NamedTuple):
    at: float
    ends: list[int]
    worker_cpu_s: float
    broker_cpu_s: float


class Bench:
    """One ledger under measure."""

    def __init__(self, made: Machine, ledger: Ledger) -> None:
        self.ledger = ledger
        self._machine = made
        names, partitions = ledger.names, ledger.partitions
        self._journal = outcomes.Ends(ledger.client, names.journal, partitions)
        self._commands = outcomes.Ends(ledger.client, names.commands, partitions)

    def take(self, commands: Iterable[Command]) -> Measured:
        """A backlog, made while the workers stand still."""
        ledger = self.ledger
        begin = self._journal.read()
        with ledger.frozen():
            count = load.send_backlog(ledger.client, ledger.names.commands, commands)
            marks = [self._mark(begin)]
            made_cpu_s = time.process_time()
        memory_mb = 0.0
        while (now := time.monotonic()) - marks[-1].at < QUIET_S or not _enough(marks, count):
            assert now - marks[-1].at < STALLED_S, "the workers do not get on"
            time.sleep(POLL_S)
            ledger.check()
            memory_mb = max(memory_mb, ledger.memory_mb())
            ends = self._journal.read()
            if ends != marks[-1].ends:
                marks.append(self._mark(ends))
        load_cpu_s = time.process_time() - made_cpu_s
        found = outcomes.between(ledger.client, ledger.names.journal, begin, marks[-1].ends)
        assert found.total == count, f"{count} commands had {found.total} outcomes"
        last = next(
            mark for mark in marks if all(mark.ends[p] > at for p, at in found.last.items())
        )
        return Measured(
            count,
            last.at - marks[0].at,
            last.worker_cpu_s - marks[0].worker_cpu_s,
            last.broker_cpu_s - marks[0].broker_cpu_s,
            memory_mb,
            load_cpu_s,
            dict(found.counts.most_common()),
        )

    def latency(self, commands: list[Command], rate: float) -> dict[str, Any]:
        """Milliseconds from append to outcome, by percent of the commands."""
        ledger, names = self.ledger, self.ledger.names
        begin, end = self._commands.read(), self._journal.read()
        cpu_s = ledger.cpu_s()
        with outcomes.watching(ledger.client, names.journal, end, len(commands)) as watch:
            began = time.monotonic()
            load.send_evenly(ledger.client, names.commands, commands, rate)
            seconds = time.monotonic() - began
            seen = watch.seen()
        cpu_s = ledger.cpu_s() - cpu_s
        appended = outcomes.append_times(
            ledger.client, names.commands, begin, self._commands.read()
        )
        warm = min(appended.values()) + WARM_UP_S
        waits = sorted(
            1_000 * (outcome.at - at)
            for outcome in seen
            if (at := appended[outcome.partition, outcome.offset]) >= warm
        )
        return {
            "sent_per_second": round(len(commands) / seconds),
            "commands": len(waits),
            "worker_cpu_us": round(cpu_s / len(commands) * 1e6, 1),
            **{f"p{part:g}_ms": round(percentile(waits, part), 1) for part in (50, 95, 99, 99.9)},
        }

    def ends_of_commands(self) -> list[int]:
        return self._commands.read()

    def _mark(self, ends: list[int]) -> Mark:
        return Mark(time.monotonic(), ends, self.ledger.cpu_s(), self._machine.broker.cpu_s())


def _enough(marks: list[Mark], count: int) -> bool:
    """A command has a journal record at least."""
    return sum(marks[-1].ends) - sum(marks[0].ends) >= count


def percentile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part / 100))]


def tell(measure: str, **facts: object) -> None:
    print(json.dumps({"measure": measure, **facts}), flush=True)


def at_least(target: float, got: float) -> dict[str, Any]:
    return {"target": target, "met": got >= target}


def at_most(target: float, got: float) -> dict[str, Any]:
    return {"target": target, "met": got <= target}


def opened(made: Machine, name: str, options: Options, of: list[Account]) -> Bench:
    """A ledger whose accounts are open, and whose workers are warm."""
    ledger = made.ledger(name, options.partitions, options.processors)
    ledger.start()
    bench = Bench(made, ledger)
    tell(f"open {len(of)} accounts", **bench.take(load.opens(of)).told())
    return bench


def scenarios(made: Machine, options: Options, wanted: set[str]) -> None:
    of = load.accounts(options.accounts, options.partitions)
    bench = opened(made, "short", options, of)
    tell("warm-up", **bench.take(load.credits(of, options.credits, seed=0)).told())
    rate = in_turn(bench, of, options, wanted)
    if "mix" in wanted:
        tell("mix", **bench.take(load.mix(of, options.mix, seed=4)).told())
    if "latency" in wanted:
        seconds = options.latency_s + WARM_UP_S
        slow = bench.latency(list(load.credits(of, int(1_000 * seconds), seed=5)), 1_000)
        p50, p99 = at_most(P50_MS, slow["p50_ms"]), at_most(P99_MS, slow["p99_ms"])
        tell("latency at 1000/s", **slow, p50=p50, p99=p99)
        half = round(rate / 2)
        fast = bench.latency(list(load.credits(of, int(half * seconds), seed=6)), half)
        tell(f"latency at half the rate, {half}/s", **fast)
    bench.ledger.stop()


def in_turn(bench: Bench, of: list[Account], options: Options, wanted: set[str]) -> float:
    """What is compared with one another, again and again: a machine that others share is not the
    same from one second to the next. Of each the turn in the middle counts; returns the credits'.
    """
    rates: list[float] = []
    hot_to_credits: list[float] = []
    to_plain: dict[str, list[float]] = {library: [] for library in plain.LIBRARIES}
    transfers: list[float] = []
    memory_mb = 0.0
    for turn in range(1, TURNS + 1):
        which = f"turn {turn} of {TURNS}"
        before = bench.ends_of_commands()
        credits = bench.take(load.credits(of, options.credits, seed=turn))
        tell(f"credits, {which}", **credits.told())
        rates.append(credits.rate)
        memory_mb = max(memory_mb, credits.memory_mb)
        if "hot" in wanted:
            hot = bench.take(load.credits(of[:1], options.credits, seed=10 + turn))
            tell(f"hot, {which}", **hot.told())
            hot_to_credits.append(hot.rate / credits.rate)
        if "plain" in wanted:
            for library, took in yardsticks(bench, before, credits.commands):
                tell(f"plain loop with {library}, {which}", **took.told(credits.commands))
                to_plain[library].append(credits.rate * took.seconds / credits.commands)
        if "transfers" in wanted:
            across = bench.take(load.transfers(of, options.transfers, seed=20 + turn))
            tell(f"transfers, {which}", **across.told())
            transfers.append(across.rate)
    memory = {"mb": round(memory_mb), **at_most(MEMORY_MB, memory_mb)}
    rate = tell_middle("credits", CREDITS_PER_S, rates, memory=memory)
    for library, ratios in to_plain.items():
        tell_middle(f"credits to the plain loop with {library}", CREDITS_TO_PLAIN, ratios)
    tell_middle("hot to credits", HOT_TO_CREDITS, hot_to_credits)
    tell_middle("transfers", TRANSFERS_PER_S, transfers)
    return rate


def tell_middle(measure: str, target: float, turns: list[float], **facts: object) -> float:
    if not turns:
        return 0.0
    middle = statistics.median(turns)
    told = [round(each, 3) for each in turns]
    tell(measure, middle=round(middle, 3), turns=told, **at_least(target, middle), **facts)
    return middle


def yardsticks(bench: Bench, begin: list[int], count: int) -> Iterator[tuple[str, plain.Took]]:
    """The plain loops, over commands that the ledger has decided, while its workers stand still."""
    ledger = bench.ledger
    source, topic = ledger.names.commands, f"{ledger.names.prefix}plain"
    admin = AdminClient(ledger.client)
    if topic not in admin.list_topics(timeout=30).topics:
        admin.create_topics([NewTopic(topic, ledger.partitions, 1)])[topic].result(30)
    for library in plain.LIBRARIES:
        with ledger.frozen():
            took = plain.run(library, ledger.client, source, topic, begin, count)
        yield library, took


def sustained(made: Machine, options: Options, seconds: float) -> None:
    """Credits for at least so long, by the rate of a short run before them."""
    of = load.accounts(options.accounts, options.partitions)
    bench = opened(made, "sustained", options, of)
    probe = bench.take(load.credits(of, options.credits, seed=1))
    count = int(probe.rate * seconds * 1.1)
    before = bench.ends_of_commands()
    credits = bench.take(load.credits(of, count, seed=7))
    tell(f"credits for {seconds:g} s", **credits.told(), **at_least(CREDITS_PER_S, credits.rate))
    for library, took in yardsticks(bench, before, count):
        ratio = credits.rate * took.seconds / count
        told = at_least(CREDITS_TO_PLAIN, ratio)
        tell(
            f"plain loop with {library}", **took.told(count), credits_to_it=round(ratio, 3), **told
        )
    bench.ledger.stop()


def large(made: Machine, options: Options, accounts: int, past: int) -> None:
    """A state of many accounts and past commands, all of them really processed."""
    few = load.accounts(options.accounts, options.partitions)
    empty = opened(made, "empty", options, few)
    empty.take(load.credits(few, options.accounts, seed=1))

    many = load.accounts(accounts, options.partitions)
    # They live to the end: what is measured must not wait for a look through them.
    gc.freeze()
    bench = opened(made, "large", options, many)
    for part in range(5):
        built = bench.take(load.credits(many, past // 5, seed=10 + part))
        tell(f"past commands, part {part + 1} of 5", **built.told())
    to_empty = []
    for turn in range(LARGE_TURNS):
        small = empty.take(load.credits(few, options.credits, seed=20 + turn))
        tell("credits, empty ledger", **small.told())
        big = bench.take(load.credits(many, options.credits, seed=20 + turn))
        tell("credits, large ledger", **big.told(), memory=at_most(MEMORY_MB, big.memory_mb))
        to_empty.append(big.rate / small.rate)
    tell_middle("large ledger to empty", LARGE_TO_EMPTY, to_empty)
    empty.ledger.stop()
    bench.ledger.stop()
    seconds = bench.ledger.start()
    tell("restart, good disk", seconds=round(seconds, 2), **at_most(RESTART_S, seconds))
    bench.ledger.stop()
    bench.ledger.lose_disks()
    seconds = bench.ledger.start()
    memory = at_most(MEMORY_MB, bench.ledger.memory_mb())
    memory["mb"] = round(bench.ledger.memory_mb())
    told = at_most(RESTORE_S, seconds)
    tell("restore, empty disk", seconds=round(seconds, 2), **told, memory=memory)
    after = bench.take(load.credits(many, options.credits, seed=30))
    tell("credits, restored ledger", **after.told())
    bench.ledger.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processor", description=__doc__)
    parser.add_argument("--full", action="store_true", help="what takes long, too")
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--processors", type=int, choices=(1, 2), default=2, help="workers")
    parser.add_argument("--scale", type=float, default=1, help="of the number of commands")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("plain", "hot", "transfers", "mix", "latency", "sustained", "large"),
        help="these beside the credits (the last two alone)",
    )
    parser.add_argument("--code", type=Path, help="a folder with another processor to measure")
    given = parser.parse_args()
    scale = given.scale
    options = Options(
        given.partitions,
        given.processors,
        accounts=int(100_000 * min(1, scale)),
        credits=int(150_000 * scale),
        transfers=int(40_000 * scale),
        mix=int(150_000 * scale),
        latency_s=LATENCY_S,
    )
    short = {"plain", "hot", "transfers", "mix", "latency"}
    wanted = set(given.only or (short | {"sustained", "large"} if given.full else short))
    tell(
        "machine",
        processors=options.processors,
        partitions=options.partitions,
        **machine.described(given.code),
    )
    # As by Ctrl-C: so that broker and workers are ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with machine.running(given.code) as made:
        if wanted & short:
            scenarios(made, options, wanted)
        if "sustained" in wanted:
            sustained(made, options, seconds=60 * scale)
        if "large" in wanted:
            large(made, options, int(1_000_000 * scale), int(5_000_000 * scale))


if __name__ == "__main__":
    main()
