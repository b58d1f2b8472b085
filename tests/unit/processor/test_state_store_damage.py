"""A local copy whose files are damaged is found out where it is read, and given up whole: nothing
that cannot be read is taken for absent, and no half of a folder is left in its place."""

import subprocess
import sys
from pathlib import Path

import pytest

from processor.state import checkpoint
from processor.state.checkpoint import LocalCheckpoint
from processor.state.store import Damaged, Memory, StateStore
from schemas import state_keys
from schemas.state import Due
from tests.unit.processor.test_state_store import ID, KILLED, account, changelog, due

KEYS = 10_000


def written(path: Path) -> StateStore:
    """A table with many due keys and accounts in files, closed."""
    table = StateStore(path, 1, Memory(16), 100)
    dues = ((due(number, number), Due("hold")) for number in range(KEYS))
    accounts = ((named(number), account(number)) for number in range(KEYS))
    table.restore(changelog(*dues, *accounts, at=1), LocalCheckpoint(7, 7, 7, "h", b"i"))
    table.restored()
    table.close()
    checkpoint.note(path, 7)
    return table


def named(number: int) -> bytes:
    return state_keys.account(ID.format(number))


def damage(path: Path) -> None:
    """Some blocks of each file, and no index: it can be opened."""
    files = list(path.glob("*.sst"))
    assert files, "there is something to damage"
    for file in files:
        content = bytearray(file.read_bytes())
        for place in (len(content) // 6, len(content) // 2):
            content[place : place + 100] = bytes(byte ^ 0xFF for byte in content[place:][:100])
        file.write_bytes(content)


@pytest.fixture
def damaged(tmp_path: Path) -> StateStore:
    path = tmp_path / "partition-1"
    written(path)
    damage(path)
    return StateStore(path, 1, Memory(16), 100)


def expect_fresh(path: Path) -> None:
    """The claim on the lane is given up, and who opens the folder next begins with nothing."""
    assert checkpoint.noted(path) == 0 and not path.exists()
    table = StateStore(path, 1, Memory(16), 100)
    assert (table.position, table.local, table.due(10**15, 10)) == (None, LocalCheckpoint(), [])
    table.close()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_expiry_index_does_not_end_at_a_damaged_block(damaged: StateStore) -> None:
    with pytest.raises(Damaged, match="Corruption"):
        damaged.due(10**15, KEYS)
    damaged.close()
    expect_fresh(damaged.path)


def test_one_account_in_a_damaged_block(damaged: StateStore) -> None:
    with pytest.raises(Damaged, match="Corruption"):
        for number in range(KEYS):
            damaged.get(named(number))
    damaged.close()
    expect_fresh(damaged.path)


def test_many_accounts_in_a_damaged_block(damaged: StateStore) -> None:
    with pytest.raises(Damaged, match="Corruption"):
        damaged.fetch(named(number) for number in range(KEYS))
    damaged.close()
    expect_fresh(damaged.path)


KILLED_IN_A_WIPE = """
import os, shutil, signal, sys
from pathlib import Path
from processor.state.store import Memory, StateStore
from tests.unit.processor.test_state_store_damage import written

def cut(path, **_):
    for file in Path(path).glob(sys.argv[2]):
        file.unlink()
    os.kill(os.getpid(), signal.SIGKILL)

path = Path(sys.argv[1])
written(path)
shutil.rmtree = cut
StateStore(path, 1, Memory(16), 100).wipe()
"""


@pytest.mark.parametrize("first", ["CURRENT", "MANIFEST-*", "*.sst", "OPTIONS-*"])
def test_kill_in_the_middle_of_a_wipe(tmp_path: Path, first: str) -> None:
    """Whichever files were deleted first."""
    path = tmp_path / "partition-1"
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_IN_A_WIPE, str(path), first],
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert ended.returncode == KILLED
    expect_fresh(path)


@pytest.mark.parametrize("missing", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_copy_that_lacks_a_file(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "partition-1"
    written(path)
    for file in path.glob(missing):
        file.unlink()
    table = StateStore(path, 1, Memory(16), 100)
    assert (table.position, table.local, table.due(10**15, 10)) == (None, LocalCheckpoint(), [])
    table.close()
