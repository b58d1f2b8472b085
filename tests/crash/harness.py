"""The crash-test harness: supervised workers and sinks on real brokers and Postgres, under load.

At the end it runs the audits of commands and of the read side, and `streamledger verify`. It must
not know which faults are injected, or when.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from confluent_kafka.admin import AdminClient

from tests.crash.audit import Audit
from tests.crash.load_generator import DUEL_MONEY, LoadGenerator
from tests.crash.read_side_audit import ReadSideAudit
from tests.testkit.environment import Environment
from tests.testkit.programs import inherited
from tests.testkit.sink_rig import Sink
from tests.testkit.waiting import eventually
from tests.testkit.worker_processes import ProcessSupervisor, Worker

SESSION_MS = 2_000
# Short, so that holds expire and transactions time out while partitions move between workers.
HOLD_TTL_MS = 4_000
PARTICIPANT_TIMEOUT_MS = 8_000
WORKER_CRASH_POINTS = (
    "fenced",
    "restored",
    "before_begin",
    "mid_produce",
    "before_commit",
    "after_commit",
    "before_write",
    "after_write",
)
SINK_CRASH_POINTS = (
    "fenced",
    "positioned",
    "before_rows",
    "mid_rows",
    "before_rows_commit",
    "after_rows",
    "mid_results",
    "results_sent",
    "before_results_commit",
    "after_results",
)
# Every worker and sink runs this at start-up. While the file `on` exists, the consumer of a lane
# sometimes delivers a record a second time.
REDELIVERY_PATCH = """
import random
from pathlib import Path

import confluent_kafka

ON = Path(__file__).with_name("on")


class RedeliveringConsumer(confluent_kafka.Consumer):
    def __init__(self, config):
        # Only the consumers of lanes set this; readers of a whole topic do not.
        self.redelivers = "fetch.error.backoff.ms" in config
        super().__init__(config)

    def consume(self, *arguments, **keywords):
        messages = super().consume(*arguments, **keywords)
        if self.redelivers and messages and random.random() < {chance} and ON.exists():
            messages.insert(random.randrange(1, len(messages) + 1), messages[0])
        return messages


confluent_kafka.Consumer = RedeliveringConsumer
"""
REDELIVERY_LOG_LINE = re.compile(r"a record at offset \d+ came, after")
CAUGHT_UP_S = 90.0
REBUILD_S = 120.0
DAMAGED_BYTES = 4_096
VERIFY_S = 300.0


class CrashHarness:
    def __init__(
        self,
        environment: Environment,
        folder: Path,
        workers: ProcessSupervisor[Worker],
        sinks: ProcessSupervisor[Sink],
        load: LoadGenerator,
        code: Path | None,
    ) -> None:
        self.environment = environment
        self.folder = folder
        self.workers = workers
        self.sinks = sinks
        self.load = load
        self.faults: dict[str, int] = {}
        # The folder with the module that every worker and sink runs at start-up, if any.
        self.startup_folder: Path | None = None
        self._code = code
        self._program_count = 0

    def count_fault(self, what: str) -> None:
        self.faults[what] = self.faults.get(what, 0) + 1

    def settings(self) -> dict[str, str]:
        python_path = (
            {} if self.startup_folder is None else {"PYTHONPATH": str(self.startup_folder)}
        )
        return python_path | {
            "KAFKA_BROKERS": self.environment.bootstrap,
            "TOPIC_PREFIX": self.environment.prefix,
            "PARTITIONS": str(self.environment.partitions),
            "SESSION_TIMEOUT_MS": str(SESSION_MS),
            "HOLD_TTL_MS": str(HOLD_TTL_MS),
            "PARTICIPANT_TIMEOUT_MS": str(PARTICIPANT_TIMEOUT_MS),
            "LEDGER_ID": "crash",
            "DATABASE_URL": self.environment.database,
        }

    def new_worker(self, settings: Mapping[str, str] | None = None) -> Worker:
        self._program_count += 1
        folder = self.folder / f"worker-{self._program_count}"
        return Worker(self._program_count, folder, settings or self.settings(), self._code)

    def new_sink(self) -> Sink:
        self._program_count += 1
        return Sink(
            self._program_count,
            self.folder / f"sink-{self._program_count}",
            self.settings(),
            self._code,
        )

    def tails(self) -> str:
        return f"{self.workers.tails()}\n{self.sinks.tails()}"

    def kill(self, worker: Worker, why: str = "random") -> None:
        self.workers.kill(worker, why)

    def lose_disk(self, worker: Worker) -> None:
        with self.workers.aside(worker):
            self.kill(worker, "lost disk")
            worker.lose_disk()

    def copy_disk(self, worker: Worker) -> Path:
        """Stops a worker and copies its disk."""
        copy = self.folder / f"copy-{worker.number}-{time.monotonic_ns()}"
        with self.workers.aside(worker):
            self.kill(worker, "copied disk")
            if worker.data.exists():
                shutil.copytree(worker.data, copy)
        return copy

    def swap_disk(self, worker: Worker, copy: Path) -> None:
        with self.workers.aside(worker):
            self.kill(worker, "swapped disk")
            worker.lose_disk()
            if copy.exists():
                shutil.copytree(copy, worker.data)

    def enable_redelivery(self, chance: float) -> None:
        """From now on the consumers of new workers and sinks deliver a record twice, with this
        chance at each read."""
        self.startup_folder = self.folder / "startup"
        self.startup_folder.mkdir()
        (self.startup_folder / "sitecustomize.py").write_text(
            REDELIVERY_PATCH.format(chance=chance)
        )
        (self.startup_folder / "on").touch()

    def redelivered_records(self) -> int:
        """How often a worker or a sink logged a redelivered record."""
        logs = self.folder.glob("*/log")
        return sum(
            len(REDELIVERY_LOG_LINE.findall(log.read_text(errors="replace"))) for log in logs
        )

    def damage_disk(self, worker: Worker, rng: random.Random) -> bool:
        """Stops a worker and overwrites a block of one of its files. Whether it had a file."""
        with self.workers.aside(worker):
            self.kill(worker, "damaged disk")
            files = [each for each in worker.data.rglob("*.sst") if each.stat().st_size]
            if not files:
                return False
            with rng.choice(sorted(files)).open("r+b") as file:
                file.seek(rng.randrange(file.seek(0, os.SEEK_END)))
                file.write(rng.randbytes(DAMAGED_BYTES))
        return True

    def rebuild_state_topic(self, *, lost: bool) -> None:
        """Rebuilds it as an operator does: with all workers stopped and their disks kept."""
        with ExitStack() as aside:
            for worker in list(self.workers.programs):
                aside.enter_context(self.workers.aside(worker))
                self.kill(worker, "rebuild")
            if lost:
                self._lose_state_topic()
            command = ["rebuild", "state-topic", *([] if lost else ["--replace"])]
            attempts: list[str] = []

            def rebuilt() -> bool:
                ended = self._streamledger(*command)
                attempts.append(f"{ended.returncode}: {ended.stdout}{ended.stderr}")
                # An interrupted rebuild leaves a position in some partitions.
                if "--replace" not in command:
                    command.append("--replace")
                return ended.returncode == 0

            try:
                eventually(rebuilt, REBUILD_S)
            except AssertionError:
                raise AssertionError(f"not rebuilt: {attempts}") from None

    def _lose_state_topic(self) -> None:
        admin, topic = AdminClient(self.environment.client), self.environment.names.state
        admin.delete_topics([topic])[topic].result(30)
        eventually(lambda: topic not in admin.list_topics(timeout=10).topics, 30)
        self.environment.make_topics()

    def settle(self, audit: Audit, timeout_s: float) -> None:
        """Waits until each record has its outcome and nothing is in flight. Ends redelivery first,
        because it would interrupt each attempt to catch up on a slow machine."""
        if self.startup_folder is not None:
            (self.startup_folder / "on").unlink(missing_ok=True)

        def settled() -> bool:
            # An open transaction hides confirmed records behind it until it times out.
            return audit.settled() and self.load.confirmed <= audit.positions()

        try:
            eventually(settled, timeout_s)
        except AssertionError:
            raise AssertionError(
                f"not settled within {timeout_s:g} s:"
                f" {len(self.load.confirmed - audit.positions())} confirmed commands are missing,"
                f" {audit.without_outcome()} records have no outcome,"
                f" {audit.undecided()} transactions are in flight\n{self.tails()}"
            ) from None

    def audit_all(self, audit: Audit) -> list[str]:
        """Stops the workers, lets the sinks catch up and stops them. Returns all differences."""
        codes = self.workers.stop()
        differences = [f"a stopped worker ended with {code}" for code in codes if code]
        differences += audit.verify()
        differences += self._audit_producers(audit)
        differences += self._audit_read_side(audit)
        return differences

    def _audit_producers(self, audit: Audit) -> list[str]:
        differences = []
        if lost := self.load.confirmed - audit.positions():
            differences.append(f"{len(lost)} confirmed commands are gone: {sorted(lost)[:5]}")
        decided = {(p, offset) for p, books in enumerate(audit.books) for offset in books.outcomes}
        if wrong := self.load.aborted & decided:
            differences.append(
                f"{len(wrong)} aborted commands have an outcome: {sorted(wrong)[:5]}"
            )
        accounts = {id: account for books in audit.books for id, account in books.accounts.items()}
        for pair in self.load.duels:
            total = sum(accounts[id].balance for id in pair if id in accounts)
            if total != DUEL_MONEY and all(id in accounts for id in pair):
                differences.append(f"{pair} have {total} together, not {DUEL_MONEY}")
        return differences

    def _audit_read_side(self, audit: Audit) -> list[str]:
        differences = []
        with ReadSideAudit(self.environment, audit.books) as read_side:
            try:
                eventually(lambda: not read_side.missing(), CAUGHT_UP_S)
            except AssertionError:
                differences.append(f"the sinks have not caught up: {read_side.missing()}")
                differences += self.sinks.tails().splitlines()
            codes = self.sinks.stop()
            differences += [f"a stopped sink ended with {code}" for code in codes if code]
            differences += read_side.differences()
        return differences + self._verify()

    def _verify(self) -> list[str]:
        """The report of `streamledger verify`, if it finds differences."""
        ended = self._streamledger("verify", "--against-rules")
        if ended.returncode == 0:
            return []
        output = f"{ended.stdout}\n{ended.stderr}".splitlines()
        return [f"verify ended with {ended.returncode}", *output]

    def _streamledger(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "compose.cli.main", *arguments],
            cwd=self.folder,
            env={**inherited(), **self.settings()},
            capture_output=True,
            text=True,
            timeout=VERIFY_S,
            check=False,
        )


@contextmanager
def running_harness(
    environment: Environment,
    worker_count: int,
    seed: int,
    rate: float,
    code: Path | None = None,
    hanging: float = 0.1,
    sink_count: int = 2,
    redelivery_chance: float = 0.0,
) -> Iterator[CrashHarness]:
    """A harness with topics, workers and sinks, before any load. `redelivery_chance`: the chance
    that a read delivers a record twice."""
    environment.make_topics()
    environment.make_database()
    folder = Path(tempfile.mkdtemp(prefix="streamledger-crash-"))
    load = LoadGenerator(
        environment.client, environment.names.commands, environment.partitions, seed, rate, hanging
    )
    try:
        with (
            ProcessSupervisor[Worker](seed) as workers,
            ProcessSupervisor[Sink](seed + 1) as sinks,
        ):
            harness = CrashHarness(environment, folder, workers, sinks, load, code)
            if redelivery_chance:
                harness.enable_redelivery(redelivery_chance)
            for _ in range(worker_count):
                workers.add(harness.new_worker())
            for _ in range(sink_count):
                sinks.add(harness.new_sink())
            yield harness
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], object], timeout_s: float, harness: CrashHarness) -> None:
    """Like `eventually`, but a failure shows the last lines of the programs' logs."""
    try:
        eventually(condition, timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{harness.tails()}") from None
