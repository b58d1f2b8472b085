"""The whole pipeline, from `commands` to rows in Postgres and `results`: throughput and latency.

    python -m benchmarks.pipeline            # 20 s of load for each rate
    python -m benchmarks.pipeline --full     # a minute and more of each load

Prints a JSON line for each measurement. Kafka, Postgres, processors, sinks and the producer are
real and share the machine, and all keep running. The run fails unless each command has exactly one
result and one row.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
import psycopg
from confluent_kafka import Message

from benchmarks import children, load, machine, outcomes
from benchmarks.load import Account, Command
from benchmarks.machine import Ledger, Machine
from benchmarks.processor import at_most, percentile, tell
from benchmarks.sink import GROWING, Sink
from compose import provisioning
from compose.embedded import postgres, programs
from schemas.topics import RESULTS
from tests.testkit import brokers

POLL_S = 0.05
# No result may arrive for this long before the results are counted.
QUIET_S = 1.5
STALLED_S = 120.0
# A broker compiles its code for many small transactions while it runs; this is not measured.
WARM_UP_S = 25.0
LATENCY_PER_S = 500

COMMANDS_PER_S = 8_000
P50_MS, P99_MS = 30, 120


class _Result(msgspec.Struct):
    """The fields of a result that are used here."""

    partition: int
    offset: int
    outcome: str
    reason: str | None = None


_decode = msgspec.json.Decoder(_Result).decode


def command_position(message: Message) -> tuple[int, int]:
    """The position of the command that this result answers."""
    result = _decode(message.value() or b"")
    return result.partition, result.offset


class Mark(NamedTuple):
    at: float
    ends: list[int]


class ResultSet(NamedTuple):
    """The results after some offsets: the positions of their commands, their outcomes, and the last
    offset of each partition."""

    commands: set[tuple[int, int]]
    counts: Counter[str]
    last: dict[int, int]


class Bench:
    """A running ledger with its tables."""

    def __init__(
        self,
        host: Machine,
        ledger: Ledger,
        sinks: list[Sink],
        database: str,
        server: psutil.Process,
    ) -> None:
        self._machine = host
        self._ledger = ledger
        self._sinks = sinks
        self._database = database
        self._server = server
        names, client = ledger.names, ledger.client
        self._commands = outcomes.Ends(client, names.commands, ledger.partitions)
        self._results = outcomes.Ends(client, names.results, RESULTS.partitions or 0)

    def take(self, commands: list[Command]) -> dict[str, Any]:
        """Sends at full speed; measures from before the first append to the last result."""
        ledger, count = self._ledger, len(commands)
        begin, rows, cpu = self._results.read(), self._rows(), self._cpu_s()
        marks = [Mark(time.monotonic(), begin)]
        load.send_backlog(ledger.client, ledger.names.commands, commands)
        appended_s = time.monotonic() - marks[0].at
        results = self._wait(marks, count)
        seconds = self._all_seen(marks, results).at - marks[0].at
        used = {part: now - cpu[part] for part, now in self._cpu_s().items()}
        added = {table: now - rows[table] for table, now in self._rows().items()}
        assert added["commands"] == count, f"{count} commands have {added['commands']} rows"
        return {
            "commands_per_second": round(count / seconds),
            "rows_per_second": round(sum(added.values()) / seconds),
            "commands": count,
            "rows": added,
            "seconds": round(seconds, 2),
            "append_seconds": round(appended_s, 2),
            **{f"{part}_cpu_us": round(s / count * 1e6, 1) for part, s in used.items()},
            "outcomes": dict(results.counts.most_common()),
            "load_average": machine.load_average(),
        }

    def latency(self, commands: list[Command], rate: float) -> dict[str, Any]:
        """Percentiles of the milliseconds from append to result, as a read_committed reader sees
        it."""
        client, names = self._ledger.client, self._ledger.names
        begin, end, count = self._commands.read(), self._results.read(), len(commands)
        with outcomes.watching(client, names.results, end, count, command_position) as watch:
            began = time.monotonic()
            load.send_evenly(client, names.commands, commands, rate)
            seconds = time.monotonic() - began
            seen = watch.seen()
        appended = outcomes.append_times(client, names.commands, begin, self._commands.read())
        assert {(result.partition, result.offset) for result in seen} == appended.keys(), (
            "results differ"
        )
        warm = min(appended.values()) + WARM_UP_S
        waits = sorted(
            1_000 * (result.at - at)
            for result in seen
            if (at := appended[result.partition, result.offset]) >= warm
        )
        return {
            "sent_per_second": round(count / seconds),
            "commands": len(waits),
            **{f"p{part}_ms": round(percentile(waits, part), 1) for part in (50, 95, 99)},
            "load_average": machine.load_average(),
        }

    def _wait(self, marks: list[Mark], count: int) -> ResultSet:
        """Waits until each command has its result; adds to the marks."""
        begin = marks[0].ends
        while True:
            time.sleep(POLL_S)
            self._ledger.check()
            for sink in self._sinks:
                sink.check()
            now, ends = time.monotonic(), self._results.read()
            if ends != marks[-1].ends:
                marks.append(Mark(now, ends))
            quiet_s = now - marks[-1].at
            assert quiet_s < STALLED_S, "the pipeline has stalled"
            if quiet_s > QUIET_S and sum(ends) - sum(begin) >= count:
                results = self._between(begin, ends)
                if len(results.commands) == count:
                    return results

    def _between(self, begin: list[int], ends: list[int]) -> ResultSet:
        results = ResultSet(set(), Counter(), {})
        topic = self._ledger.names.results
        for message in outcomes.records(self._ledger.client, topic, begin, ends):
            result = _decode(message.value() or b"")
            position = (result.partition, result.offset)
            assert position not in results.commands, f"{position} has two results"
            results.commands.add(position)
            results.counts[result.reason or result.outcome] += 1
            results.last[message.partition() or 0] = message.offset() or 0
        return results

    @staticmethod
    def _all_seen(marks: list[Mark], results: ResultSet) -> Mark:
        """The first moment at which the last result could be read."""
        return next(m for m in marks if all(m.ends[p] > at for p, at in results.last.items()))

    def _rows(self) -> dict[str, int]:
        with psycopg.connect(self._database) as connection:
            return {
                table: connection.execute(f"SELECT count(*) FROM ledger.{table}").fetchall()[0][0]
                for table in GROWING
            }

    def _cpu_s(self) -> dict[str, float]:
        return {
            "processor": self._ledger.cpu_s(),
            "sink": sum(map(machine.cpu_s, (sink.process for sink in self._sinks))),
            "postgres": _cpu_s_of_all(self._server),
            "broker": self._machine.broker.cpu_s(),
        }


def _cpu_s_of_all(server: psutil.Process) -> float:
    """The server's CPU time with that of all its backends, running or ended."""
    times = server.cpu_times()
    used = float(times.user + times.system + times.children_user + times.children_system)
    for backend in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            used += machine.cpu_s(backend)
    return used


@contextmanager
def running(partitions: int, processors: int, sinks: int) -> Iterator[Bench]:
    never = threading.Event()
    folder = Path(tempfile.mkdtemp(prefix="streamledger-benchmark-"))
    started: list[Sink] = []
    with machine.running() as running_machine, brokers.data_folder() as data_folder:
        server = programs.server(
            data_folder, postgres.PostgresOptions(first_port=brokers.some_port()), never
        )
        try:
            database = server.start(never)
            assert server.process is not None
            process = psutil.Process(server.process.child.pid)
            children.end_with_us(process.pid)
            provisioning.migrate(database)
            ledger = running_machine.ledger("pipeline", partitions, processors)
            ledger.start()
            settings = {**ledger.settings, "DATABASE_URL": database}
            started += [Sink(number, folder, settings) for number in range(sinks)]
            yield Bench(running_machine, ledger, started, database, process)
        finally:
            for sink in started:
                sink.kill()
            running_machine.kill()
            server.stop()
            shutil.rmtree(folder, ignore_errors=True)


CommandSource = Callable[[list[Account], int, int], Iterator[Command]]
LOADS: dict[str, CommandSource] = {"credits": load.credits, "mix": load.mix}


def latencies(bench: Bench, accounts: list[Account], count: int, seeds: int, when: str) -> None:
    for seed, (name, source) in enumerate(LOADS.items(), seeds):
        latency = bench.latency(list(source(accounts, count, seed)), LATENCY_PER_S)
        p50, p99 = at_most(P50_MS, latency["p50_ms"]), at_most(P99_MS, latency["p99_ms"])
        tell(f"{name}, latency at {LATENCY_PER_S}/s, {when}", **latency, p50=p50, p99=p99)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--full", action="store_true", help="a minute and more of each load")
    parser.add_argument("--seconds", type=float, help="of load at the target's rate")
    parser.add_argument("--latency-seconds", type=float, default=10.0)
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--accounts", type=int, default=20_000)
    parser.add_argument("--processors", type=int, choices=(1, 2), default=1, help="processes")
    parser.add_argument("--sinks", type=int, choices=(1, 2), default=1, help="processes")
    options = parser.parse_args()
    seconds = options.seconds or (140.0 if options.full else 20.0)
    tell(
        "machine",
        processors=options.processors,
        sinks=options.sinks,
        partitions=options.partitions,
        **machine.described(),
    )
    accounts = load.accounts(options.accounts, options.partitions)
    with running(options.partitions, options.processors, options.sinks) as bench:
        tell("open accounts", **bench.take(list(load.opens(accounts))))
        # Every wallet of the mix needs money.
        tell("first credits", **bench.take(list(load.credits(accounts, len(accounts), 1))))
        count = int(LATENCY_PER_S * (options.latency_seconds + WARM_UP_S))
        latencies(bench, accounts, count, 10, "before the loads")
        for seed, (name, source) in enumerate(LOADS.items(), 2):
            measured = bench.take(list(source(accounts, int(COMMANDS_PER_S * seconds), seed)))
            met = measured["commands_per_second"] >= COMMANDS_PER_S
            tell(f"{name}, from append to result", **measured, target=COMMANDS_PER_S, met=met)
        latencies(bench, accounts, count, 20, "right after them")


if __name__ == "__main__":
    main()
