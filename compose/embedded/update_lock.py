"""Makes artifacts.lock again: `python -m compose.embedded.update_lock`.

The only place where versions are chosen and dependencies resolved. Everything named here is
downloaded once to learn its size and SHA-256; run it to move to other versions, then the tests.
"""

import hashlib
import sys
import tempfile
from pathlib import Path

from compose.embedded.artifacts import LOCK_PATH, NETWORK_TIMEOUT_S
from compose.embedded.maven import download

KAFKA = "4.2.1"
POSTGRES = "17.11.0"
LOGGING_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"
PLATFORMS = ("linux-amd64", "linux-arm64v8", "darwin-amd64", "darwin-arm64v8")


def kafka_closure(repo_cache: Path) -> list[str]:
    """The broker, all that it needs to run, and the logging binding of the same version."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repo_cache, local_repos=[], timeout=NETWORK_TIMEOUT_S)
    broker = context.create_dependency(f"org.apache.kafka:kafka_2.13:{KAFKA}")
    _, needed = context.resolver.resolve([broker])
    coordinates = {f"{d.groupId}:{d.artifactId}:{d.version}" for d in [broker, *needed]}
    log4j = next(d.version for d in needed if d.artifactId == "log4j-core")
    return sorted({*coordinates, f"{LOGGING_BINDING}:{log4j}"})


def line(coordinate: str, folder: Path) -> str:
    path = download(coordinate, folder, lambda size: None)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{coordinate} {digest} {path.stat().st_size}"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sections = {
            "kafka": kafka_closure(folder / "resolved"),
            "kafka-tools": [f"org.apache.kafka:kafka-tools:{KAFKA}"],
        } | {
            f"postgres {name}": [
                f"io.zonky.test.postgres:embedded-postgres-binaries-{name}:{POSTGRES}"
            ]
            for name in PLATFORMS
        }
        lines = [
            "# Made by python -m compose.embedded.update_lock; one artifact a line:",
            "# group:artifact:version[:classifier] sha256 size",
        ]
        for section, coordinates in sections.items():
            lines += ["", f"[{section}]"]
            lines += [line(c, folder / "files") for c in coordinates]
            sys.stderr.write(f"{section}: {len(coordinates)}\n")
    LOCK_PATH.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
