"""A partition's table on a real RocksDB: what is committed is there, whole, and nothing else is."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.rules.state_view import MemoryState
from processor.state import store as tables
from processor.state.checkpoint import LocalCheckpoint
from processor.state.expiry_index import DueIndex
from processor.state.store import Memory, StateStore
from schemas import journal, state, state_keys
from schemas.state import (
    AccountState,
    Due,
    InputPosition,
    PartitionPosition,
    PartitionState,
    PreparedTransaction,
    StateValue,
)

ID = "00000000-0000-5000-8000-{:012}"
KILLED = -9

Opened = Callable[[], StateStore]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    """Opens the same table again and again, each time closing the one before."""
    memory = Memory(16)
    current: list[StateStore] = []

    def open_again() -> StateStore:
        while current:
            current.pop().close()
        current.append(StateStore(tmp_path / "partition-1", 1, memory, 100))
        return current[-1]

    yield open_again
    while current:
        current.pop().close()


def both(table: StateStore, opened: Opened) -> Iterator[StateStore]:
    """The table as it is, then as it is when it was closed and opened again."""
    yield table
    yield opened()


def account(balance: int = 0) -> AccountState:
    return AccountState(
        "wallet", "NGN", "open", None, 0, balance=balance, metadata={"b": str(balance)}
    )


def position(sequence: int) -> PartitionPosition:
    return PartitionPosition(
        PartitionState(1, 2, "ledger", sequence), InputPosition(sequence), InputPosition(), "hash"
    )


def due(time_ms: int, number: int) -> bytes:
    return state_keys.due(time_ms, ID.format(number))


def commit(table: StateStore, sequence: int) -> None:
    table.partition = position(sequence).partition  # as the rules leave it
    table.commit(
        table.staged(), position(sequence), LocalCheckpoint(sequence + 1, 5, sequence, "h")
    )


A, B = state_keys.account("a"), state_keys.account("b")


def test_an_empty_table_begins_at_nothing(opened: Opened) -> None:
    table = opened()
    assert (table.position, table.local, table.partition) == (
        None,
        LocalCheckpoint(),
        PartitionState(1),
    )
    assert table.get(A) is None
    assert (table.due(10**15, 100), table.earliest_due_ms()) == ([], None)


def test_a_batch_sees_its_own_changes_and_nobody_else_does_before_the_commit(
    opened: Opened,
) -> None:
    table = opened()
    table.put(A, account(5))
    table.put(due(7, 1), Due("hold"))
    assert table.get(A) == account(5)
    assert table.due(7, 10) == [due(7, 1)]
    assert (table.position, table.local) == (None, LocalCheckpoint())
    # As after a crash: what was not committed is gone.
    table = opened()
    assert (table.get(A), table.due(7, 10)) == (None, [])


def test_a_commit_is_there_with_its_position_when_it_is_opened_again(opened: Opened) -> None:
    table = opened()
    table.put(A, account(5))
    table.put(B, account(6))
    table.put(due(7, 1), Due("hold"))
    commit(table, 3)
    for again in both(table, opened):
        assert [again.get(A), again.get(B)] == [account(5), account(6)]
        assert again.position == position(3)
        assert again.partition == position(3).partition
        assert again.local == LocalCheckpoint(4, 5, 3, "h")
        assert (again.due(7, 10), again.earliest_due_ms()) == ([due(7, 1)], 7)


def test_what_is_staged_is_each_changed_key_once_as_it_is_now(opened: Opened) -> None:
    table = opened()
    hold = state_keys.prepared(ID.format(1))
    table.put(A, account(1))
    table.put(hold, PreparedTransaction(0, "transfer", "NGN", "b", ()))
    table.put(A, account(2))
    table.put(hold, None)
    encoded = msgspec.msgpack.encode(account(2))
    assert sorted(table.staged(), key=lambda change: change[0]) == [(A, encoded), (hold, None)]
    commit(table, 1)
    assert table.staged() == []


def test_what_was_removed_stays_removed(opened: Opened) -> None:
    table = opened()
    prepared = state_keys.prepared(ID.format(1))
    for value in (PreparedTransaction(0, "transfer", "NGN", "b", ()), None):
        table.put(prepared, value)
        table.put(due(7, 1), None if value is None else Due("pending"))
        commit(table, 1)
    for again in both(table, opened):
        assert (again.get(prepared), again.due(7, 10)) == (None, [])


def test_what_a_batch_has_ended_is_not_due_again(opened: Opened) -> None:
    """Also where what is due is read from RocksDB while the batch is in flight."""
    table = opened()
    for number in (1, 2, 3):
        table.put(due(number, number), Due("hold"))
    commit(table, 1)
    table = opened()
    table.put(due(2, 2), None)
    table.put(due(4, 4), Due("hold"))
    assert table.due(9, 10) == [due(1, 1), due(3, 3), due(4, 4)]
    commit(table, 2)
    for again in both(table, opened):
        assert again.due(9, 10) == [due(1, 1), due(3, 3), due(4, 4)]


def test_a_key_that_ends_leaves_the_window_that_was_read_before(opened: Opened) -> None:
    table = opened()
    for number in (1, 2):
        table.put(due(number, number), Due("hold"))
    commit(table, 1)
    assert table.due(9, 10) == [due(1, 1), due(2, 2)]
    table.put(due(1, 1), None)
    assert table.due(9, 10) == [due(2, 2)]


def test_what_was_fetched_never_hides_what_came_after(opened: Opened) -> None:
    table = opened()
    table.put(A, account(1))
    commit(table, 1)
    table = opened()
    transaction = state_keys.transaction(ID.format(1))
    table.fetch([A, A, B, transaction])
    assert [table.get(A), table.get(B), table.get(transaction)] == [account(1), None, None]
    table.put(A, account(2))
    table.put(B, account(3))
    posted = state.TransactionState(b"hash", "posted", "credit", "a")
    table.put(transaction, posted)
    table.fetch([A, B, transaction])
    assert [table.get(A), table.get(B), table.get(transaction)] == [account(2), account(3), posted]
    commit(table, 2)
    table.fetch([A, B, transaction])
    assert [table.get(A), table.get(B), table.get(transaction)] == [account(2), account(3), posted]


def test_what_is_awaited_is_known_as_it_is_now(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where more wait than are kept in memory."""
    monkeypatch.setattr(tables, "_MOST_AWAITED", 3)
    table = opened()
    pending = journal.PendingTransaction(
        entries=(), participants=(1,), waiting=(1,), currency="NGN", deadline_ms=9, offset=0
    )
    waits = state.TransactionState(b"hash", "pending", "transfer", "a", pending=pending)
    posted = state.TransactionState(b"hash", "posted", "transfer", "a")
    reserved = PreparedTransaction(0, "transfer", "NGN", "b", ())
    cached: dict[bytes, StateValue | None] = {}
    for sequence in range(1, 8):
        name = ID.format(sequence)
        cached[state_keys.transaction(name)] = waits
        cached[state_keys.prepared(name)] = reserved
        if sequence > 2:
            ended = ID.format(sequence - 2)
            cached[state_keys.transaction(ended)] = posted
            cached[state_keys.prepared(ended)] = None
        for key, value in cached.items():
            table.put(key, value)
        commit(table, sequence)
        table.fetch(list(cached)[::2])
        assert {key: table.get(key) for key in cached} == cached
    for again in both(table, opened):
        assert {key: again.get(key) for key in cached} == cached


def test_more_accounts_than_the_cache_holds(opened: Opened) -> None:
    table = opened()
    keys = [state_keys.account(f"account-{n}") for n in range(1_000)]
    for balance in (1, 2):
        for key in keys:
            table.put(key, account(balance))
        commit(table, balance)
    table.fetch(keys[::3])
    assert [table.get(key) for key in keys] == [account(2)] * 1_000
    assert table.size_bytes() > 1_000


# Against plain memory

numbers = st.integers(0, 5)
changes = st.one_of(
    st.tuples(st.just("account"), numbers, st.integers(0, 9)),
    st.tuples(st.just("prepared"), numbers, st.booleans()),
    st.tuples(st.just("due"), numbers, st.integers(0, 30)),
    st.tuples(st.just("not due"), numbers, st.integers(0, 30)),
    st.tuples(st.sampled_from(("fetch", "commit", "reopen")), numbers, st.just(0)),
)


def changed(kind: str, number: int, value: int) -> tuple[bytes, StateValue | None]:
    if kind == "account":
        return state_keys.account(f"account-{number}"), account(value)
    if kind == "prepared":
        prepared = PreparedTransaction(number, "transfer", "NGN", "b", ()) if value else None
        return state_keys.prepared(ID.format(number)), prepared
    return due(value, number), Due("hold") if kind == "due" else None


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(changes, max_size=60), window=st.integers(1, 5))
def test_it_tells_the_same_as_plain_memory(steps: list[tuple[str, int, Any]], window: int) -> None:
    memory = Memory(16)
    plain, kept = MemoryState(1), MemoryState(1)
    keys = [changed(kind, n, 0)[0] for kind in ("account", "prepared") for n in range(6)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "DueIndex", partial(DueIndex, window=window))
        # Two accounts fit into the cache.
        opened = partial(StateStore, Path(folder, "partition-1"), 1, memory, 2)
        table = opened()
        for sequence, (kind, number, value) in enumerate(steps, 1):
            if kind == "fetch":
                table.fetch(keys[number:])
            elif kind == "commit":
                commit(table, sequence)
                kept = plain.copy()
            elif kind == "reopen":
                table.close()
                table = opened()
                plain = kept.copy()
            else:
                table.put(*changed(kind, number, value))
                plain.put(*changed(kind, number, value))
            assert [table.get(key) for key in keys] == [plain.get(key) for key in keys]
            assert table.due(20, 4) == plain.due(20, 4)
            earliest = plain.due(10**12, 1)
            assert table.earliest_due_ms() == (
                int.from_bytes(earliest[0][1:9], "big") if earliest else None
            )
        table.close()


# Restoring

Changelog = list[tuple[bytes, bytes | None]]


def changelog(*values: tuple[bytes, StateValue | None], at: int) -> Changelog:
    records: Changelog = [
        (key, None if value is None else msgspec.msgpack.encode(value)) for key, value in values
    ]
    return [*records, (state_keys.POSITION, msgspec.msgpack.encode(position(at)))]


def test_a_restore_ends_where_the_changelog_does(opened: Opened) -> None:
    prepared = state_keys.prepared(ID.format(1))
    table = opened()
    table.put(A, account(1))
    table.put(prepared, PreparedTransaction(0, "transfer", "NGN", "b", ()))
    table.put(due(7, 1), Due("pending"))
    commit(table, 1)
    table.restore(changelog((A, account(2)), (B, account(3)), at=2), LocalCheckpoint(10, 20))
    table.restore(
        changelog((prepared, None), (due(7, 1), None), (due(9, 2), Due("hold")), at=3),
        LocalCheckpoint(30, 40),
    )
    table.restored()
    for again in both(table, opened):
        assert [again.get(A), again.get(B), again.get(prepared)] == [account(2), account(3), None]
        assert (again.position, again.local) == (position(3), LocalCheckpoint(30, 40))
        assert again.due(100, 10) == [due(9, 2)]


def test_what_is_read_is_kept_in_the_memory_that_was_given(tmp_path: Path) -> None:
    """Also in a copy that was there before: RocksDB has noted how it was opened then."""
    keys = [state_keys.account(f"account-{number}") for number in range(5_000)]
    table = StateStore(tmp_path / "copy", 1, Memory(16), 100)
    table.restore(changelog(*((key, account(7)) for key in keys), at=1), LocalCheckpoint(1, 1))
    table.restored()
    table.close()
    memory = Memory(16)
    table = StateStore(tmp_path / "copy", 1, memory, 100)
    before = memory.blocks.get_usage()
    assert all(table.get(key) == account(7) for key in keys)
    assert memory.blocks.get_usage() - before > sum(map(len, keys))
    table.close()


@pytest.mark.parametrize("broken", ["CURRENT", "MANIFEST-*", "*.sst"])
def test_a_copy_that_is_broken_is_made_anew(tmp_path: Path, broken: str) -> None:
    table = StateStore(tmp_path / "broken", 1, Memory(16), 100)
    table.put(A, account(5))
    commit(table, 1)
    table.restored()
    table.close()
    for file in table.path.glob(broken):
        file.write_bytes(bytes(file.stat().st_size))
    table = StateStore(tmp_path / "broken", 1, Memory(16), 100)
    assert (table.position, table.get(A)) == (None, None)
    table.put(A, account(6))
    commit(table, 1)
    assert table.get(A) == account(6)
    table.close()


def test_a_wiped_table_is_empty_and_can_be_used(opened: Opened) -> None:
    table = opened()
    table.put(A, account(1))
    table.put(due(7, 1), Due("hold"))
    commit(table, 1)
    table.wipe()
    assert (table.get(A), table.position, table.local) == (None, None, LocalCheckpoint())
    assert (table.due(100, 10), table.partition) == ([], PartitionState(1))
    table.restore(changelog((B, account(3)), at=5), LocalCheckpoint(10, 20))
    table.restored()
    for again in both(table, opened):
        assert (again.get(A), again.get(B)) == (None, account(3))
        assert again.position == position(5)


PROGRAM = """
import os, signal, sys
from pathlib import Path
from tests.unit.processor.test_state_store import A, B, account, changelog, commit
from processor.state.store import LocalCheckpoint, Memory, StateStore

table = StateStore(Path(sys.argv[1]), 1, Memory(16), 100)
for balance in range(1, 11):
    table.put(A, account(balance))
    commit(table, balance)
table.put(B, account(1))
if sys.argv[2] == "restoring":
    table.restore(changelog((A, account(99)), (B, account(99)), at=99), LocalCheckpoint(99, 99))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["running", "restoring"])
def test_what_kill_leaves_behind_is_whole(opened: Opened, tmp_path: Path, when: str) -> None:
    """What was committed is all there; of a restore that was cut, each write is there or is not."""
    path = tmp_path / "partition-1"
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), when],
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert ended.returncode == KILLED
    table = opened()
    found = (table.get(A), table.get(B), table.position, table.local)
    before = (account(10), None, position(10), LocalCheckpoint(11, 5, 10, "h"))
    after = (account(99), account(99), position(99), LocalCheckpoint(99, 99))
    assert found == before or (when == "restoring" and found == after)
