"""What decides, compiled: the same decisions, from the same sources, or else from these."""

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

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
print(*(module.__file__.rpartition(".")[2] for module in (engine, codecs)))
print(sum(cluster.steps.values()), *(partition.hash for partition in cluster.partitions))
"""
# A partition's copy on disk: what is said to have been put in it, and what is found there.
COPY = """
import sys
from pathlib import Path
from processor import compiled
compiled.prefer()
from processor.copies import Local
from processor.table import Memory, Table
from schemas.state import Account, InputPosition, Partition, Position
account = Account("wallet", "NGN", "open", "tolu", None, 500, 20, 0, 7, {"a": "b"})
position = Position(Partition(1, 2, "copied", 9), InputPosition(3, 2, b"d"), InputPosition(), "h")
table = Table(Path(sys.argv[1]), 1, Memory(16), 100)
if table.position is None:
    table.put(b"aone", account)
    table.commit(table.staged(), position, Local(4, 5, 6, "h"))
    print(account, position, Local(4, 5, 6, "h"))
else:
    print(table.get(b"aone"), table.position, table.local)
table.close()
"""
INTERPRETED = {compiled.SWITCH: "1"}


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def run(checkout: Path, program: str, *arguments: str | Path, **environment: str) -> Ended:
    kept = {name: value for name, value in os.environ.items() if name != compiled.SWITCH}
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=checkout,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout.strip(), ended.stderr.strip())


def copy(to: Path) -> Path:
    for package in (*compiled.OF, "compose", "tests"):
        shutil.copytree(
            ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__", ".compiled")
        )
    return to


@contextmanager
def other_sources(checkout: Path) -> Iterator[None]:
    """Nothing that is run differs."""
    source = checkout / "schemas" / "money.py"
    before = source.read_text()
    source.write_text(before + "# other\n")
    try:
        yield
    finally:
        source.write_text(before)


@pytest.fixture(scope="module")
def headers() -> None:
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("this Python has no headers: what decides is run from its sources here")


@pytest.fixture(scope="module")
def checkout(headers: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = copy(tmp_path_factory.mktemp("compiled"))
    assert run(made, HOW).out == "interpreted: nothing was compiled"
    # Two at once: each is whole, one of them stays.
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: run(made, COMPILE, "compile"), range(2)))
    assert [(each.code, each.out) for each in ended] == [(0, "compiled")] * 2, ended
    return made


def kept(checkout: Path) -> list[Path]:
    return sorted((checkout / "processor" / ".compiled").rglob("*"))


def test_it_is_compiled_once(checkout: Path) -> None:
    assert run(checkout, COMPILE, "compile") == (0, "compiled already", "")
    assert run(checkout, HOW).out == "compiled"
    (made,) = (checkout / "processor" / ".compiled").iterdir()
    # Whoever may run the program may run this.
    assert {path.stat().st_mode & 0o777 for path in (made, *made.rglob("*"))} == {0o755}


def test_it_decides_what_its_sources_decide(checkout: Path) -> None:
    machine_code, sources = run(checkout, PLAY), run(checkout, PLAY, **INTERPRETED)
    assert (machine_code.code, sources.code) == (0, 0), (machine_code.err, sources.err)
    files, decided = machine_code.out.splitlines()
    assert files == "so so"
    assert sources.out.splitlines() == ["py py", decided]
    records, *hashes = decided.split()
    assert int(records) > 4_000
    assert len(set(hashes)) == 3


@pytest.mark.parametrize("first", [{}, INTERPRETED], ids=["machine code", "sources"])
def test_each_opens_the_copy_of_the_other(
    checkout: Path, tmp_path: Path, first: dict[str, str]
) -> None:
    then = {} if first else INTERPRETED
    put = run(checkout, COPY, tmp_path / "copy", **first)
    found = run(checkout, COPY, tmp_path / "copy", **then)
    assert (put.code, found.code) == (0, 0), (put.err, found.err)
    assert "balance=500" in put.out
    assert found.out == put.out


def test_what_is_of_other_sources_is_not_run(checkout: Path) -> None:
    with other_sources(checkout):
        told = run(checkout, HOW).out
    assert told.startswith("interpreted: what was compiled is of other sources")
    assert run(checkout, HOW).out == "compiled"


def test_what_was_imported_too_early_is_an_error(checkout: Path) -> None:
    ended = run(checkout, f"import schemas.ids; {HOW}")
    assert ended.code != 0
    assert "imported before it was known how: ['schemas.ids']" in ended.err


@pytest.mark.parametrize(
    ("compiler", "refusal", "told"),
    [
        ("echo no space left; exit 1", "the modules cannot be compiled:\n", "no space left"),
        # It makes something else than was asked for.
        (
            'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"',
            "what was compiled cannot be loaded:\n",
            "ImportError",
        ),
    ],
)
def test_a_compiler_that_fails_is_told_and_changes_nothing(
    checkout: Path, tmp_path: Path, compiler: str, refusal: str, told: str
) -> None:
    before = kept(checkout)
    (tmp_path / "cc").write_text(f"#!/bin/sh\n{compiler}\n")
    (tmp_path / "cc").chmod(0o755)
    with other_sources(checkout):
        ended = run(checkout, COMPILE, "compile", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert ended.code == 1
    assert f"streamledger: {refusal}" in ended.err
    # The compiler's own words, and then what holds until it is mended.
    assert told in ended.err.partition(refusal)[2]
    assert ended.err.endswith("the same, but slower")
    assert kept(checkout) == before


def test_a_compiler_that_cannot_be_brought_is_named(headers: None, tmp_path: Path) -> None:
    made = copy(tmp_path)
    ended = run(made, COMPILE, "compile", PATH="", PIP_NO_INDEX="1")
    assert ended.code == 1
    assert "none can be brought; install gcc or clang" in ended.err
    assert run(made, HOW).out == "interpreted: nothing was compiled"
