"""A real PostgreSQL on this machine, its data below one folder.

Rule: it listens on the loopback address only, asks for a password, and uses no Unix socket, whose
path may be too long. It must not know any table of ours.
"""

import tarfile
import tempfile
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from urllib.parse import quote, urlsplit

import psutil
import psycopg
from psycopg import sql

from compose.embedded import artifacts, ports, problems, processes
from compose.embedded.os_user import OsUser
from compose.embedded.problems import RuntimeProblem

DEFAULT_PORT = 5432
# What was written since the last checkpoint is written again after a kill, or before a stop.
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
ORPHANS_TIMEOUT_S = 10
USER = "streamledger"
DATABASE = "streamledger"
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
# For rows that come fast, at random places of their indexes: these stay in memory. After each
# checkpoint every page that changes is logged whole, and by default one comes with half a GiB. What
# falls out of memory is written by a process that has nothing else to do, not by who needs room. A
# new segment of the log is not filled with zeros first, which held up a commit for 70 ms.
SETTINGS = {
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "bgwriter_lru_maxpages": "1000",
    "wal_buffers": "64MB",
    "wal_init_zero": "off",
}
# Said by a server whose predecessor was killed, while that one's own children still end.
ORPHANS_ALIVE = "pre-existing shared memory block"


@dataclass(frozen=True)
class PostgresOptions:
    port: int | None = None
    first_port: int = DEFAULT_PORT
    fast_start: bool = False


class Server:
    """One database cluster, and the process that serves it."""

    def __init__(
        self,
        folder: Path,
        programs: Path,
        registry: processes.ProcessRegistry,
        logs: Path,
        password: str,
        account: OsUser,
        options: PostgresOptions,
    ) -> None:
        self._folder = account.folder(folder)
        self._programs = programs
        self._registry = registry
        self._logs = logs
        self._password = password
        self._account = account
        self._options = options
        self.port = 0
        self.process: processes.Process | None = None

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://{USER}:{quote(self._password, safe='')}@{self.address}/{database}"

    @property
    def address(self) -> str:
        return f"{ports.HOST}:{self.port}"

    def start(self, stop: threading.Event) -> str:
        """Starts the server, at the first start with a new database; returns its address as URL."""
        if self._options.port is not None:
            self.port = ports.require_free(self._options.port, "Postgres", "--postgres-port")
        else:
            self.port = ports.next_free(self._options.first_port)
        self._initialise(stop)
        try:
            self.serve(stop)
            self._create_database()
        except BaseException:
            self.stop()
            raise
        return self.url()

    def serve(self, stop: threading.Event) -> processes.Process:
        """Starts the process and waits until it answers; one that was killed comes back here."""
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        while True:
            process = self.launch()
            try:
                process.wait_until(self.answers, START_TIMEOUT_S, stop)
            except processes.Ended as ended:
                process.forget()
                if ORPHANS_ALIVE not in str(ended) or time.monotonic() > deadline:
                    raise
            else:
                return process

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            self.process = None

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _initialise(self, stop: threading.Event) -> None:
        """Makes the cluster under another name, so that one cut short is begun again."""
        if self._data.exists():
            self._account.give(self._data)
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder, prefix="new-") as scratch:
                made = Path(scratch, "data")
                password = Path(scratch, "password")
                password.write_text(self._password)
                self._account.give(Path(scratch))
                self._run_initdb(made, password, stop)
                made.rename(self._data)
        except OSError as error:
            raise problems.of_system(error, "making the database") from error

    def _run_initdb(self, made: Path, password: Path, stop: threading.Event) -> None:
        options = ["--username", USER, "--auth", "scram-sha-256", "--pwfile", str(password)]
        options += ["--no-locale", "--encoding", "UTF8", "--pgdata", str(made)]
        if self._options.fast_start:
            options.append("--no-sync")
        self._registry.spawn(
            "postgres-initdb",
            [*self._account.prefix, str(self._programs / "bin" / "initdb"), *options],
            log=self._logs / "postgres-initdb.log",
            address="",
            environment=ENVIRONMENT,
            user=self._account.user,
            group=self._account.group,
        ).succeed(START_TIMEOUT_S, stop)

    def launch(self) -> processes.Process:
        """Starts the process without waiting; one that was killed comes back at its address."""
        self._forget_stranger()
        settings = {
            **SETTINGS,
            "listen_addresses": ports.HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        if self._options.fast_start:
            settings["fsync"] = "off"  # outlives any process all the same, only not the machine
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        program = str(self._programs / "bin" / "postgres")
        self.process = self._registry.spawn(
            "postgres",
            [*self._account.prefix, program, "-D", str(self._data), *arguments],
            log=self._logs / "postgres.log",
            address=self.address,
            environment=ENVIRONMENT,
            user=self._account.user,
            group=self._account.group,
            stop_signal=SIGINT,  # ends sessions and writes a checkpoint; SIGTERM waits for clients
            stop_s=STOP_TIMEOUT_S,
        )
        return self.process

    def _forget_stranger(self) -> None:
        """After a crash of the machine the pid in the server's own lock file may be somebody
        else's, and the server would wait for it. A server of this folder has it as its working
        directory."""
        lock = self._data / "postmaster.pid"
        with suppress(FileNotFoundError, psutil.Error, ValueError):
            pid = int(lock.read_text().splitlines()[0])
            if Path(psutil.Process(pid).cwd()) != self._data.resolve():
                lock.unlink()

    def answers(self) -> bool:
        if self.process is None or not self.process.listens(self.port):
            return False
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise RuntimeProblem(
                    f"The database in {self._folder} was made with another password than the one "
                    "in secrets.env. Put that one back, or start with --fresh."
                ) from error
            return False
        return True

    def _create_database(self) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            known = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
            if known.fetchone() is None:
                name = sql.Identifier(DATABASE)
                connection.execute(sql.SQL("CREATE DATABASE {}").format(name))


def as_user(url: str, user: str, password: str) -> str:
    """The same database, for somebody else."""
    parts = urlsplit(url)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}").geturl()


def unpack(jar: Path, cache: Path, account: OsUser, stop: threading.Event) -> Path:
    """The folder with bin, lib and share, unpacked from the archive in the jar once."""
    parent = account.folder(cache / "postgres")
    target = parent / jar.stem
    with artifacts.only_one(cache, stop):
        if target.exists():
            return target
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent, prefix="new-") as scratch:
                whole = Path(scratch, "programs")
                unpack_archive(jar, whole)
                whole.rename(target)
        except OSError as error:
            raise problems.of_system(error, "unpacking Postgres") from error
    return target


def unpack_archive(jar: Path, target: Path) -> None:
    with zipfile.ZipFile(jar) as outer:
        name = next(name for name in outer.namelist() if name.endswith(".txz"))
        with outer.open(name) as inner:
            try:
                with tarfile.open(fileobj=inner, mode="r|xz") as archive:
                    archive.extractall(target, filter="data")
            except tarfile.CompressionError as error:
                raise RuntimeProblem(
                    "This Python was built without lzma, which unpacking Postgres needs: use "
                    "another Python, or name a running Postgres with --postgres."
                ) from error
