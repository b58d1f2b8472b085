"""What is missing for machine code is named, and nothing is compiled that would not be the same."""

import ast
import sys
import sysconfig
from pathlib import Path

import pytest

from plumbing.failures import Failure
from processor import compiled, compiling

# All that mypyc keeps of what a field is said to be.
KEPT = {"int", "str", "bytes", "bool"}


@pytest.fixture(autouse=True)
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_fresh", lambda: False)


def test_headers_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(Failure, match=rf"apt install python3.{sys.version_info.minor}-dev"):
        compiling.compile()


def test_mypyc_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda _: None)
    with pytest.raises(Failure, match=r"pip install 'streamledger\[compile\]'"):
        compiling.compile()


def test_no_class_that_is_decoded_loses_its_types() -> None:
    """A compiled class tells msgspec of its fields' types only where they are plain: it would take
    anything else, or nothing, for such a field."""
    files = [path for pattern in compiling.MODULES for path in compiled.PACKAGES.glob(pattern)]
    assert len(files) > 20
    decoded = []
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        classes = {each.name: each for each in ast.walk(tree) if isinstance(each, ast.ClassDef)}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(
                ("Decoder", "convert", "decode")
            ):
                names = {each.id for each in ast.walk(call) if isinstance(each, ast.Name)}
                decoded += [(path.name, classes[name]) for name in names & classes.keys()]
    assert decoded
    lost = [
        f"{file}: {name.name}.{ast.unparse(field.target)}"
        for file, name in decoded
        for field in name.body
        if isinstance(field, ast.AnnAssign) and ast.unparse(field.annotation) not in KEPT
    ]
    assert lost == []
