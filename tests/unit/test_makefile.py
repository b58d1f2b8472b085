"""Setting up: a Python that will not do is told in one line, and nothing is done twice."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Of the make that runs these tests nothing may reach this one.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    outside.pop("MFLAGS", None)
    outside.pop("PYTHON", None)
    return subprocess.run(
        ["make", *arguments],
        cwd=checkout,
        env=outside,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def python_that(checkout: Path, fails_on: str) -> str:
    """A stand-in for a Python in which one of our questions fails."""
    path = checkout / "python"
    path.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *{fails_on}*) exit 1;; *version_info*) echo 3.12;; *) exit 0;; esac\n'
    )
    path.chmod(0o755)
    return str(path)


def test_a_python_that_is_too_old_is_one_line(checkout: Path) -> None:
    python = python_that(checkout, "version_info")
    ended = make(checkout, "run", f"PYTHON={python}")
    assert ended.returncode != 0
    line, *made = ended.stderr.splitlines()
    assert line.startswith(f"make: Python 3.11 or later is needed ({python} is not)")
    assert len(made) == 1  # make's own
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_names_the_package(checkout: Path) -> None:
    ended = make(checkout, "run", f"PYTHON={python_that(checkout, 'ensurepip')}")
    assert ended.returncode != 0
    assert "python3.12-venv" in ended.stderr.splitlines()[0]
    assert not (checkout / ".venv").exists()


def test_what_is_set_up_is_not_set_up_again(checkout: Path) -> None:
    stamps = [checkout / ".venv" / name for name in ("made", "installed-run", "installed-dev")]
    stamps[0].parent.mkdir()
    for stamp in stamps:
        stamp.touch()
    assert set_up_by(checkout, "run") == []
    assert set_up_by(checkout, "test") == []


def test_a_new_lock_is_installed(checkout: Path) -> None:
    stamps = [checkout / ".venv" / name for name in ("made", "installed-run", "installed-dev")]
    stamps[0].parent.mkdir()
    for stamp in stamps:
        stamp.touch()
    later = time.time() + 10
    os.utime(checkout / "requirements" / "run.txt", (later, later))
    assert set_up_by(checkout, "run") == ["requirements/run.txt"]
    assert set_up_by(checkout, "test") == ["requirements/dev.txt"]
    assert (checkout / "requirements" / "dev.txt").stat().st_mtime < later


def test_options_are_passed_on(checkout: Path) -> None:
    planned = make(checkout, "-n", "run", "ARGS=--port 18080").stdout.splitlines()
    assert planned[-1].endswith("streamledger up --port 18080")


def test_chaos_has_one_seed_and_half_of_the_time_each(checkout: Path) -> None:
    planned = make(checkout, "-n", "chaos", "SEED=7", "MINUTES=5").stdout.splitlines()
    simulated, real = planned[-2:]
    assert "tests.simulation" in simulated
    assert "tests.crash" in real
    for line in (simulated, real):
        assert "--seed 7 " in line
        half = line.partition("--minutes ")[2]
        told = subprocess.run(["sh", "-c", f"echo {half}"], capture_output=True, check=True)
        assert told.stdout.decode().strip() == "2.5"


def test_the_long_benchmarks_are_asked_for(checkout: Path) -> None:
    assert "--full" not in make(checkout, "-n", "bench").stdout
    assert "--full" in make(checkout, "-n", "bench", "FULL=1").stdout


def set_up_by(checkout: Path, target: str) -> list[str]:
    """The locks that a target would install."""
    ended = make(checkout, "-n", target)
    assert ended.returncode == 0, ended.stderr
    assert "-m venv" not in ended.stdout
    words = ended.stdout.split()
    return [words[n + 1] for n, word in enumerate(words) if word == "-r"]
