"""What is missing for machine code is named, and nothing is compiled that would not be the same."""

import ast
import sys
import sysconfig
from pathlib import Path

import pytest

from plumbing.failures import Failure
from processor import compiled, compiling


@pytest.fixture(autouse=True)
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "made", lambda: None)


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


def test_no_class_loses_its_options_or_its_types() -> None:
    """Compiled, a Struct would be another one: no array, not frozen, its fields of any type."""
    files = compiling.modules(compiled.PACKAGES)
    assert len(files) > 20
    lost = [
        f"{path.name}: {each.name}"
        for path in files
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(each, ast.ClassDef)
        and (each.keywords or any("Struct" in ast.unparse(base) for base in each.bases))
    ]
    assert lost == []
