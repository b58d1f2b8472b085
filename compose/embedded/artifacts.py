"""The programs that the embedded runtime runs, fetched once and held to a lock.

Rule: a file is in the cache only when its size and SHA-256 were those of `artifacts.lock`; it is
fetched into a folder of its own and renamed into place, so a cut download leaves nothing that could
be taken for whole. Nothing is resolved at run time. It must not know what the files are for.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from compose.embedded import problems
from compose.embedded.problems import Interrupted, RuntimeProblem

LOCK_PATH = Path(__file__).with_name("artifacts.lock")
PARALLEL_DOWNLOADS = 4
TRIES = 3
NETWORK_TIMEOUT_S = 20
LOCK_POLL_S = 0.1
LOCK_LINE = re.compile(r"(?P<coordinate>\S+) (?P<sha256>[0-9a-f]{64}) (?P<size>[0-9]+)")


@dataclass(frozen=True)
class Artifact:
    """One line of the lock; coordinate is group:artifact:version[:classifier]."""

    coordinate: str
    sha256: str
    size: int

    @property
    def path(self) -> Path:
        """Where the file lies below the cache."""
        group, *names = self.coordinate.split(":")
        return Path("artifacts", group, "-".join(names) + ".jar")

    def check(self, path: Path) -> None:
        size = path.stat().st_size
        if size != self.size:
            raise Cut(f"{self.coordinate} has {size} bytes instead of {self.size}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise RuntimeProblem(
                f"Wrong checksum for {self.coordinate}: the lock says sha256 {self.sha256}, "
                f"the file has {found}. It was not used."
            )


class Cut(Exception):
    """A download ended early, or did not begin."""


class Progress(Protocol):
    """Receives how far the downloads are, from several threads."""

    def expect(self, size: int) -> None: ...
    def advance(self, size: int) -> None: ...


class Silent:
    """No display."""

    def expect(self, size: int) -> None:
        pass

    def advance(self, size: int) -> None:
        pass


class ArtifactSource(Protocol):
    """Fetches one artifact into an empty folder and names the file; raises Cut when the network or
    the registry does not give it. `advance` is called as bytes arrive and may raise to give up."""

    def __call__(self, coordinate: str, folder: Path, advance: Callable[[int], None]) -> Path: ...


def read_lock(text: str) -> dict[str, tuple[Artifact, ...]]:
    """The sections of a lock by name."""
    sections: dict[str, list[Artifact]] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1]
            sections[section] = []
        elif (match := LOCK_LINE.fullmatch(line)) and section:
            size = int(match["size"])
            sections[section].append(Artifact(match["coordinate"], match["sha256"], size))
        else:
            raise RuntimeProblem(f"Line {number} of the artifact lock cannot be read: {line!r}.")
    return {name: tuple(artifacts) for name, artifacts in sections.items()}


def locked(section: str) -> tuple[Artifact, ...]:
    return read_lock(LOCK_PATH.read_text())[section]


def platform_name() -> str:
    """This machine as the lock's sections name it, for example linux-amd64."""
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64v8", "arm64": "arm64v8"}
    name = f"{sys.platform}-{machine.get(platform.machine().lower(), platform.machine())}"
    supported = [s.removeprefix("postgres ") for s in read_lock(LOCK_PATH.read_text()) if " " in s]
    musl = platform.libc_ver()[0] != "glibc" and any(Path("/lib").glob("ld-musl-*"))
    if name not in supported or musl:
        raise RuntimeProblem(
            f"No embedded Kafka and Postgres for {name}{' without glibc' if musl else ''} (there "
            f"are: {', '.join(supported)}). Name your own with --kafka and --postgres, or use "
            "compose/compose.yaml."
        )
    return name


def user_cache() -> Path:
    """This project's folder in the user's cache."""
    home = Path.home()
    default = home / "Library/Caches" if sys.platform == "darwin" else home / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "streamledger"


@contextmanager
def only_one(cache: Path, stop: threading.Event) -> Iterator[None]:
    """One process at a time changes the cache; the lock dies with its holder."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        file = (cache / "lock").open("w")
    except OSError as error:
        raise problems.of_system(error, f"keeping downloads in {cache}") from error
    with file:
        while not taken(file):
            if stop.wait(LOCK_POLL_S):
                raise Interrupted
        yield


def taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def ensure(
    artifacts: Sequence[Artifact],
    cache: Path,
    source: ArtifactSource,
    progress: Progress,
    stop: threading.Event,
    work: str = "",
) -> list[Path]:
    """Where each artifact lies, after fetching the ones that are missing or damaged. `work`: the
    folder below the cache with the lock and the downloads that are under way; calls with the same
    folder wait for each other."""
    with only_one(cache / work, stop):
        scratch = cache / work / "partial"
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was cut
        missing = [artifact for artifact in artifacts if not is_whole(artifact, cache)]
        if missing:
            progress.expect(sum(artifact.size for artifact in missing))
            try:
                scratch.mkdir()
                fetch_all(missing, cache, scratch, source, progress, stop)
            except OSError as error:
                raise problems.of_system(error, f"keeping downloads in {cache}") from error
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return [cache / artifact.path for artifact in artifacts]


def is_whole(artifact: Artifact, cache: Path) -> bool:
    path = cache / artifact.path
    if not path.exists():
        return False
    try:
        artifact.check(path)
    except (Cut, RuntimeProblem):  # damaged since it was fetched: fetch it again
        path.unlink()
        return False
    return True


def fetch_all(
    missing: Sequence[Artifact],
    cache: Path,
    scratch: Path,
    source: ArtifactSource,
    progress: Progress,
    stop: threading.Event,
) -> None:
    halt = threading.Event()

    def advance(size: int) -> None:
        if stop.is_set() or halt.is_set():
            raise Interrupted
        progress.advance(size)

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        futures: list[Future[None]] = [
            pool.submit(fetch, artifact, cache, scratch, source, advance) for artifact in missing
        ]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            halt.set()  # the first failure ends the others; what is whole by then stays
            pool.shutdown(cancel_futures=True)
        for future in sorted(done, key=lambda f: isinstance(f.exception(), Interrupted)):
            future.result()
    if stop.is_set():
        raise Interrupted


def fetch(
    artifact: Artifact,
    cache: Path,
    scratch: Path,
    source: ArtifactSource,
    advance: Callable[[int], None],
) -> None:
    target = cache / artifact.path
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, TRIES + 1):
        arrived = 0

        def count(size: int) -> None:
            nonlocal arrived
            arrived += size
            advance(size)

        try:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                path = source(artifact.coordinate, Path(folder), count)
                artifact.check(path)
                path.rename(target)
        except Cut as error:
            advance(-arrived)
            if attempt == TRIES:
                raise RuntimeProblem(
                    f"Could not download {artifact.coordinate}: {error}. Check the network and "
                    "start again; what was fetched whole is kept."
                ) from error
        else:
            return
