"""A small ledger on any broker for tests of one failure each: topics, workers, commands, outcomes.

The audit reads the outcomes. It must not know the code of the processor.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient

from schemas import partitioning, topics
from tests.crash.audit import Audit
from tests.crash.audited_books import AuditedOutcome
from tests.testkit import brokers
from tests.testkit.waiting import eventually
from tests.testkit.worker_processes import Worker

CONFIRM_S = 30.0
START_S = 40.0
# A worker that takes over from a killed one waits for this session time-out.
SESSION_MS = 3_000


class AllWorkersEnded(Exception):
    """All workers have ended, so no outcome will follow."""


class Position(NamedTuple):
    partition: int
    offset: int


class WorkerLedger:
    def __init__(self, bootstrap: str, prefix: str, folder: Path, partitions: int = 2) -> None:
        self.bootstrap = bootstrap
        self.partitions = partitions
        self.names = topics.Names(prefix)
        self.client: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap,
            "log_level": 0,
        }
        self.admin = AdminClient(self.client)
        self.workers: list[Worker] = []
        self.audit: Audit
        self._folder = folder
        self.prefix = prefix
        self._count = 0
        self._producer: Producer | None = None

    def make_topics(self) -> None:
        brokers.create_topics(self.bootstrap, self.prefix, self.partitions)

    def recreate_topic(self, topic: str) -> None:
        """Deletes a topic with its records, and creates it empty."""
        self.admin.delete_topics([topic])[topic].result(CONFIRM_S)
        eventually(lambda: topic not in self.admin.list_topics(timeout=10).topics)
        self.make_topics()

    def delete_topics(self) -> None:
        own_topics = [
            topic
            for topic in self.admin.list_topics(timeout=10).topics
            if topic.startswith(self.prefix)
        ]
        for deleted in self.admin.delete_topics(own_topics).values():
            deleted.result(CONFIRM_S)

    # Workers

    def worker(self, data: str = "", **settings: str) -> Worker:
        """Starts a worker, with a data folder of its own unless one is named."""
        return self.start(data, settings)

    def start(self, data: str, settings: Mapping[str, str], code: Path | None = None) -> Worker:
        """Starts a worker. `code`: the folder of its sources, if not this checkout."""
        number = len(self.workers) + 1
        base_settings = {
            "KAFKA_BROKERS": self.bootstrap,
            "TOPIC_PREFIX": self.prefix,
            "PARTITIONS": str(self.partitions),
            "DATA": str(self._folder / (data or f"data-{number}")),
            "SESSION_TIMEOUT_MS": str(SESSION_MS),
        }
        worker = Worker(
            number, self._folder / f"worker-{number}", {**base_settings, **settings}, code
        )
        self.workers.append(worker)
        worker.start()
        return worker

    def ready(self, data: str = "", **settings: str) -> Worker:
        worker = self.worker(data, **settings)
        wait_until_ready(worker)
        return worker

    def refused(self, data: str = "", **settings: str) -> str:
        """The output of a worker that refuses to run."""
        worker = self.worker(data, **settings)
        assert worker.wait(START_S) == 1, worker.tail()
        return worker.log_text()

    # Commands

    def send(
        self,
        command: Mapping[str, Any] | bytes,
        key: bytes | None = None,
        partition: int | None = None,
        producer: Producer | None = None,
    ) -> Position:
        """Key and partition follow the command's account, unless given."""
        return self.send_all([(command, key, partition)], producer)[0]

    def send_all(
        self,
        commands: Sequence[tuple[Mapping[str, Any] | bytes, bytes | None, int | None]],
        producer: Producer | None = None,
    ) -> list[Position]:
        confirmed: dict[int, Position] = {}
        chosen_producer = producer or self._default_producer()
        for number, (command, key, partition) in enumerate(commands):
            account = b"" if isinstance(command, bytes) else command["account"].encode()
            target_partition = (
                self.partition_of(account.decode()) if partition is None else partition
            )

            def note(error: object, message: Message, number: int = number) -> None:
                assert error is None, error
                confirmed[number] = Position(message.partition() or 0, message.offset() or 0)

            value = command if isinstance(command, bytes) else json.dumps(command).encode()
            while True:
                try:
                    chosen_producer.produce(
                        self.names.commands,
                        value,
                        key or account or None,
                        target_partition,
                        on_delivery=note,
                    )
                except BufferError:
                    chosen_producer.poll(0.1)
                else:
                    break
        assert chosen_producer.flush(CONFIRM_S) == 0, "not confirmed in time"
        return [confirmed[number] for number in range(len(commands))]

    def partition_of(self, account: str) -> int:
        return partitioning.partition_of(account, self.partitions)

    def account_in(self, partition: int) -> str:
        """A new account name that belongs to this partition."""
        while True:
            self._count += 1
            name = f"account-{self._count}"
            if self.partition_of(name) == partition:
                return name

    def open(self, partition: int = 0, amount: int = 0) -> str:
        """Sends the commands that open a wallet and credit it, without waiting for outcomes."""
        account = self.account_in(partition)
        opening = {"kind": "open_account", "type": "wallet", "currency": "NGN", "id": "open"}
        self.send({**opening, "account": account})
        if amount:
            self.send({"kind": "credit", "account": account, "amount": amount, "id": "fund"})
        return account

    # Outcomes

    def outcome(self, position: Position, timeout_s: float = 20) -> AuditedOutcome:
        return self.outcomes([position], timeout_s)[0]

    def outcomes(
        self, positions: Sequence[Position], timeout_s: float = 20
    ) -> list[AuditedOutcome]:
        """The outcomes of the commands at these positions; the decision of a pending one."""
        books = self.audit.books

        def decided() -> bool:
            ended = not any(worker.running() for worker in self.workers)
            self.audit.update()
            missing = [
                position
                for position in positions
                if position.offset not in books[position.partition].outcomes
            ]
            if missing and ended:
                raise AllWorkersEnded(self.tails())
            assert not missing, f"{len(missing)} have no outcome, the first is {missing[0]}"
            return not any(
                position.offset in books[position.partition].undecided for position in positions
            )

        self.wait_until(decided, timeout_s)
        return [
            books[position.partition].decisions.get(position.offset)
            or books[position.partition].outcomes[position.offset]
            for position in positions
        ]

    def settle_and_audit(self) -> list[str]:
        """Waits until all is decided, stops the workers and returns the audit's differences."""
        # The brokers end a hanging transaction some time after its time-out.
        self.wait_until(self.audit.settled, 90)
        for worker in self.workers:
            if worker.running():
                worker.stop()
        return self.audit.verify()

    def wait_until(self, condition: Callable[[], object], timeout_s: float) -> None:
        """Like `eventually`, but a failure shows the last lines of the workers' logs."""
        try:
            eventually(condition, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tails()}") from None

    def tails(self) -> str:
        return "\n".join(worker.tail() for worker in self.workers)

    def _default_producer(self) -> Producer:
        if self._producer is None:
            self._producer = Producer({**self.client, "acks": "all", "compression.type": "zstd"})
        return self._producer


def wait_until_ready(worker: Worker) -> None:
    def ready() -> bool:
        assert worker.running() or worker.exit_code() is None, "it has ended"
        return worker.ready()

    try:
        eventually(ready, START_S)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{worker.tail()}") from None


@contextmanager
def worker_ledger(
    bootstrap: str, prefix: str, folder: Path, partitions: int = 2
) -> Iterator[WorkerLedger]:
    ledger = WorkerLedger(bootstrap, prefix, folder, partitions)
    ledger.make_topics()
    try:
        with Audit(ledger.client, ledger.names, partitions) as ledger.audit:
            yield ledger
    finally:
        for worker in ledger.workers:
            worker.kill()
