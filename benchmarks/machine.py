"""Where a benchmark runs: a real broker of its own, ledgers on it, and their workers.

Nothing is tuned for the measure: the broker is started as `streamledger up` starts it, topics are
made as it makes them, and workers run as `python -m processor`. It must not know what is measured.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks import children
from compose import provisioning
from compose.embedded import kafka, programs
from schemas.topics import Names
from tests.testkit import brokers
from tests.testkit.waiting import eventually
from tests.testkit.worker_processes import Worker

# A worker is stopped while its backlog is made; its group must not miss it meanwhile.
SESSION_TIMEOUT_MS = 60_000
READY_S = 600.0

Config = dict[str, str | int | float | bool]


class Broker:
    def __init__(self, bootstrap: str, pid: int) -> None:
        self.bootstrap = bootstrap
        self._process = psutil.Process(pid)
        children.end_with_us(pid)

    def cpu_s(self) -> float:
        return cpu_s(self._process)


class Ledger:
    """One ledger: its topics, and the workers that own them."""

    def __init__(
        self,
        broker: Broker,
        name: str,
        partitions: int,
        workers: int,
        folder: Path,
        code: Path | None,
    ) -> None:
        self.names = Names(f"{name}-")
        self.partitions = partitions
        self.client: Config = {"bootstrap.servers": broker.bootstrap, "log_level": 0}
        self.settings = {
            "KAFKA_BROKERS": broker.bootstrap,
            "TOPIC_PREFIX": self.names.prefix,
            "PARTITIONS": str(partitions),
            "LEDGER_ID": "benchmark",
            "SESSION_TIMEOUT_MS": str(SESSION_TIMEOUT_MS),
        }
        provisioning.create_topics(
            broker.bootstrap, provisioning.ProvisionSettings.model_validate(self.settings)
        )
        self._workers = [
            Worker(number, folder / f"{name}-{number}", self.settings, code)
            for number in range(workers)
        ]
        self._processes: list[psutil.Process] = []

    def start(self) -> float:
        """Seconds until every partition runs."""
        began = time.monotonic()
        for worker in self._workers:
            worker.start()
            children.end_with_us(worker.pid)
        self._processes = [psutil.Process(worker.pid) for worker in self._workers]
        eventually(self._ready, READY_S)
        return time.monotonic() - began

    def stop(self) -> None:
        for worker in self._workers:
            code = worker.stop()
            assert code == 0, f"a worker ended with {code}:\n{worker.tail()}"

    def kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def lose_disks(self) -> None:
        for worker in self._workers:
            worker.lose_disk()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """What is sent meanwhile is a backlog for warm workers."""
        for worker in self._workers:
            worker.send(signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in self._workers:
                worker.send(signal.SIGCONT)

    def check(self) -> None:
        for worker in self._workers:
            if not worker.running():
                raise RuntimeError(f"a worker has ended:\n{worker.tail()}")

    def cpu_s(self) -> float:
        return sum(map(cpu_s, self._processes))

    def memory_mb(self) -> float:
        """Of the largest worker, resident."""
        return max(process.memory_info().rss for process in self._processes) / 1e6

    def _ready(self) -> bool:
        self.check()
        return all(worker.ready() for worker in self._workers)


class Machine:
    """Makes ledgers on one broker; kills what is left of them at the end."""

    def __init__(self, broker: Broker, folder: Path, code: Path | None) -> None:
        self.broker = broker
        self._folder = folder
        self._code = code
        self._ledgers: list[Ledger] = []

    def ledger(self, name: str, partitions: int, workers: int, code: Path | None = None) -> Ledger:
        made = Ledger(self.broker, name, partitions, workers, self._folder, code or self._code)
        self._ledgers.append(made)
        return made

    def kill(self) -> None:
        for ledger in self._ledgers:
            ledger.kill()


@contextmanager
def running(code: Path | None = None) -> Iterator[Machine]:
    """`code` is a folder with another processor to measure."""
    never = threading.Event()
    folder = Path(tempfile.mkdtemp(prefix="streamledger-benchmark-"))
    try:
        with brokers.data_folder() as where:
            options = kafka.KafkaOptions(first_port=brokers.some_port())
            cluster = programs.cluster(where, options, never)
            try:
                address = cluster.start(never)
                broker = Broker(address, cluster.processes[1].child.pid)
                machine = Machine(broker, folder, code)
                try:
                    yield machine
                finally:
                    machine.kill()
            finally:
                cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def described(code: Path | None = None) -> dict[str, object]:
    rules = (code or Path(__file__).parents[1]) / "processor" / "rules"
    return {
        "cores": os.cpu_count(),
        "rules": "compiled" if any(rules.glob("engine.*.so")) else "interpreted",
        "load_average": load_average(),
    }


def load_average() -> float:
    return round(os.getloadavg()[0], 2)


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
