"""The checkpoint beside a local copy: it is read as it was written, and stops nothing."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from plumbing.worker.crash_points import CrashPoints
from processor.lanes.lane import LedgerIdentity
from processor.lanes.supervisor import LaneSupervisor
from processor.metrics import ProcessorMetrics
from processor.state import checkpoint
from processor.state.checkpoint import LocalCheckpoint
from processor.state.store import Memory, StateStore
from schemas.encoding.codecs import AvroSchemas
from schemas.ledger_parameters import LedgerParameters
from schemas.topics import Names


def test_the_last_note_is_read(tmp_path: Path) -> None:
    assert checkpoint.noted(tmp_path) == 0
    for reached in (5, 6_000_000, 6_000_001):
        checkpoint.note(tmp_path, reached)
        assert checkpoint.noted(tmp_path) == reached


@pytest.mark.parametrize("found", [b"", b"5.5", b"-5", b"{}", b"\xff\x00", b"9" * 5_000])
def test_a_note_that_is_broken_tells_nothing(tmp_path: Path, found: bytes) -> None:
    (tmp_path / checkpoint.NAME).write_bytes(found)
    assert checkpoint.noted(tmp_path) == 0
    checkpoint.note(tmp_path, 7)
    assert checkpoint.noted(tmp_path) == 7


def test_what_cannot_be_noted_or_read_stops_nothing(tmp_path: Path) -> None:
    checkpoint.note(tmp_path / "away", 5)
    assert checkpoint.noted(tmp_path / "away") == 0
    (tmp_path / checkpoint.NAME).mkdir()
    checkpoint.note(tmp_path, 5)
    assert checkpoint.noted(tmp_path) == 0


def test_a_forgotten_note_is_not_read(tmp_path: Path) -> None:
    checkpoint.note(tmp_path, 5)
    checkpoint.forget(tmp_path)
    checkpoint.forget(tmp_path)
    assert checkpoint.noted(tmp_path) == 0
    (tmp_path / checkpoint.NAME).mkdir()
    checkpoint.forget(tmp_path)


def test_a_note_is_not_the_tables_and_is_wiped_with_the_copy(tmp_path: Path) -> None:
    path = tmp_path / "partition-1"
    table = StateStore(path, 1, Memory(16), 100)
    checkpoint.note(path, 5)
    table.restore([(b"a", b"1")], LocalCheckpoint(5))
    table.restored()
    table.close()
    table = StateStore(path, 1, Memory(16), 100)
    assert checkpoint.noted(path) == table.local.changelog_next_offset == 5
    table.wipe()
    assert checkpoint.noted(path) == 0
    table.close()


def test_a_lanes_copy_is_all_its_partitions_copies(tmp_path: Path) -> None:
    schemas = AvroSchemas(tmp_path / "schemas", None)
    ledger = LaneSupervisor(
        LedgerIdentity("mine", 6, LedgerParameters()),
        {"bootstrap.servers": "127.0.0.1:1", "log_level": 0},
        Names(),
        tmp_path,
        schemas,
        ProcessorMetrics(CollectorRegistry()),
        CrashPoints(""),
        rocksdb_mib=16,
        cache_entries=100,
        encode_transaction=lambda _: b"",
    )
    assert ledger.local_records() == {}
    for partition, reached in ((0, 5), (2, 6), (3, 100), (7, 1_000)):
        path = tmp_path / f"partition-{partition}"
        path.mkdir()
        checkpoint.note(path, reached)
    assert ledger.local_records() == {0: 11, 1: 100}
