"""Copies of balances, logs and secrets lie in folders that nobody else may enter."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.embedded.data_dir import DataFolder
from plumbing.failures import Failure
from processor import service


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_data_folder_is_its_owners_alone(tmp_path: Path) -> None:
    made = DataFolder(tmp_path / "new" / ".streamledger")
    made.hold()
    made.release()
    assert mode(made.path) == 0o700
    for inside in (made.kafka, made.logs, made.path / "run"):
        assert mode(inside) == 0o700


def test_a_data_folder_that_others_could_enter_is_closed(tmp_path: Path) -> None:
    made = DataFolder(tmp_path / ".streamledger")
    made.hold()
    made.release()
    for path in (made.path, made.logs):
        path.chmod(0o755)
    made.hold()
    assert (mode(made.path), mode(made.logs)) == (0o700, 0o700)
    made.clear()
    made.release()
    assert mode(made.kafka) == 0o700


def test_the_folder_of_a_processor_is_its_owners_alone(tmp_path: Path) -> None:
    data = tmp_path / ".streamledger" / "processor"
    for _ in range(2):
        service._lock_data_folder(data).close()
        assert (mode(data), mode(data.parent)) == (0o700, 0o700)
        data.chmod(0o755)  # as an older one left it


def test_a_folder_above_that_was_there_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    service._lock_data_folder(tmp_path / "processor").close()
    assert (mode(tmp_path / "processor"), mode(tmp_path)) == (0o700, 0o755)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="cannot be used"):
        service._lock_data_folder(tmp_path / "file" / "processor")
