"""Everything together: brokers, Postgres, workers and sinks that come back, load, and at the end
the audit, the read side beside it, and what `streamledger verify` says.
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
# Short, so that holds expire and transactions time out while their partitions change hands.
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
# Run by every worker and sink before anything else: while the file `on` is there, the client of a
# lane now and then delivers a record a second time.
REPEATING = """
import random
from pathlib import Path

import confluent_kafka

ON = Path(__file__).with_name("on")


class Repeating(confluent_kafka.Consumer):
    def __init__(self, config):
        self.repeats = "fetch.queue.backoff.ms" in config
        super().__init__(config)

    def consume(self, *given, **named):
        messages = super().consume(*given, **named)
        if self.repeats and messages and random.random() < {chance} and ON.exists():
            messages.insert(random.randrange(1, len(messages) + 1), messages[0])
        return messages


confluent_kafka.Consumer = Repeating
"""
REPEATED = re.compile(r"a record at offset \d+ came, after")
CAUGHT_UP_S = 90.0
REBUILD_S = 120.0
BLOCK = 4_096
VERIFY_S = 300.0


class CrashHarness:
    def __init__(
        self,
        stage: Environment,
        folder: Path,
        crew: ProcessSupervisor[Worker],
        sinks: ProcessSupervisor[Sink],
        load: LoadGenerator,
        code: Path | None,
    ) -> None:
        self.stage = stage
        self.folder = folder
        self.crew = crew
        self.sinks = sinks
        self.load = load
        self.deeds: dict[str, int] = {}
        # Where what every worker and sink runs first lies, if there is any.
        self.first: Path | None = None
        self._code = code
        self._made = 0

    def did(self, what: str) -> None:
        self.deeds[what] = self.deeds.get(what, 0) + 1

    def settings(self) -> dict[str, str]:
        first = {} if self.first is None else {"PYTHONPATH": str(self.first)}
        return first | {
            "KAFKA_BROKERS": self.stage.bootstrap,
            "TOPIC_PREFIX": self.stage.prefix,
            "PARTITIONS": str(self.stage.partitions),
            "SESSION_TIMEOUT_MS": str(SESSION_MS),
            "HOLD_TTL_MS": str(HOLD_TTL_MS),
            "PARTICIPANT_TIMEOUT_MS": str(PARTICIPANT_TIMEOUT_MS),
            "LEDGER_ID": "crash",
            "DATABASE_URL": self.stage.database,
        }

    def new_worker(self, settings: Mapping[str, str] | None = None) -> Worker:
        self._made += 1
        folder = self.folder / f"worker-{self._made}"
        return Worker(self._made, folder, settings or self.settings(), self._code)

    def new_sink(self) -> Sink:
        self._made += 1
        return Sink(self._made, self.folder / f"sink-{self._made}", self.settings(), self._code)

    def tails(self) -> str:
        return f"{self.crew.tails()}\n{self.sinks.tails()}"

    def kill(self, worker: Worker, why: str = "random") -> None:
        self.crew.kill(worker, why)

    def lose_disk(self, worker: Worker) -> None:
        with self.crew.aside(worker):
            self.kill(worker, "lost disk")
            worker.lose_disk()

    def keep_copy(self, worker: Worker) -> Path:
        """A copy of its disk, as of now: taken while it is down."""
        kept = self.folder / f"copy-{worker.number}-{time.monotonic_ns()}"
        with self.crew.aside(worker):
            self.kill(worker, "copied disk")
            if worker.data.exists():
                shutil.copytree(worker.data, kept)
        return kept

    def swap_disk(self, worker: Worker, copy: Path) -> None:
        with self.crew.aside(worker):
            self.kill(worker, "swapped disk")
            worker.lose_disk()
            if copy.exists():
                shutil.copytree(copy, worker.data)

    def repeat(self, chance: float) -> None:
        """From now on clients of new workers and sinks deliver records twice, with this chance at
        each read."""
        self.first = self.folder / "first"
        self.first.mkdir()
        (self.first / "sitecustomize.py").write_text(REPEATING.format(chance=chance))
        (self.first / "on").touch()

    def repeated(self) -> int:
        """How often a worker or a sink noticed a record that came twice."""
        logs = self.folder.glob("*/log")
        return sum(len(REPEATED.findall(log.read_text(errors="replace"))) for log in logs)

    def damage_disk(self, worker: Worker, dice: random.Random) -> bool:
        """A block of one of its files is overwritten, while it is down. Whether there was one."""
        with self.crew.aside(worker):
            self.kill(worker, "damaged disk")
            files = [each for each in worker.data.rglob("*.sst") if each.stat().st_size]
            if not files:
                return False
            with dice.choice(sorted(files)).open("r+b") as file:
                file.seek(dice.randrange(file.seek(0, os.SEEK_END)))
                file.write(dice.randbytes(BLOCK))
        return True

    def rebuild_state_topic(self, *, lost: bool) -> None:
        """As an operator does it: all workers are down; their copies stay where they are."""
        with ExitStack() as aside:
            for worker in list(self.crew.workers):
                aside.enter_context(self.crew.aside(worker))
                self.kill(worker, "rebuild")
            if lost:
                self._lose_state_topic()
            command = ["rebuild", "state-topic", *([] if lost else ["--replace"])]
            told: list[str] = []

            def rebuilt() -> bool:
                ended = self._streamledger(*command)
                told.append(f"{ended.returncode}: {ended.stdout}{ended.stderr}")
                # One that was cut short left a position in some partitions.
                if "--replace" not in command:
                    command.append("--replace")
                return ended.returncode == 0

            try:
                eventually(rebuilt, REBUILD_S)
            except AssertionError:
                raise AssertionError(f"not rebuilt: {told}") from None

    def _lose_state_topic(self) -> None:
        admin, topic = AdminClient(self.stage.client), self.stage.names.state
        admin.delete_topics([topic])[topic].result(30)
        eventually(lambda: topic not in admin.list_topics(timeout=10).topics, 30)
        self.stage.make_topics()

    def settle(self, audit: Audit, timeout_s: float) -> None:
        """Until every record has its outcome and nothing is under way. Clients repeat nothing more:
        on a slow machine they would interrupt each attempt to catch up."""
        if self.first is not None:
            (self.first / "on").unlink(missing_ok=True)

        def settled() -> bool:
            # What was confirmed may be hidden, until an open transaction before it has timed out.
            return audit.settled() and self.load.confirmed <= audit.positions()

        try:
            eventually(settled, timeout_s)
        except AssertionError:
            raise AssertionError(
                f"not settled within {timeout_s:g} s:"
                f" {len(self.load.confirmed - audit.positions())} confirmed commands are not there,"
                f" {audit.unanswered()} records have no outcome,"
                f" {audit.undecided()} transactions are under way\n{self.tails()}"
            ) from None

    def verdict(self, audit: Audit) -> list[str]:
        """Every difference, once the workers are gone and the sinks have written what they left;
        none is what is hoped for."""
        codes = self.crew.stop()
        found = [f"a worker that was asked to stop ended with {code}" for code in codes if code]
        found += audit.verify()
        found += self._producers(audit)
        found += self._read_side(audit)
        return found

    def _producers(self, audit: Audit) -> list[str]:
        found = []
        if lost := self.load.confirmed - audit.positions():
            found.append(f"{len(lost)} confirmed commands are gone: {sorted(lost)[:5]}")
        answered = {(p, offset) for p, books in enumerate(audit.books) for offset in books.told}
        if wrong := self.load.aborted & answered:
            found.append(f"{len(wrong)} aborted commands have an outcome: {sorted(wrong)[:5]}")
        accounts = {id: one for books in audit.books for id, one in books.accounts.items()}
        for pair in self.load.duels:
            total = sum(accounts[id].balance for id in pair if id in accounts)
            if total != DUEL_MONEY and all(id in accounts for id in pair):
                found.append(f"{pair} have {total} together, not {DUEL_MONEY}")
        return found

    def _read_side(self, audit: Audit) -> list[str]:
        found = []
        with ReadSideAudit(self.stage, audit.books) as read_side:
            try:
                eventually(lambda: not read_side.lacks(), CAUGHT_UP_S)
            except AssertionError:
                found.append(f"the sinks have not come so far: {read_side.lacks()}")
                found += self.sinks.tails().splitlines()
            codes = self.sinks.stop()
            found += [f"a sink that was asked to stop ended with {code}" for code in codes if code]
            found += read_side.differences()
        return found + self._verify()

    def _verify(self) -> list[str]:
        """What an operator would be told, by what would be installed there."""
        told = self._streamledger("verify", "--against-rules")
        if told.returncode == 0:
            return []
        said = f"{told.stdout}\n{told.stderr}".splitlines()
        return [f"verify ended with {told.returncode}", *said]

    def _streamledger(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "compose.cli.main", *words],
            cwd=self.folder,
            env={**inherited(), **self.settings()},
            capture_output=True,
            text=True,
            timeout=VERIFY_S,
            check=False,
        )


@contextmanager
def running_harness(
    stage: Environment,
    workers: int,
    seed: int,
    rate: float,
    code: Path | None = None,
    hanging: float = 0.1,
    sinks: int = 2,
    repeats: float = 0.0,
) -> Iterator[CrashHarness]:
    """Topics, workers that own them, sinks beside them; nothing is sent yet. `repeats`: with what
    chance a read delivers a record twice."""
    stage.make_topics()
    stage.make_database()
    folder = Path(tempfile.mkdtemp(prefix="streamledger-crash-"))
    load = LoadGenerator(stage.client, stage.names.commands, stage.partitions, seed, rate, hanging)
    try:
        with (
            ProcessSupervisor[Worker](seed) as crew,
            ProcessSupervisor[Sink](seed + 1) as sink_crew,
        ):
            rig = CrashHarness(stage, folder, crew, sink_crew, load, code)
            if repeats:
                rig.repeat(repeats)
            for _ in range(workers):
                crew.add(rig.new_worker())
            for _ in range(sinks):
                sink_crew.add(rig.new_sink())
            yield rig
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], object], timeout_s: float, rig: CrashHarness) -> None:
    """As `eventually`, and with what the workers said last where it does not come true."""
    try:
        eventually(condition, timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{rig.tails()}") from None
