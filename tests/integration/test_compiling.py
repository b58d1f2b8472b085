"""What decides, compiled: the same decisions, from the same sources, or else from these."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processor import compiled

ROOT = Path(__file__).parents[2]
COMPILE = "from compose.cli import main; main()"
HOW = "from processor import compiled; compiled.prefer(); print(compiled.how)"
# The hash of each partition's journal, of a run that meets all kinds of commands and accidents.
PLAY = """
from processor import compiled
compiled.prefer()
from tests.simulation.run import Run
from processor.rules import engine
from schemas import codecs
cluster = Run(3, 4_000, 3, thorough=True).run()
print(compiled.how.split()[0].strip(",:"))
print(*(module.__file__.rpartition(".")[2] for module in (engine, codecs)))
print(sum(cluster.steps.values()), *(partition.hash for partition in cluster.partitions))
"""


def run(checkout: Path, program: str, *arguments: str, **environment: str) -> tuple[int, str]:
    kept = {name: value for name, value in os.environ.items() if name != compiled.SWITCH}
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=checkout,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def copy(to: Path) -> Path:
    for package in (*compiled.OF, "compose", "tests"):
        shutil.copytree(
            ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__", ".compiled*")
        )
    return to


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy(tmp_path_factory.mktemp("compiled"))
    assert run(made, HOW) == (0, "interpreted\n")
    assert run(made, COMPILE, "compile") == (0, "compiled\n")
    return made


def test_it_is_compiled_once(checkout: Path) -> None:
    assert run(checkout, COMPILE, "compile") == (0, "is compiled already\n")
    assert run(checkout, HOW) == (0, "compiled\n")


def test_it_decides_what_its_sources_decide(checkout: Path) -> None:
    code, told = run(checkout, PLAY)
    how, files, *decided = told.splitlines()
    assert (code, how, files) == (0, "compiled", "so so"), told
    code, told = run(checkout, PLAY, **{compiled.SWITCH: "1"})
    how, files, *same = told.splitlines()
    assert (code, how, files) == (0, "interpreted", "py py"), told
    assert same == decided
    records, *hashes = decided[0].split()
    assert int(records) > 4_000 and len(set(hashes)) == 3


def test_what_is_of_other_sources_is_not_run(checkout: Path) -> None:
    source = checkout / "schemas" / "money.py"
    text = source.read_text()
    source.write_text(text.replace("2**53 - 1", "2**52 - 1"))
    code, told = run(checkout, HOW)
    assert (code, told.partition(":")[0]) == (0, "interpreted"), told
    assert "other sources" in told
    source.write_text(text)
    assert run(checkout, HOW) == (0, "compiled\n")


def test_what_was_imported_too_early_is_an_error(checkout: Path) -> None:
    code, told = run(checkout, f"import schemas.ids; {HOW}")
    assert code != 0
    assert "imported before it was known how: ['schemas.ids']" in told


def test_a_compiler_that_fails_is_told_and_changes_nothing(checkout: Path, tmp_path: Path) -> None:
    before = sorted((checkout / "processor" / ".compiled").rglob("*"))
    source = checkout / "schemas" / "money.py"
    text = source.read_text()
    source.write_text(text + "# other\n")
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    broken.chmod(0o755)
    code, told = run(checkout, COMPILE, "compile", PATH=f"{tmp_path}:{os.environ['PATH']}")
    source.write_text(text)
    assert code == 1
    assert told.startswith("streamledger: the modules cannot be compiled:\n")
    assert "no space left" in told
    assert "Traceback" not in told
    assert sorted((checkout / "processor" / ".compiled").rglob("*")) == before
    assert run(checkout, HOW) == (0, "compiled\n")


def test_a_compiler_that_cannot_be_brought_is_named(tmp_path: Path) -> None:
    made = copy(tmp_path)
    code, told = run(made, COMPILE, "compile", PATH="", PIP_NO_INDEX="1")
    assert code == 1
    assert "none can be brought; install gcc or clang" in told
    assert run(made, HOW) == (0, "interpreted\n")
