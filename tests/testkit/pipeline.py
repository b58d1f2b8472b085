"""A ledger as its users have it: topics, a processor and a sink as processes of their own, and the
environment in which a line of the docs runs beside them.

Nothing here looks inside; what is told is what a producer or a reader can see.
"""

import json
import os
import secrets
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from compose import provisioning
from compose.embedded import java, programs
from compose.embedded.artifacts import Silent
from schemas.topics import Names
from tests.conftest import beside, create, drop
from tests.testkit.programs import inherited
from tests.testkit.sink_rig import Sink
from tests.testkit.waiting import eventually
from tests.testkit.worker_processes import Worker

ROOT = Path(__file__).parents[2]
PARTITIONS = 8
START_S = 120.0
# A line of a page may start a Java machine or two, on a machine that has other things to do.
RUN_S = 600.0
CONSOLE = {
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
}


class Pipeline:
    def __init__(self, kafka: str, database: str, prefix: str, folder: Path) -> None:
        self.kafka = kafka
        self.prefix = prefix
        self.names = Names(prefix)
        self.folder = folder
        values = {"KAFKA_BROKERS": kafka, "TOPIC_PREFIX": prefix, "PARTITIONS": str(PARTITIONS)}
        self.settings = {**values, "DATABASE_URL": database, "LEDGER_ID": "straight"}
        provisioning.create_topics(kafka, provisioning.ProvisionSettings.model_validate(values))
        own = {**self.settings, "DATA": str(folder / "data")}
        self.worker = Worker(1, folder / "processor", own)
        self.sink = Sink(1, folder / "sink", self.settings)

    def start(self) -> None:
        self.worker.start()
        self.sink.start()
        try:
            # Both: whoever waits for a result does not wait for a sink that is still starting.
            eventually(lambda: self.worker.ready() and self.sink.ready(), START_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_text()}") from None

    def close(self) -> None:
        self.worker.kill()
        self.sink.kill()
        admin = AdminClient({"bootstrap.servers": self.kafka, "log_level": 0})
        mine = [t for t in admin.list_topics(timeout=10).topics if t.startswith(self.prefix)]
        for deleted in admin.delete_topics(mine).values():
            deleted.result(30)

    def environment(self, **more: str) -> dict[str, str]:
        own = inherited()
        path = f"{Path(sys.executable).parent}:{own.get('PATH', os.defpath)}"
        return {**own, **self.settings, "PATH": path, **more}

    def run(
        self,
        command: Sequence[str],
        given: str = "",
        exit_code: int | None = 0,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Beside the ledger; elsewhere than in the checkout, whose .env is not for it."""
        ended = subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=environment or self.environment(),
            input=given,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        if exit_code is not None:
            said = f"{command[-1]}\n{ended.stdout}\n{ended.stderr}\n{self.log_text()}"
            assert ended.returncode == exit_code, f"{ended.returncode}: {said}"
        return ended

    def streamledger(
        self, *words: str, given: str = "", exit_code: int | None = 0
    ) -> subprocess.CompletedProcess[str]:
        return self.run([sys.executable, "-m", "compose.cli.main", *words], given, exit_code)

    def log_text(self) -> str:
        return f"{self.worker.tail()}\n{self.sink.log_text()[-3000:]}"

    def shell(
        self, text: str, cwd: Path, given: str = "", exit_code: int | None = 0, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Lines as a person types them, with Kafka's own tools at hand."""
        console = tools(self.folder / "tools")
        environment = self.environment(**more)
        environment["PATH"] = f"{console}:{environment['PATH']}"
        command = ["bash", "-euo", "pipefail", "-c", text]
        return self.run(command, given, exit_code, cwd, environment)

    def send(
        self, command: Mapping[str, Any] | bytes, key: bytes | None, partition: int
    ) -> tuple[int, int]:
        """Any record, by any key, in any partition; where it lies."""
        told: list[tuple[int, int]] = []
        producer = Producer({"bootstrap.servers": self.kafka, "acks": "all"})
        value = command if isinstance(command, bytes) else json.dumps(command).encode()

        def delivered(error: object, message: Message) -> None:
            assert error is None, error
            told.append((message.partition() or 0, message.offset() or 0))

        producer.produce(self.names.commands, value, key, partition, on_delivery=delivered)
        assert producer.flush(30) == 0
        return told[0]

    def results(self, isolation: str = "read_committed") -> list[dict[str, Any]]:
        return [json.loads(value) for _, value in self.read(self.names.results, isolation)]

    def result(self, position: tuple[int, int], timeout_s: float = 30) -> dict[str, Any]:
        return self.results_of([position], timeout_s)[0]

    def results_of(
        self, positions: Sequence[tuple[int, int]], timeout_s: float = 30
    ) -> list[dict[str, Any]]:
        """The results of the commands there, once all of them have one."""
        found: dict[tuple[int, int], dict[str, Any]] = {}

        def there() -> bool:
            found.update({(r["partition"], r["offset"]): r for r in self.results()})
            return all(position in found for position in positions)

        try:
            eventually(there, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"no results of {positions}: {error}\n{self.log_text()}") from None
        return [found[position] for position in positions]

    def read(
        self, topic: str, isolation: str = "read_committed"
    ) -> list[tuple[bytes | None, bytes]]:
        """All that a reader sees in a topic by now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka,
                "group.id": "none",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        numbers = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        found = []
        while numbers:
            for message in consumer.consume(10_000, 0.1):
                error = message.error()
                if error is None:
                    found.append((message.key(), message.value() or b""))
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    numbers.discard(message.partition() or 0)
        consumer.close()
        return found


def tools(folder: Path) -> Path:
    """A folder with Kafka's console programs, as its own distribution names them."""
    if not folder.exists():
        folder.mkdir(parents=True)
        jars = programs.fetch([programs.KAFKA, programs.TOOLS], Silent(), threading.Event())
        found = java.find()
        for name, program in CONSOLE.items():
            words = [str(found.program), *found.flags, "-cp", ":".join(map(str, jars)), program]
            (folder / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            (folder / name).chmod(0o755)
    return folder


@contextmanager
def made(kafka: str, postgres: str, template: str, folder: Path) -> Iterator[Pipeline]:
    """With a database of its own."""
    name = f"pipeline_{secrets.token_hex(5)}"
    create(postgres, name, template)
    provisioning.migrate(beside(postgres, name))
    pipeline = Pipeline(kafka, beside(postgres, name), f"{name}-", folder)
    try:
        pipeline.start()
        yield pipeline
    finally:
        pipeline.close()
        drop(postgres, name)
