"""A local copy whose files are damaged is found out where it is read, and given up whole: nothing
that cannot be read is taken for absent, and no half of a folder is left in its place."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from plumbing.failures import Failure
from processor.state import checkpoint, store
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


def make_unreadable(path: Path) -> None:
    """Every open file of the copy fails at a read with EIO, as on a disk with bad sectors: no page
    lies where `/proc/self/mem` is read then."""
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    for link in list(Path("/proc/self/fd").iterdir()):
        try:
            file = link.readlink()
        except FileNotFoundError:
            continue
        if file.parent == path and file.suffix == ".sst":
            os.dup2(memory, int(link.name), inheritable=False)
    os.close(memory)


@pytest.fixture
def unreadable(tmp_path: Path) -> StateStore:
    path = tmp_path / "partition-1"
    written(path)
    table = StateStore(path, 1, Memory(16), 100)
    make_unreadable(path)
    return table


READS: dict[str, Callable[[StateStore], object]] = {
    "one account": lambda table: [table.get(named(number)) for number in range(KEYS)],
    "many accounts": lambda table: table.fetch(named(number) for number in range(KEYS)),
    "the expiry index": lambda table: table.due(10**15, KEYS),
}


@pytest.mark.parametrize("read", READS)
def test_a_copy_that_the_disk_cannot_read(unreadable: StateStore, read: str) -> None:
    with pytest.raises(Damaged, match="Input/output error"):
        READS[read](unreadable)
    unreadable.close()
    expect_fresh(unreadable.path)


def test_a_copy_that_cannot_be_read_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "partition-1"
    written(path)
    for file in path.glob("MANIFEST-*"):
        file.unlink()
        file.mkdir()
    table = StateStore(path, 1, Memory(16), 100)
    assert (table.position, table.local) == (None, LocalCheckpoint())
    table.close()


def test_a_damaged_copy_that_cannot_be_moved_loses_its_claim(
    unreadable: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(copy: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "set_aside", fails)
    with pytest.raises(Failure, match="cannot be moved"):
        unreadable.due(10**15, KEYS)
    assert checkpoint.noted(unreadable.path) == 0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("IO error: No space left on device: While appending to file: x.sst", "write"),
        ("IO error: While pread offset 0 len 9: x.sst: Too many open files", "read"),
        ("IO error: While open a file for random read: x.sst: Permission denied", "read"),
    ],
)
def test_a_disk_error_that_an_operator_must_see_to(text: str, kind: str) -> None:
    with pytest.raises(Failure, match=f"local disk {kind} failed: IO error"):
        store.raise_disk_failure(Exception(text))
