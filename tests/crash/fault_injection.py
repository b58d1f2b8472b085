"""What may happen to a ledger at any moment, each as one deed that is done and undone.

A deed returns when the world is whole again but for workers and sinks, which their crews start
again.
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

MOST_WORKERS = 4
Fault = Callable[["FaultInjector"], None]


class FaultInjector:
    """Deeds drawn from a seed. `pause` is a wait that the end of the run cuts short."""

    def __init__(self, rig: CrashHarness, seed: int, foreign: list[Path]) -> None:
        self.rig = rig
        self.dice = random.Random(seed)
        self.over = threading.Event()
        self._copies = list(foreign)
        self._foreign = set(foreign)
        self._deeds, self._weights = zip(*FAULTS.items(), strict=True)

    def pause(self, least_s: float, most_s: float) -> None:
        self.over.wait(self.dice.uniform(least_s, most_s))

    def one(self) -> None:
        # A step with a chance of one is deadly at once; with a small one it is so under load.
        self.rig.crew.crash_at(WORKER_CRASH_POINTS, self.dice.choice((1.0, 0.3, 0.05, 0.01)))
        self.rig.sinks.crash_at(SINK_CRASH_POINTS, self.dice.choice((1.0, 0.3, 0.05, 0.01)))
        deed = self.dice.choices(self._deeds, self._weights)[0]
        deed(self)
        self.rig.did(deed.__name__)

    def _worker(self) -> Worker:
        return self.dice.choice(self.rig.crew.workers)

    def kill_a_worker(self) -> None:
        self.rig.kill(self._worker())

    def kill_all_workers(self) -> None:
        for worker in list(self.rig.crew.workers):
            self.rig.kill(worker)

    def freeze_a_worker(self) -> None:
        """Its session ends, others take over, and it wakes up as if nothing had happened."""
        self._freeze(self._worker())

    def _freeze(self, program: Program) -> None:
        program.send(signal.SIGSTOP)
        self.pause(SESSION_MS / 1_000, 3 * SESSION_MS / 1_000)
        program.send(signal.SIGCONT)

    def lose_a_disk(self) -> None:
        self.rig.lose_disk(self._worker())

    def copy_a_disk(self) -> None:
        self._copies.append(self.rig.keep_copy(self._worker()))
        if len(self._copies) > 6:
            dropped = self._copies.pop(len(self._foreign))
            shutil.rmtree(dropped, ignore_errors=True)

    def swap_a_disk(self) -> None:
        """For an older copy, of this worker, of another one, or of another ledger."""
        if self._copies:
            self.rig.swap_disk(self._worker(), self.dice.choice(self._copies))

    def damage_a_disk(self) -> None:
        if not self.rig.damage_disk(self._worker(), self.dice):
            self.rig.did("damage_a_disk, which was empty")

    def rebuild_the_state_topic(self) -> None:
        """The topic is lost, or is replaced; then one worker may come back with a copy from before,
        and the others with their own."""
        self.rig.rebuild_state_topic(lost=self.dice.random() < 0.7)
        if self._copies and self.dice.random() < 0.7:
            self.rig.swap_disk(self._worker(), self.dice.choice(self._copies))

    def kill_a_broker(self) -> None:
        stage = self.rig.stage
        number = stage.leader(stage.names.journal, self.dice.randrange(stage.partitions))
        stage.kill_broker(number)
        self.pause(0, 3)
        stage.start_broker(number)
        stage.wait_until_serving()

    def add_a_worker(self) -> None:
        if len(self.rig.crew.workers) < MOST_WORKERS:
            self.rig.crew.add(self.rig.new_worker())

    def remove_a_worker(self) -> None:
        if len(self.rig.crew.workers) > 1:
            self.rig.crew.remove(self._worker())

    def _sink(self) -> Sink:
        return self.dice.choice(self.rig.sinks.workers)

    def kill_a_sink(self) -> None:
        self.rig.sinks.kill(self._sink(), "random")

    def kill_all_sinks(self) -> None:
        for sink in list(self.rig.sinks.workers):
            self.rig.sinks.kill(sink, "random")

    def freeze_a_sink(self) -> None:
        """Its session ends, the other one takes over, and it wakes up."""
        self._freeze(self._sink())

    def kill_postgres(self) -> None:
        """It comes back at once, or after some seconds."""
        self.rig.stage.kill_postgres()
        if self.dice.random() < 0.5:
            self.pause(1, 8)
        self.rig.stage.start_postgres()


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
def foreign_copy(rig: CrashHarness) -> Iterator[Path]:
    """The disk of a worker of another ledger, on the same brokers."""
    stage = rig.stage.beside()
    stage.make_topics()
    settings = rig.settings() | {"TOPIC_PREFIX": stage.prefix, "LEDGER_ID": "other"}
    worker = rig.new_worker(settings)
    worker.start()
    try:
        producer = Producer(stage.client)
        for partition in range(stage.partitions):
            for number in range(50):
                producer.produce(stage.names.commands, b"%d" % number, b"x", partition)
        producer.flush(30)
        eventually(worker.ready, 60)
        worker.stop()
        yield worker.data
    finally:
        worker.kill()
