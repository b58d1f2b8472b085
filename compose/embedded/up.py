"""`streamledger up`: the whole system on this machine, in this order.

1. take the data folder; 2. stop what an earlier run left behind; 3. choose the ports; 4. fetch and
5. start Kafka and Postgres, at the same time; 6. topics and tables; 7. the services, at the
same time; 8. people to try it with, where there are none; 9. keep all of it running. Stopping goes
the other way, from wherever it had come to.
"""

import os
import shlex
import shutil
import threading
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psycopg
from pydantic import SecretStr

from compose import provisioning
from compose.acls import KafkaUser
from compose.embedded import data_dir as folders
from compose.embedded import demo, kafka, ports, postgres, processes, programs, report, security
from compose.embedded.artifacts import Progress
from compose.embedded.console import Display, short
from compose.embedded.data_dir import SIGNING_KEY, DataFolder
from compose.embedded.problems import Interrupted, RuntimeProblem
from compose.embedded.services import SERVICES, Service, answers, copies
from compose.embedded.supervisor import PartState, SupervisedPart, Supervisor
from ingress.auth import demo_users
from ingress.settings import IngressSettings
from plumbing.kafka import clients as kafka_clients
from plumbing.postgres import connection_pool as postgres_clients
from plumbing.settings import setting

SERVICE_TIMEOUT_S = 60
SERVICE_STOP_S = 15
PROBE_TIMEOUT_S = 5
NEEDED_BYTES = 300_000_000
CLIENT_ID = "up"
SETTINGS_FILE = "settings.sh"
SASL = ("MECHANISM", "USERNAME", "PASSWORD")
ANYWHERE = ("", "0.0.0.0", "::")

T = TypeVar("T")


class UpSettings(IngressSettings):
    """What `up` reads for itself. A signing key that is missing is made, so it may be missing."""

    signing_key: SecretStr | None = setting(None, "See the ingress.", secret=True)


@dataclass(frozen=True)
class UpOptions:
    """The options of the command line."""

    data: Path
    port: int | None = None
    kafka_port: int | None = None
    postgres_port: int | None = None
    fresh: bool = False
    brokers: int = 1
    processors: int = 1
    fast_start: bool = False
    # None: as it was the last time.
    secure: bool | None = None

    @property
    def copies(self) -> dict[str, int]:
        return {"processors": self.processors}


@dataclass(frozen=True)
class Store:
    """Kafka or Postgres, running: how clients find it, and its lines in the table."""

    address: str
    parts: list[SupervisedPart]


class Up:
    """One run, from taking the folder to giving it back."""

    def __init__(
        self, options: UpOptions, settings: UpSettings, display: Display, stop: threading.Event
    ) -> None:
        self._options = options
        self._settings = settings
        self._display = display
        self._stop = stop
        self._folder = DataFolder(options.data)
        self._supervisor = Supervisor(display, stop, self._tell)
        self._url = ""
        self._passwords: dict[str, str] = {}
        self._telling = threading.Lock()

    def run(self) -> None:
        """Returns once a signal has come and everything has stopped."""
        with ExitStack() as stack:
            self._take_folder()
            stack.callback(self._folder.release)
            stack.callback(self._supervisor.stop)
            with self._display.progress() as download:
                self._prepare()
                self._start(download)
            self._show()
            self._supervisor.watch()
            self._display.say("Stopping.")

    def _take_folder(self) -> None:
        try:
            self._folder.hold()
        except folders.Busy as busy:
            other = report.read(self._folder)
            where = f", {other.url}" if other and other.url else ""
            who = f" (pid {other.pid}{where})" if other else ""
            raise RuntimeProblem(
                f"StreamLedger already runs on {self._folder.path}{who}. Stop it with "
                "`streamledger down`, or choose another --data."
            ) from busy

    def _prepare(self) -> None:
        self._tell(())
        self._check_yours()
        left = self._folder.processes.stop_stale()
        if left:
            names = ", ".join(left)
            self._display.say(f"  stopped what an earlier run had left behind: {names}")
        if self._options.fresh:
            self._folder.clear()
            self._tell(())
        free = shutil.disk_usage(self._folder.path).free
        if free < NEEDED_BYTES:
            raise RuntimeProblem(
                f"The disk is full: {free / 1e6:.0f} MB are free in {self._folder.path}, "
                f"{NEEDED_BYTES / 1e6:.0f} MB are needed."
            )
        self._port = self._choose_port()
        self._check_ports()
        self._choose_security()

    def _choose_port(self) -> int:
        """The HTTP port of the command line or of a setting, else the next free one."""
        wanted_port = self._options.port
        if wanted_port is None and "http_port" in self._settings.model_fields_set:
            wanted_port = self._settings.http_port
        if wanted_port is not None:
            return ports.require_free(wanted_port, "HTTP", "--port")
        return ports.next_free(self._settings.http_port)

    def _check_ports(self) -> None:
        """Before anything is started, what can be known to fail."""
        if self._options.kafka_port is not None:
            ports.require_free(self._options.kafka_port, "Kafka", "--kafka-port")
        if self._options.postgres_port is not None:
            ports.require_free(self._options.postgres_port, "Postgres", "--postgres-port")

    def _check_yours(self) -> None:
        """Whether what somebody else runs is there: before anything of ours is stopped."""
        if self._settings.kafka_brokers is not None:
            if self._options.secure is not None:
                raise RuntimeProblem(
                    "--secure is for the embedded Kafka; set KAFKA_SECURITY_PROTOCOL for your own."
                )
            admin = kafka_clients.admin(self._settings, CLIENT_ID)
            if (why := kafka_clients.unreachable_reason(admin, PROBE_TIMEOUT_S)) is not None:
                raise RuntimeProblem(
                    f"No Kafka answers at {self._settings.brokers} (KAFKA_BROKERS): {why}."
                )
        elif self._settings.kafka_security_protocol != "PLAINTEXT":
            raise RuntimeProblem(
                "KAFKA_SECURITY_PROTOCOL is for a Kafka of your own; name it in KAFKA_BROKERS."
            )
        if self._settings.database_url is not None:
            reach_postgres(self._settings.database_url)

    def _choose_security(self) -> None:
        """A secured Kafka stays secured until --no-secure."""
        if self._settings.kafka_brokers is not None:
            return
        if self._options.secure is False:
            self._folder.open_to_all()
        elif self._options.secure or self._folder.secured:
            self._passwords = self._folder.passwords(security.USERS)

    def _start(self, download: Progress) -> None:
        brokers, database = self._start_stores(download)
        with self._display.step("topics and tables"):
            provisioning.create_topics(brokers, self._as_operator())
            provisioning.migrate(database, self._role_passwords())
        found = self._found(brokers, database)
        self._write_settings(brokers, found)
        environment = {**os.environ, **found}
        password = self._demo_password(brokers, database)
        parts = [
            self._launched(service, number, environment)
            for service in SERVICES
            for number in range(1, copies(service, self._options.copies) + 1)
        ]
        results(self._together([partial(self._wait_for, part) for part in parts]))
        if self._wants_demo():
            self._make_demo(database, password)

    def _make_demo(self, database: str, password: str) -> None:
        with self._display.step("demo data"):
            prefix, currency = self._settings.api_v1_prefix, self._settings.default_currency
            created = demo.seed(self._url, database, prefix, currency, password)
        if password != demo_users.PASSWORD:
            self._show_password(created, password)

    def _show_password(self, emails: list[str], password: str) -> None:
        if emails:
            names = ", ".join(emails)
            self._display.say(f"The password of {names}, shown only now: {password}")

    def _demo_password(self, brokers: str, database: str) -> str:
        """The README's where nobody else reaches it; else users who have that one get a random one
        before anything is served."""
        hosts = [self._settings.http_host, urlsplit(database).hostname or ""]
        hosts += [each.rpartition(":")[0] for each in brokers.split(",")]
        if all(map(demo_users.is_loopback, hosts)):
            return demo_users.PASSWORD
        password = demo.random_password()
        if not self._settings.production:
            # Shown at once: the rest of the start may fail.
            self._show_password(demo.replace_known_password(database, password), password)
        return password

    def _wants_demo(self) -> bool:
        """As DEMO_DATA says; else wherever all of the ledger is ours."""
        if "demo_data" in self._settings.model_fields_set:
            return self._settings.demo_data
        own = self._settings.kafka_brokers is None and self._settings.database_url is None
        return own and not self._settings.production

    def _start_stores(self, download: Progress) -> tuple[str, str]:
        """Kafka and Postgres; one that has started is stopped with the rest if the other fails."""
        futures = self._together(
            [partial(self._start_kafka, download), partial(self._start_postgres, download)]
        )
        for future in futures:
            if future.exception() is None:
                for part in future.result().parts:
                    self._supervisor.add(part)
        brokers, database = (store.address for store in results(futures))
        return brokers, database

    def _together(self, tasks: Sequence[Callable[[], T]]) -> list[Future[T]]:
        """Does all of them at once; when one fails the others do not go on."""
        with ThreadPoolExecutor(len(tasks)) as pool:
            futures = [pool.submit(task) for task in tasks]
            for future in as_completed(futures):
                if future.exception() is not None:
                    self._stop.set()
        return futures

    def _start_kafka(self, download: Progress) -> Store:
        if self._settings.kafka_brokers is not None:
            return yours("kafka", self._settings.kafka_brokers, self._settings.kafka_brokers)
        options = kafka.KafkaOptions(
            brokers=self._options.brokers,
            port=self._options.kafka_port,
            fast_start=self._options.fast_start,
        )
        if self._passwords:
            password = self._passwords[security.ADMIN]
            options = replace(
                options,
                protocol=security.PROTOCOL,
                properties=security.properties(password),
                client=security.client(security.ADMIN, password),
            )
        with self._display.step("Kafka"):
            cluster = programs.cluster(self._folder, options, self._stop, download)
            bootstrap = cluster.start(self._stop)
        if self._passwords:
            names, ledger_id = self._settings.topics, self._settings.ledger_id
            try:
                security.admit(cluster.client, self._passwords, names, ledger_id)
            except BaseException:
                cluster.stop()
                raise
        parts = [
            SupervisedPart(
                name=cluster.name(number),
                address=cluster.address(number),
                port=cluster.ports[number].broker,
                answers=partial(cluster.serves, number),
                launch=partial(cluster.start_broker, number),
                process=process,
                state=PartState.READY,
            )
            for number, process in cluster.processes.items()
        ]
        return Store(bootstrap, parts)

    def _start_postgres(self, download: Progress) -> Store:
        if (url := self._settings.database_url) is not None:
            its = urlsplit(url)
            return yours("postgres", url, f"{its.hostname}:{its.port or postgres.DEFAULT_PORT}")
        options = postgres.PostgresOptions(
            port=self._options.postgres_port, fast_start=self._options.fast_start
        )
        with self._display.step("Postgres"):
            server = programs.server(self._folder, options, self._stop, download)
            url = server.start(self._stop)
        part = SupervisedPart(
            name="postgres",
            address=server.address,
            port=server.port,
            answers=server.answers,
            launch=server.launch,
            process=server.process,
            state=PartState.READY,
        )
        return Store(url, [part])

    def _launched(
        self, service: Service, number: int, environment: dict[str, str]
    ) -> SupervisedPart:
        if self._stop.is_set():
            raise Interrupted
        several = copies(service, self._options.copies) > 1
        name = f"{service.name}-{number}" if several else service.name
        public = service.first_port is None
        port = self._port if service.first_port is None else ports.next_free(service.first_port)
        host = self._settings.http_host if public else ports.HOST
        url = f"http://{ports.HOST if host in ANYWHERE else host}:{port}"
        launch = partial(
            self._folder.processes.spawn,
            name,
            service.command,
            log=self._folder.logs / f"{name}.log",
            address=url,
            environment=service.environment(
                {
                    **environment,
                    **self._as_user(service.name),
                    **self._as_role(service, environment["DATABASE_URL"]),
                    service.port_setting: str(port),
                    "DATA": str(self._folder.path.absolute() / name),
                }
            ),
            folder=Path.cwd(),
            stop_s=SERVICE_STOP_S,
        )
        if public:
            self._url = url
        part = SupervisedPart(name, url, port, partial(answers, url + service.ready_path), launch)
        self._supervisor.launch(part)
        return part

    def _wait_for(self, part: SupervisedPart) -> None:
        with self._display.step(part.name):
            self._supervisor.wait(part, SERVICE_TIMEOUT_S)

    def _as_user(self, user: str) -> dict[str, str]:
        """Settings with which the embedded Kafka takes one for that user, where it asks."""
        return security.settings(user, self._passwords[user]) if self._passwords else {}

    def _role_passwords(self) -> dict[str, str]:
        """Of the services' roles in the embedded Postgres; somebody else's is left as it is."""
        if self._settings.database_url is not None:
            return {}
        kept = self._folder.secrets()
        logins = (service.login for service in SERVICES if service.login is not None)
        return {role: kept[secret] for role, secret in logins}

    def _as_role(self, service: Service, database: str) -> dict[str, str]:
        """The embedded Postgres lets each service in as its own role."""
        if service.login is None or self._settings.database_url is not None:
            return {}
        role, secret = service.login
        password = self._folder.secrets()[secret]
        return {"DATABASE_URL": postgres.as_user(database, role, password)}

    def _as_operator(self) -> UpSettings:
        values = {**self._settings.model_dump(by_alias=True), **self._as_user(KafkaUser.OPERATOR)}
        return UpSettings.model_validate(values) if self._passwords else self._settings

    def _found(self, brokers: str, database: str) -> dict[str, str]:
        """The settings that only this run knows."""
        found = {"KAFKA_BROKERS": brokers, "DATABASE_URL": database}
        if self._settings.signing_key is None:
            found[SIGNING_KEY] = self._folder.secrets()[SIGNING_KEY]
        return found

    def _write_settings(self, brokers: str, found: dict[str, str]) -> None:
        """For people: all of them, as the operator; and what each user of Kafka needs."""
        exported(self._folder.path / SETTINGS_FILE, found | self._as_user(KafkaUser.OPERATOR))
        users = self._folder.path / folders.USERS
        if self._passwords:
            users.mkdir(mode=0o700, exist_ok=True)
        for user, password in self._passwords.items():
            exported(users / f"{user}.sh", {"KAFKA_BROKERS": brokers, **self._as_user(user)})
            lines = security.java_properties(user, password).items()
            text = "".join(f"{name}={value}\n" for name, value in lines)
            processes.write_private(users / f"{user}.properties", text)

    def _tell(self, parts: Sequence[SupervisedPart]) -> None:
        rows = [report.PartReport(p.name, p.address, str(p.state), p.log) for p in parts]
        with self._telling:
            report.write(self._folder, self._url, rows)

    def _show(self) -> None:
        self._display.say("")
        self._display.table([part.row() for part in self._supervisor.parts])
        users = short(str(self._folder.path / folders.USERS))
        secure = (
            f"  (. {users}/{KafkaUser.PRODUCER}.sh; streamledger produce --wait)",
            f"  (. {users}/{KafkaUser.ANALYST}.sh; streamledger consume --from-beginning)",
            f"Kafka authenticates clients; the users that are not services are in {users}.",
        )
        for line in (
            "",
            "StreamLedger is ready. Try next:",
            f"  curl {self._url}/health",
            "  streamledger status",
            f"  . {short(str(self._folder.path / SETTINGS_FILE))} && streamledger topics check",
            *(secure if self._passwords else ()),
            f"Data is kept in {self._folder.path}. Ctrl-C stops everything.",
        ):
            self._display.say(line)


def reach_postgres(url: str) -> None:
    try:
        psycopg.connect(url, connect_timeout=PROBE_TIMEOUT_S).close()
    except psycopg.Error as error:
        first = postgres_clients.first_line(error)
        if postgres_clients.is_refusal(error):
            raise RuntimeProblem(
                f"Postgres refuses the connection (DATABASE_URL): {first}."
            ) from error
        raise RuntimeProblem(
            f"No Postgres answers at the address given (DATABASE_URL): {first}."
        ) from error


# What a file of this folder sets together with each address.
OWN_SETTINGS = {
    "KAFKA_BROKERS": ("KAFKA_SECURITY_PROTOCOL", *(f"KAFKA_SASL_{x}" for x in SASL)),
    "DATABASE_URL": (),
    SIGNING_KEY: (),
}


def forget_own_settings(data: Path, environment: MutableMapping[str, str]) -> list[str]:
    """In a shell that has read this folder's settings, `up` is what they tell of: it does not take
    its own Kafka and Postgres for somebody else's. Returns the names of what it takes away."""
    try:
        lines = (data / SETTINGS_FILE).read_text().splitlines()
    except OSError:
        return []
    words = (word for line in lines for word in shlex.split(line))
    own = dict(word.split("=", 1) for word in words if "=" in word)
    forgotten = []
    for name, beside in OWN_SETTINGS.items():
        if name in own and environment.get(name) == own[name]:
            forgotten += [each for each in (name, *beside) if each in environment]
    for name in forgotten:
        del environment[name]
    return forgotten


def exported(path: Path, settings: Mapping[str, str]) -> None:
    """A private file that a shell reads."""
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    processes.write_private(path, "".join(lines))


def yours(name: str, address: str, shown: str) -> Store:
    """One that somebody else runs."""
    return Store(address, [SupervisedPart(name, shown, 0, lambda: True, state=PartState.YOURS)])


def results(futures: Sequence[Future[T]]) -> list[T]:
    """What they gave; of several failures the one raises that was the cause."""
    for future in sorted(futures, key=was_interrupted):
        future.result()
    return [future.result() for future in futures]


def was_interrupted(future: Future[T]) -> bool:
    return isinstance(future.exception(), Interrupted)
