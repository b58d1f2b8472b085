"""The wheel, in an empty environment outside the checkout: what a production install gets."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"schemas", "plumbing", "ingress", "processor", "sinks", "compose"}
# What generates files of the repository: no service and no command needs it.
FOR_DEVELOPERS = ("schemas/publishing/", "compose/reference_docs/", "compose/embedded/update_lock")
# The hash of each partition's journal, after a run that meets all kinds of commands and faults.
PLAY = """
from processor.rules_build import rules_build
from tests.simulation.run import Run
cluster = Run(3, 4_000, 3, thorough=True).run()
print(rules_build())
print(sum(cluster.steps.values()), *(partition.hash for partition in cluster.partitions))
"""
# Writes a partition's local copy, or reads the one that is there, and prints its content.
COPY = """
import sys
from pathlib import Path
from processor.state.checkpoint import LocalCheckpoint
from processor.state.store import Memory, StateStore
from schemas.state import AccountState, InputPosition, PartitionPosition, PartitionState
account = AccountState("wallet", "NGN", "open", "tolu", None, 500, 20, 0, 7, {"a": "b"})
partition = PartitionState(1, 2, "copied", 9)
position = PartitionPosition(partition, InputPosition(3, 2, b"d"), InputPosition(), "h")
table = StateStore(Path(sys.argv[1]), 1, Memory(16), 100)
if table.position is None:
    table.put(b"aone", account)
    table.commit(table.staged(), position, LocalCheckpoint(4, 5, 6, "h"))
    print(account, position, LocalCheckpoint(4, 5, 6, "h"))
else:
    print(table.get(b"aone"), table.position, table.local)
table.close()
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    inside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = subprocess.run(
        command,
        cwd=cwd,
        env=inside | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (made,) = folder.glob("streamledger-*.whl")
    return made


def test_it_holds_the_packages_and_their_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    for pattern in (
        *("*/sql/migrations/*.sql", "compose/embedded/*.lock"),
        *("ingress/sql/*.sql", "ingress/http/pages/*"),
    ):
        files = [str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)]
        assert files
        assert set(files) <= set(names)
    assert [name for name in names if "__pycache__" in name or "/tests/" in name] == []
    assert [name for name in names if name.startswith(FOR_DEVELOPERS)] == []
    assert all(list(ROOT.glob(f"{path.rstrip('/')}*")) for path in FOR_DEVELOPERS)


def test_it_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    python = tmp_path / "venv" / "bin" / "python"
    run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv", cwd=tmp_path)
    install = (uv, "pip", "install", "--quiet", "--python", python)
    run(*install, "--require-hashes", "-r", ROOT / "requirements" / "run.txt", cwd=tmp_path)
    run(*install, "--no-deps", wheel, cwd=tmp_path)
    run(uv, "pip", "check", "--quiet", "--python", python, cwd=tmp_path)
    streamledger = tmp_path / "venv" / "bin" / "streamledger"
    text = run(streamledger, "--help", cwd=tmp_path)
    assert all(command in text for command in ("up", "status", "down", "topics", "migrate"))
    assert run(streamledger, "--version", cwd=tmp_path).startswith("streamledger ")
    where = run(python, "-c", "import sinks; print(sinks.__file__)", cwd=tmp_path)
    assert where.startswith(str(tmp_path))
    found = run(
        python,
        "-c",
        "from plumbing.postgres import migrations as m; print(len(m.bundled('sinks', 'ingress')))",
        cwd=tmp_path,
    )
    assert int(found) == len(list(ROOT.glob("*/sql/migrations/*.sql")))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of a compiled wheel, with the tests' simulation beside it."""
    built, content = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("content")
    uv = Path(sys.executable).with_name("uv")
    build = (uv, "build", "--quiet", "--no-build-isolation", "--python", sys.executable)
    run(*build, "--out-dir", built, cwd=ROOT, HATCH_BUILD_HOOKS_ENABLE="1")
    (wheel,) = built.glob("streamledger-*-linux_*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(content)
    shutil.copytree(ROOT / "tests", content / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    return content


def test_a_compiled_wheel_decides_like_its_sources(compiled: Path) -> None:
    (build, decided), (sources_build, sources_decided) = (
        run(sys.executable, "-c", PLAY, cwd=folder).splitlines() for folder in (compiled, ROOT)
    )
    assert (build, sources_build) == ("compiled", "interpreted")
    assert decided == sources_decided
    records, *hashes = decided.split()
    assert int(records) > 4_000
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("compiled_first", [True, False])
def test_each_build_opens_the_local_copy_of_the_other(
    compiled: Path, tmp_path: Path, compiled_first: bool
) -> None:
    first, then = (compiled, ROOT) if compiled_first else (ROOT, compiled)
    written = run(sys.executable, "-c", COPY, tmp_path / "copy", cwd=first)
    assert "balance=500" in written
    assert run(sys.executable, "-c", COPY, tmp_path / "copy", cwd=then) == written
