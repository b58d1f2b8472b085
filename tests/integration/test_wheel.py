"""The wheel, in an empty environment outside the checkout: what a production install gets."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {"schemas", "plumbing", "ingress", "processor", "sinks", "compose"}


def run(*command: str | Path, cwd: Path) -> str:
    inside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ended = subprocess.run(
        command, cwd=cwd, env=inside, capture_output=True, text=True, timeout=300, check=False
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
        *("sinks/sql/migrations/*.sql", "compose/embedded/*.lock", "processor/*.lock"),
        *("ingress/sql/*.sql", "ingress/pages/*"),
    ):
        files = [str(path.relative_to(ROOT)) for path in ROOT.glob(pattern)]
        assert files
        assert set(files) <= set(names)
    assert [name for name in names if "__pycache__" in name or "/tests/" in name] == []


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
        *(python, "-c", "from sinks import migrations as m; print(len(m.of_this_program()))"),
        cwd=tmp_path,
    )
    assert int(found) == len(list((ROOT / "sinks" / "sql" / "migrations").glob("*.sql")))
