"""A small ledger on any broker: its topics, its workers, what is sent to it and what comes of that.

For tests of one bad case each; the outcomes are read by the audit, as everywhere here.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient

from compose import provisioning
from schemas import partitioning, topics
from tests.crash.audit import Audit
from tests.crash.audited_books import AuditedOutcome
from tests.testkit.waiting import eventually
from tests.testkit.worker_processes import Worker

CONFIRM_S = 30.0
START_S = 40.0
# Whoever takes over from a worker that was killed waits for as long.
SESSION_MS = 3_000


class AllWorkersEnded(Exception):
    """No worker is left to wait for."""


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
        values = {
            "KAFKA_BROKERS": self.bootstrap,
            "TOPIC_PREFIX": self.prefix,
            "PARTITIONS": self.partitions,
        }
        settings = provisioning.ProvisionSettings.model_validate(values)
        provisioning.create_topics(self.bootstrap, settings)

    def make_again(self, topic: str) -> None:
        """Deletes a topic with all that is in it, and makes it empty."""
        self.admin.delete_topics([topic])[topic].result(CONFIRM_S)
        eventually(lambda: topic not in self.admin.list_topics(timeout=10).topics)
        self.make_topics()

    def delete_topics(self) -> None:
        mine = [
            topic
            for topic in self.admin.list_topics(timeout=10).topics
            if topic.startswith(self.prefix)
        ]
        for deleted in self.admin.delete_topics(mine).values():
            deleted.result(CONFIRM_S)

    # Workers

    def worker(self, data: str = "", **settings: str) -> Worker:
        """A worker that has been started; with a data folder of its own unless one is named."""
        return self.start(data, settings)

    def start(self, data: str, settings: Mapping[str, str], code: Path | None = None) -> Worker:
        """The same; `code` is the folder of its sources, if not ours."""
        number = len(self.workers) + 1
        told = {
            "KAFKA_BROKERS": self.bootstrap,
            "TOPIC_PREFIX": self.prefix,
            "PARTITIONS": str(self.partitions),
            "DATA": str(self._folder / (data or f"data-{number}")),
            "SESSION_TIMEOUT_MS": str(SESSION_MS),
        }
        made = Worker(number, self._folder / f"worker-{number}", {**told, **settings}, code)
        self.workers.append(made)
        made.start()
        return made

    def ready(self, data: str = "", **settings: str) -> Worker:
        made = self.worker(data, **settings)
        wait_until_ready(made)
        return made

    def refused(self, data: str = "", **settings: str) -> str:
        """What a worker says that refuses to run."""
        made = self.worker(data, **settings)
        assert made.wait(START_S) == 1, made.tail()
        return made.told()

    # Commands

    def send(
        self,
        command: Mapping[str, Any] | bytes,
        key: bytes | None = None,
        partition: int | None = None,
        producer: Producer | None = None,
    ) -> Position:
        """Of a command the key and the partition are its account's, unless told otherwise."""
        return self.send_all([(command, key, partition)], producer)[0]

    def send_all(
        self,
        commands: Sequence[tuple[Mapping[str, Any] | bytes, bytes | None, int | None]],
        producer: Producer | None = None,
    ) -> list[Position]:
        confirmed: dict[int, Position] = {}
        by = producer or self._plain()
        for number, (command, key, partition) in enumerate(commands):
            account = b"" if isinstance(command, bytes) else command["account"].encode()
            to = self.home(account.decode()) if partition is None else partition

            def note(error: object, message: Message, number: int = number) -> None:
                assert error is None, error
                confirmed[number] = Position(message.partition() or 0, message.offset() or 0)

            value = command if isinstance(command, bytes) else json.dumps(command).encode()
            while True:
                try:
                    by.produce(
                        self.names.commands, value, key or account or None, to, on_delivery=note
                    )
                except BufferError:
                    by.poll(0.1)
                else:
                    break
        assert by.flush(CONFIRM_S) == 0, "not confirmed in time"
        return [confirmed[number] for number in range(len(commands))]

    def home(self, account: str) -> int:
        return partitioning.partition_of(account, self.partitions)

    def account_in(self, partition: int) -> str:
        """A name that was not given before, of an account in this partition."""
        while True:
            self._count += 1
            name = f"account-{self._count}"
            if self.home(name) == partition:
                return name

    def open(self, partition: int = 0, amount: int = 0) -> str:
        """A wallet with money in it; the commands are sent, not waited for."""
        account = self.account_in(partition)
        opening = {"kind": "open_account", "type": "wallet", "currency": "NGN", "id": "open"}
        self.send({**opening, "account": account})
        if amount:
            self.send({"kind": "credit", "account": account, "amount": amount, "id": "fund"})
        return account

    # Outcomes

    def outcome(self, at: Position, timeout_s: float = 20) -> AuditedOutcome:
        return self.outcomes([at], timeout_s)[0]

    def outcomes(
        self, positions: Sequence[Position], timeout_s: float = 20
    ) -> list[AuditedOutcome]:
        """The outcomes of the commands there; of pending ones the decisions."""
        books = self.audit.books

        def decided() -> bool:
            ended = not any(worker.running() for worker in self.workers)
            self.audit.update()
            missing = [at for at in positions if at.offset not in books[at.partition].told]
            if missing and ended:
                raise AllWorkersEnded(self.tails())
            assert not missing, f"{len(missing)} have no outcome, the first is {missing[0]}"
            return not any(at.offset in books[at.partition].undecided for at in positions)

        self.until(decided, timeout_s)
        return [
            books[at.partition].decided.get(at.offset) or books[at.partition].told[at.offset]
            for at in positions
        ]

    def whole(self) -> list[str]:
        """Settles, stops all workers, and gives every difference."""
        # A transaction that hangs is ended by its time-out, and that by the brokers' next look.
        self.until(self.audit.settled, 90)
        for worker in self.workers:
            if worker.running():
                worker.stop()
        return self.audit.verify()

    def until(self, condition: Callable[[], object], timeout_s: float) -> None:
        """As `eventually`, and with what the workers said last where it does not come true."""
        try:
            eventually(condition, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tails()}") from None

    def tails(self) -> str:
        return "\n".join(worker.tail() for worker in self.workers)

    def _plain(self) -> Producer:
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
