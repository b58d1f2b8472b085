"""Setting up: a Python that will not do is told in one line, and nothing is done twice. And the
parts of a check, which together are all tests and of which none is left when it is interrupted.
"""

import os
import shlex
import shutil
import signal
import subprocess
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest

from compose.embedded.processes import identify
from tests.testkit.waiting import eventually

ROOT = Path(__file__).parents[2]
STAMPS = ("made", "installed-run", "installed-dev")


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
    stamps = [checkout / ".venv" / name for name in STAMPS]
    stamps[0].parent.mkdir()
    for stamp in stamps:
        stamp.touch()
    assert set_up_by(checkout, "run") == []
    assert set_up_by(checkout, "test") == []


def test_a_new_lock_is_installed(checkout: Path) -> None:
    stamps = [checkout / ".venv" / name for name in STAMPS]
    stamps[0].parent.mkdir()
    for stamp in stamps:
        stamp.touch()
    later = time.time() + 10
    os.utime(checkout / "requirements" / "run.txt", (later, later))
    assert set_up_by(checkout, "run") == ["requirements/uv.txt", "requirements/run.txt"]
    assert set_up_by(checkout, "test") == ["requirements/uv.txt", "requirements/dev.txt"]
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


@pytest.mark.parametrize("target", ["check", "test"])
def test_each_test_is_in_one_part(target: str) -> None:
    parts = pytests(target)
    assert len(parts) == 5
    for path in ROOT.glob("tests/**/test_*.py"):
        where = [n for n, words in enumerate(parts) if runs(words, path.relative_to(ROOT))]
        assert len(where) == 1, f"{path} is in {where}"


def test_the_quick_ones_are_some_of_them_and_what_only_computes() -> None:
    parts = pytests("test-quick")
    left_out = set()
    for path in ROOT.glob("tests/**/test_*.py"):
        where = [n for n, words in enumerate(parts) if runs(words, path.relative_to(ROOT))]
        assert len(where) < 2, f"{path} is in {where}"
        if not where:
            left_out.add(path.parent.name)
    assert left_out == {"crash", "integration", "languages"}


# It tells of itself when make, too, has noted that it runs.
PART = """#!/bin/sh
sleep 0.3
echo $$ >> started
case "$*" in *"$FAILS"*) echo it fails; exit 3;; esac
exec sleep "$LASTS"
"""


def check(checkout: Path, fails: str, lasts: str) -> "subprocess.Popen[str]":
    """`make check` of parts that only last so long, but for one that fails."""
    programs = checkout / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "streamledger"):
        (programs / name).write_text(PART)
        (programs / name).chmod(0o755)
    for stamp in STAMPS:
        (checkout / ".venv" / stamp).touch()
    return subprocess.Popen(
        ["make", "check"],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "FAILS": fails, "LASTS": lasts},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def started(checkout: Path) -> list[int]:
    told = checkout / "started"
    return [int(pid) for pid in told.read_text().split()] if told.exists() else []


def test_a_part_that_fails_fails_the_whole_and_shows_itself(checkout: Path) -> None:
    run = check(checkout, fails="tests/crash", lasts="0.1")
    told, _ = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "it fails" in told
    assert "Error 3" in told


def test_parts_that_go_well_are_a_success(checkout: Path) -> None:
    run = check(checkout, fails="nothing", lasts="0.1")
    told, _ = run.communicate(timeout=60)
    assert run.returncode == 0, told
    assert len(started(checkout)) == 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_check_leaves_no_part(checkout: Path, number: signal.Signals) -> None:
    run = check(checkout, fails="nothing", lasts="600")
    eventually(lambda: len(started(checkout)) == 5, 60)
    # As Ctrl-C in a terminal does, which reaches all; as a supervisor does, who knows of one.
    if number == signal.SIGINT:
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    told, _ = run.communicate(timeout=60)
    assert run.returncode != 0, told
    eventually(lambda: not [pid for pid in started(checkout) if identify(pid) is not None], 30)


def pytests(target: str) -> list[list[str]]:
    """What each pytest of a target is told."""
    planned = make(ROOT, "-n", target).stdout.splitlines()
    told = [line.partition(" -m pytest ")[2] for line in planned]
    return [shlex.split(each) for each in told if each]


def runs(words: list[str], path: Path) -> bool:
    def named_by(patterns: list[str]) -> bool:
        places = map(str, (path, *path.parents))
        return any(fnmatch(place, pattern) for place in places for pattern in patterns)

    left_out = [word.partition("=")[2] for word in words if word.startswith("--ignore-glob=")]
    return named_by([word for word in words if word[0] != "-"]) and not named_by(left_out)


def set_up_by(checkout: Path, target: str) -> list[str]:
    """The locks that a target would install."""
    ended = make(checkout, "-n", target)
    assert ended.returncode == 0, ended.stderr
    assert "-m venv" not in ended.stdout
    words = ended.stdout.split()
    return [words[n + 1] for n, word in enumerate(words) if word == "-r"]
