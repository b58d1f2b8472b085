"""A real Apache Kafka in KRaft mode: brokers on this machine, each of them a controller too.

Rule: what is said to be ready has done its first transaction and its first group join already, so
that nobody waits for those. Settings of brokers are here; it must not know any topic of ours.
"""

import json
import os
import secrets
import shutil
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from compose.embedded import java, ports, processes
from compose.embedded.problems import Interrupted, RuntimeProblem

DEFAULT_PORT = 9092
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
PROBE_TIMEOUT_S = 0.5
WARM_UP_TIMEOUT_S = 30
TRANSACTION_TIMEOUT_MS = 15_000
WARM_UP = "streamledger-warm-up"
STOPPED_CLEANLY = 143  # 128 + SIGTERM: the exit code of a JVM after SIGTERM
INTERNAL_PARTITIONS = 8
JVM_FLAGS = (
    "-XX:+UseSerialGC",
    # Room for short-lived objects: with less, garbage collection pauses several times a second.
    "-Xms192m",
    "-Xmn128m",
    "-Xmx512m",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
)
FAST_START_FLAGS = ("-XX:TieredStopAtLevel=1",)
CLIENT: dict[str, str | int | float | bool] = {
    "log_level": 0,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 200,
}
LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
"""


@dataclass(frozen=True)
class KafkaOptions:
    """What may differ from one cluster to the next. `properties` go over ours, for every broker;
    `client` is what a client needs to reach them, where that is more than the address; `protocol`
    is what clients and brokers speak, whose other needs are among the properties."""

    brokers: int = 1
    protocol: str = "PLAINTEXT"
    port: int | None = None
    first_port: int = DEFAULT_PORT
    fast_start: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    client: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ports:
    broker: int
    controller: int


class Cluster:
    """Brokers numbered from 1, with their data below `folder`."""

    def __init__(
        self,
        folder: Path,
        jars: Sequence[Path],
        registry: processes.ProcessRegistry,
        logs: Path,
        options: KafkaOptions,
    ) -> None:
        self._folder = folder
        self._class_path = ":".join(map(str, jars))
        self._registry = registry
        self._logs = logs
        self._options = options
        self._java = java.find()
        self.ports: dict[int, Ports] = {}
        self._admin: AdminClient | None = None
        self.processes: dict[int, processes.Process] = {}

    @property
    def bootstrap(self) -> str:
        return ",".join(map(self.address, self.ports))

    @property
    def client(self) -> dict[str, str | int | float | bool]:
        """Settings of a client that reaches these brokers."""
        return {"bootstrap.servers": self.bootstrap, **CLIENT, **self._options.client}

    def start(self, stop: threading.Event) -> str:
        """Starts all brokers, waits until they serve, warms them up; returns their addresses."""
        self.ports = choose_ports(self._options)
        self._format(stop)
        try:
            for number in self.ports:
                self.start_broker(number)
            self.wait_until_serving(stop)
            if stop.is_set():
                raise Interrupted
            warm_up(self.client, replicas(self._options.brokers))
        except BaseException:
            self.stop()
            raise
        return self.bootstrap

    def start_broker(self, number: int) -> processes.Process:
        """Starts one broker without waiting; one that was killed comes back at its address."""
        path = self._configure(number)
        name = self.name(number)
        flags = JVM_FLAGS + (FAST_START_FLAGS if self._options.fast_start else ())
        self.processes[number] = self._registry.spawn(
            name,
            self._command(*flags, "kafka.Kafka", str(path)),
            log=self._logs / f"{name}.log",
            address=self.address(number),
            environment={"LC_ALL": "C"},
            stop_s=STOP_TIMEOUT_S,
            together="kafka",  # the last one could hand its partitions to nobody
        )
        return self.processes[number]

    def wait_until_serving(self, stop: threading.Event) -> None:
        """Until all brokers that were started answer and are known to each other."""
        for number, process in self.processes.items():
            process.wait_until(partial(self.serves, number), START_TIMEOUT_S, stop)

    def serves(self, number: int) -> bool:
        """Whether it is this broker that listens at its port, and the others know of it."""
        if not self.processes[number].listens(self.ports[number].broker):
            return False
        if self._admin is None:
            self._admin = AdminClient(self.client)
        try:
            known = self._admin.list_topics(timeout=PROBE_TIMEOUT_S).brokers
        except KafkaException:
            return False
        return number in known

    def address(self, number: int) -> str:
        return f"{ports.HOST}:{self.ports[number].broker}"

    def name(self, number: int) -> str:
        return "kafka" if self._options.brokers == 1 else f"kafka-{number}"

    def stop(self) -> None:
        """Stops all brokers at the same time."""
        if self.processes:
            with ThreadPoolExecutor(len(self.processes)) as pool:
                list(pool.map(processes.Process.stop, self.processes.values()))
            self.processes.clear()
            self._admin = None

    def _data(self, number: int) -> Path:
        return self._folder / f"data-{number}"

    def _configure(self, number: int) -> Path:
        properties = settings(number, self.ports, self._data(number), self._options)
        path = self._folder / f"{number}.properties"
        processes.write_private(
            path, "".join(f"{key}={value}\n" for key, value in properties.items())
        )
        return path

    def _command(self, *arguments: str) -> list[str]:
        return [
            str(self._java.program),
            *self._java.flags,
            f"-Djava.io.tmpdir={self._folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}",
            "-cp",
            self._class_path,
            *arguments,
        ]

    def _format(self, stop: threading.Event) -> None:
        """Makes the brokers' data folders, once; a first start that was cut is begun again."""
        (self._folder / "tmp").mkdir(parents=True, exist_ok=True)
        (self._folder / "log4j2.properties").write_text(LOGGING)
        described = self._folder / "cluster.json"
        if described.exists():
            made_with = json.loads(described.read_text())["brokers"]
            if made_with != self._options.brokers:
                raise RuntimeProblem(
                    f"The Kafka in {self._folder} was made with {made_with} broker(s), not "
                    f"{self._options.brokers}. Give that number, another --data, or --fresh."
                )
            return
        cluster_id = draw_cluster_id()
        with ThreadPoolExecutor(len(self.ports)) as pool:
            list(pool.map(lambda n: self._format_broker(n, cluster_id, stop), self.ports))
        about = {"id": cluster_id, "brokers": self._options.brokers}
        processes.write_private(described, json.dumps(about))

    def _format_broker(self, number: int, cluster_id: str, stop: threading.Event) -> None:
        shutil.rmtree(self._data(number), ignore_errors=True)
        flags = (*JVM_FLAGS, *FAST_START_FLAGS)
        arguments = ("format", "--cluster-id", cluster_id, "--config", str(self._configure(number)))
        tool = self._registry.spawn(
            f"kafka-format-{number}",
            self._command(*flags, "kafka.tools.StorageTool", *arguments),
            log=self._logs / "kafka-format.log",
            address="",
            environment={"LC_ALL": "C"},
        )
        tool.succeed(START_TIMEOUT_S, stop)


def settings(
    number: int, everyone: Mapping[int, Ports], data: Path, options: KafkaOptions
) -> dict[str, object]:
    """The properties of one broker."""
    copies = replicas(options.brokers)
    in_sync = 2 if copies > 2 else 1
    client = f"{options.protocol}://{ports.HOST}:{everyone[number].broker}"
    controller = f"CONTROLLER://{ports.HOST}:{everyone[number].controller}"
    cores = os.cpu_count() or 2
    voters = [f"{n}@{ports.HOST}:{its.controller}" for n, its in everyone.items()]
    properties: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": number,
        "controller.quorum.voters": ",".join(voters),
        "listeners": f"{client},{controller}",
        "advertised.listeners": client,
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": options.protocol,
        "log.dirs": data,
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "auto.create.topics.enable": "false",
        "unclean.leader.election.enable": "false",
        "transaction.max.timeout.ms": TRANSACTION_TIMEOUT_MS,
        # Else a broker that was killed is kept out until its nine-second session has ended.
        "broker.session.timeout.ms": 3_000,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        # With more than the cores, each step of a request wakes another thread, and a cold one.
        "num.io.threads": min(8, max(2, cores)),
        "num.network.threads": min(3, max(1, cores // 2)),
    }
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        properties[f"{topic}.replication.factor"] = copies
        properties[f"{topic}.num.partitions"] = INTERNAL_PARTITIONS
    for topic in ("transaction.state.log", "share.coordinator.state.topic"):
        properties[f"{topic}.min.isr"] = in_sync
    return properties | dict(options.properties)


def replicas(brokers: int) -> int:
    return min(3, brokers)


def choose_ports(options: KafkaOptions) -> dict[int, Ports]:
    """A port for clients and one for controllers, for each broker."""
    taken: list[int] = []
    if options.port is not None:
        taken.append(ports.require_free(options.port, "Kafka", "--kafka-port"))
    while len(taken) < 2 * options.brokers:
        taken.append(ports.next_free(taken[-1] + 1 if taken else options.first_port))
    clients, controllers = taken[: options.brokers], taken[options.brokers :]
    pairs = zip(clients, controllers, strict=True)
    return {number: Ports(*pair) for number, pair in enumerate(pairs, start=1)}


def draw_cluster_id() -> str:
    """A random id; the format tool takes one that begins with a dash for an option."""
    while (drawn := urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("="))[0] == "-":
        continue
    return drawn


def warm_up(client: Mapping[str, str | int | float | bool], copies: int) -> None:
    """Does one transaction and one group join, which cost seconds on a fresh broker, and cleans
    up behind itself."""
    admin = AdminClient(dict(client))
    name = f"{WARM_UP}-{secrets.token_hex(4)}"
    try:
        admin.create_topics([NewTopic(name, 1, copies)])[name].result(WARM_UP_TIMEOUT_S)
        producer = Producer(
            {**client, "transactional.id": name, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
        )
        producer.init_transactions(WARM_UP_TIMEOUT_S)
        producer.begin_transaction()
        producer.produce(name, b"")
        producer.commit_transaction(WARM_UP_TIMEOUT_S)
        consumer = Consumer(
            {
                **client,
                "group.id": name,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        consumer.subscribe([name])
        deadline = time.monotonic() + WARM_UP_TIMEOUT_S
        while consumer.poll(0.2) is None and time.monotonic() < deadline:
            continue
        consumer.close()
        admin.delete_topics([name])[name].result(WARM_UP_TIMEOUT_S)
        admin.delete_consumer_groups([name])[name].result(WARM_UP_TIMEOUT_S)
    except KafkaException as error:
        raise RuntimeProblem(f"Kafka runs but does not serve: {error.args[0].str()}.") from error
