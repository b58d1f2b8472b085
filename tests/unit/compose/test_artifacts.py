"""The cache of programs: what is in it is what the lock says, whatever happened on the way."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from compose.embedded import artifacts
from compose.embedded.artifacts import Artifact, Cut, Silent
from compose.embedded.problems import Interrupted, RuntimeProblem

NEVER = threading.Event()
CONTENT = {f"org.example:part:{n}": f"content {n}".encode() * 1_000 for n in range(6)}


def artifact(coordinate: str) -> Artifact:
    content = CONTENT[coordinate]
    return Artifact(coordinate, hashlib.sha256(content).hexdigest(), len(content))


WANTED = [artifact(coordinate) for coordinate in CONTENT]


class Registry:
    """A registry in memory that counts what it gave."""

    def __init__(self, content: dict[str, bytes]) -> None:
        self.content = content
        self.given: list[str] = []

    def __call__(self, coordinate: str, folder: Path, advance: Callable[[int], None]) -> Path:
        path = folder / "file"
        content = self.content.get(coordinate)
        if content is None:
            raise Cut("the registry does not have it")
        path.write_bytes(content)
        advance(len(content))
        self.given.append(coordinate)
        return path


def ensure(registry: Registry, cache: Path, stop: threading.Event = NEVER) -> list[Path]:
    return artifacts.ensure(WANTED, cache, registry, Silent(), stop)


def cached(cache: Path) -> dict[str, bytes]:
    return {a.coordinate: p.read_bytes() for a in WANTED if (p := cache / a.path).exists()}


def test_everything_is_fetched_once(tmp_path: Path) -> None:
    first, second = Registry(CONTENT), Registry({})
    paths = ensure(first, tmp_path)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert sorted(first.given) == sorted(CONTENT)
    assert ensure(second, tmp_path) == paths
    assert second.given == []


def test_a_wrong_checksum_is_one_clear_error_and_nothing_is_kept(tmp_path: Path) -> None:
    forged = {**CONTENT, WANTED[2].coordinate: bytes(WANTED[2].size)}
    with pytest.raises(RuntimeProblem, match=r"^Wrong checksum for org\.example:part:2: [^\n]*$"):
        ensure(Registry(forged), tmp_path)
    assert WANTED[2].coordinate not in cached(tmp_path)
    assert not (tmp_path / "partial").exists()


def test_a_cut_download_is_tried_again_and_never_used(tmp_path: Path) -> None:
    cut = Registry({**CONTENT, WANTED[0].coordinate: CONTENT[WANTED[0].coordinate][:-1]})
    with pytest.raises(RuntimeProblem, match=r"part:0 has 8999 bytes instead of 9000"):
        ensure(cut, tmp_path)
    assert cut.given.count(WANTED[0].coordinate) == artifacts.TRIES
    assert WANTED[0].coordinate not in cached(tmp_path)


def test_the_next_start_fetches_only_what_is_missing(tmp_path: Path) -> None:
    last = WANTED[-1].coordinate
    with pytest.raises(RuntimeProblem, match="what was fetched whole is kept"):
        ensure(Registry({c: b for c, b in CONTENT.items() if c != last}), tmp_path)
    kept = set(cached(tmp_path))
    assert kept and last not in kept
    again = Registry(CONTENT)
    ensure(again, tmp_path)
    assert set(again.given) == set(CONTENT) - kept


def test_what_a_killed_run_left_half_done_is_cleared(tmp_path: Path) -> None:
    half = tmp_path / "partial" / "abc" / "file"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    ensure(Registry(CONTENT), tmp_path)
    assert not half.exists()
    assert cached(tmp_path) == CONTENT


def test_a_file_damaged_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    ensure(Registry(CONTENT), tmp_path)
    (tmp_path / WANTED[1].path).write_bytes(bytes(WANTED[1].size))
    again = Registry(CONTENT)
    ensure(again, tmp_path)
    assert again.given == [WANTED[1].coordinate]
    assert cached(tmp_path) == CONTENT


def test_a_wish_to_stop_ends_the_downloads(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        ensure(Registry(CONTENT), tmp_path, stop)
    assert cached(tmp_path) == {}


def test_waiting_for_another_process_ends_when_told_to(tmp_path: Path) -> None:
    stop = threading.Event()
    with artifacts.only_one(tmp_path, NEVER):
        stop.set()
        with pytest.raises(Interrupted):
            ensure(Registry(CONTENT), tmp_path, stop)


def test_a_cache_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        RuntimeProblem, match=r"^Not a directory \(.*\): keeping downloads .* failed\.$"
    ):
        ensure(Registry(CONTENT), tmp_path / "file" / "cache")


def test_the_lock_has_every_program_for_every_platform() -> None:
    sections = artifacts.read_lock(artifacts.LOCK_PATH.read_text())
    platforms = {name.removeprefix("postgres ") for name in sections if name.startswith("postgres")}
    assert platforms == {"linux-amd64", "linux-arm64v8", "darwin-amd64", "darwin-arm64v8"}
    assert all(len(sections[f"postgres {name}"]) == 1 for name in platforms)
    jars = {artifact.coordinate for artifact in sections["kafka"]}
    assert "org.apache.kafka:kafka_2.13:4.2.1" in jars
    assert any(name.startswith("org.apache.logging.log4j:log4j-slf4j-impl:") for name in jars)
    assert sections["kafka-tools"][0].coordinate == "org.apache.kafka:kafka-tools:4.2.1"


@pytest.mark.parametrize(
    "text",
    ["org.example:part:1 abc 12", "[a]\norg.example:part:1 " + "0" * 64, "[a]\nwords"],
)
def test_a_lock_that_cannot_be_read_names_its_line(text: str) -> None:
    with pytest.raises(RuntimeProblem, match=r"^Line \d of the artifact lock cannot be read"):
        artifacts.read_lock(text)


def test_a_classifier_is_part_of_the_file_name() -> None:
    path = Artifact("org.example:part:1:linux", "0" * 64, 1).path
    assert path == Path("artifacts/org.example/part-1-linux.jar")


def test_an_unsupported_platform_says_what_to_use_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(RuntimeProblem, match=r"riscv64.*--kafka and --postgres.*compose\.yaml"):
        artifacts.platform_name()
