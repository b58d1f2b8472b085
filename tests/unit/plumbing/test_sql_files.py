"""Statements from files: as they are, or as the parameters that are given make them."""

from pathlib import Path

import pytest

from plumbing.postgres.sql_files import SqlFiles

FILTERED = """-- What it is for.
SELECT id FROM t
WHERE true
AND kind = %(kind)s -- if kind
AND NOT hidden -- unless kind
ORDER BY id
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlFiles:
    folder = tmp_path / "some_package" / "sql"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "b.sql").write_text(FILTERED)
    (folder / "a.sql").write_text("SELECT 1\n")
    (folder / "notes.txt").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return SqlFiles("some_package", "sql")


def test_files_come_in_the_order_of_their_names(files: SqlFiles) -> None:
    assert list(files.files) == ["a", "b"]
    assert files["a"] == b"SELECT 1\n"


def test_a_line_depends_on_a_parameter(files: SqlFiles) -> None:
    assert files.text("b", ["kind"]).decode().splitlines() == [
        "SELECT id FROM t",
        "WHERE true",
        "AND kind = %(kind)s",
        "ORDER BY id",
    ]
    assert b"AND NOT hidden" in files.text("b", [])
    assert b"kind" not in files.text("b", ["other"])
