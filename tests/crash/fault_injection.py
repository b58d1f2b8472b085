"""Injects the faults that may happen to a ledger at any moment: one at a time, and then repaired.

A fault returns when brokers and Postgres run again. Supervisors restart the workers and sinks. It
must not know how the ledger recovers.
"""

import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer

from tests.crash.harness import SESSION_MS, SINK_CRASH_POINTS, WORKER_CRASH_POINTS, CrashHarness
from tests.testkit.programs import Program
from tests.testkit.sink_rig import Sink
from tests.testkit.waiting import eventually
from tests.testkit.worker_processes import Worker

MAX_WORKERS = 4
Fault = Callable[["FaultInjector"], None]


class FaultInjector:
    """Draws faults from a seed. The end of the run cuts `pause` short."""

    def __init__(self, harness: CrashHarness, seed: int, foreign_copies: list[Path]) -> None:
        self.harness = harness
        self.rng = random.Random(seed)
        self.stopping = threading.Event()
        self._disk_copies = list(foreign_copies)
        self._foreign_copies = set(foreign_copies)
        self._faults, self._weights = zip(*FAULTS.items(), strict=True)

    def pause(self, min_s: float, max_s: float) -> None:
        self.stopping.wait(self.rng.uniform(min_s, max_s))

    def inject_one(self) -> None:
        # With a chance of 1 the first crash point kills; with a small one it kills under load.
        self.harness.workers.crash_at(WORKER_CRASH_POINTS, self.rng.choice((1.0, 0.3, 0.05, 0.01)))
        self.harness.sinks.crash_at(SINK_CRASH_POINTS, self.rng.choice((1.0, 0.3, 0.05, 0.01)))
        fault = self.rng.choices(self._faults, self._weights)[0]
        fault(self)
        self.harness.count_fault(fault.__name__)

    def _worker(self) -> Worker:
        return self.rng.choice(self.harness.workers.programs)

    def kill_a_worker(self) -> None:
        self.harness.kill(self._worker())

    def kill_all_workers(self) -> None:
        for worker in list(self.harness.workers.programs):
            self.harness.kill(worker)

    def freeze_a_worker(self) -> None:
        """Its session ends and others take over. Then it wakes up as a zombie."""
        self._freeze(self._worker())

    def _freeze(self, program: Program) -> None:
        program.send(signal.SIGSTOP)
        self.pause(SESSION_MS / 1_000, 3 * SESSION_MS / 1_000)
        program.send(signal.SIGCONT)

    def lose_a_disk(self) -> None:
        self.harness.lose_disk(self._worker())

    def copy_a_disk(self) -> None:
        self._disk_copies.append(self.harness.copy_disk(self._worker()))
        if len(self._disk_copies) > 6:
            dropped = self._disk_copies.pop(len(self._foreign_copies))
            shutil.rmtree(dropped, ignore_errors=True)

    def swap_a_disk(self) -> None:
        """Replaces it with an older copy: of this worker, another one, or another ledger."""
        if self._disk_copies:
            self.harness.swap_disk(self._worker(), self.rng.choice(self._disk_copies))

    def damage_a_disk(self) -> None:
        if not self.harness.damage_disk(self._worker(), self.rng):
            self.harness.count_fault("damage_a_disk (empty)")

    def rebuild_the_state_topic(self) -> None:
        """The topic is lost or replaced. Then one worker may return with an older disk, and the
        others with their own."""
        self.harness.rebuild_state_topic(lost=self.rng.random() < 0.7)
        if self._disk_copies and self.rng.random() < 0.7:
            self.harness.swap_disk(self._worker(), self.rng.choice(self._disk_copies))

    def kill_a_broker(self) -> None:
        environment = self.harness.environment
        number = environment.leader(
            environment.names.journal, self.rng.randrange(environment.partitions)
        )
        environment.kill_broker(number)
        self.pause(0, 3)
        environment.start_broker(number)
        environment.wait_until_serving()

    def add_a_worker(self) -> None:
        if len(self.harness.workers.programs) < MAX_WORKERS:
            self.harness.workers.add(self.harness.new_worker())

    def remove_a_worker(self) -> None:
        if len(self.harness.workers.programs) > 1:
            self.harness.workers.remove(self._worker())

    def _sink(self) -> Sink:
        return self.rng.choice(self.harness.sinks.programs)

    def kill_a_sink(self) -> None:
        self.harness.sinks.kill(self._sink(), "random")

    def kill_all_sinks(self) -> None:
        for sink in list(self.harness.sinks.programs):
            self.harness.sinks.kill(sink, "random")

    def freeze_a_sink(self) -> None:
        """Its session ends and the other one takes over. Then it wakes up."""
        self._freeze(self._sink())

    def kill_postgres(self) -> None:
        """Restarts it at once, or after some seconds."""
        self.harness.environment.kill_postgres()
        if self.rng.random() < 0.5:
            self.pause(1, 8)
        self.harness.environment.start_postgres()


FAULTS: dict[Fault, float] = {
    FaultInjector.kill_a_worker: 4,
    FaultInjector.kill_all_workers: 1,
    FaultInjector.freeze_a_worker: 2,
    FaultInjector.lose_a_disk: 2,
    FaultInjector.copy_a_disk: 1,
    FaultInjector.swap_a_disk: 2,
    FaultInjector.damage_a_disk: 2,
    FaultInjector.rebuild_the_state_topic: 2,
    FaultInjector.kill_a_broker: 1,
    FaultInjector.add_a_worker: 1.5,
    FaultInjector.remove_a_worker: 1,
    FaultInjector.kill_a_sink: 3,
    FaultInjector.kill_all_sinks: 1,
    FaultInjector.freeze_a_sink: 2,
    FaultInjector.kill_postgres: 1.5,
}


@contextmanager
def foreign_disk(harness: CrashHarness) -> Iterator[Path]:
    """The disk of a worker of another ledger on the same brokers."""
    environment = harness.environment.for_another_ledger()
    environment.make_topics()
    settings = harness.settings() | {"TOPIC_PREFIX": environment.prefix, "LEDGER_ID": "other"}
    worker = harness.new_worker(settings)
    worker.start()
    try:
        producer = Producer(environment.client)
        for partition in range(environment.partitions):
            for number in range(50):
                producer.produce(environment.names.commands, b"%d" % number, b"x", partition)
        producer.flush(30)
        eventually(worker.ready, 60)
        worker.stop()
        yield worker.data
    finally:
        worker.kill()
