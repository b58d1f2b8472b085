"""Modules that a compiled wheel holds as machine code define no class that mypyc would change."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_no_compiled_module_defines_a_struct() -> None:
    """mypyc drops class options and most field types: an array-like Struct becomes an object."""
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    patterns = targets["targets"]["wheel"]["hooks"]["mypyc"]["include"]
    files = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    assert all(any(ROOT.glob(pattern)) for pattern in patterns)
    assert len(files) > 20
    changed = [
        f"{path.name}: {each.name}"
        for path in files
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(each, ast.ClassDef)
        and (each.keywords or any("Struct" in ast.unparse(base) for base in each.bases))
    ]
    assert changed == []
