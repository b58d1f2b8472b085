"""A partition's writer on a real store: it decides only what follows on what it has decided."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.lanes.batch_reader import Batch
from processor.lanes.partition_writer import PartitionWriter
from processor.rules.decision import BrokenInvariant
from processor.state.checkpoint import LocalCheckpoint
from processor.state.store import Memory, StateStore
from schemas.encoding import codecs
from schemas.state import InputPosition, PartitionPosition, PartitionState

COORDINATION, COMMANDS = 4, 7


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[PartitionWriter]:
    """It has read up to these offsets."""
    store = StateStore(tmp_path / "partition-0", 0, Memory(16), 100)
    at = PartitionPosition(
        PartitionState(0), InputPosition(COMMANDS), InputPosition(COORDINATION), "hash"
    )
    store.commit([], at, LocalCheckpoint())
    yield PartitionWriter(0, store, codecs.encode_json)
    store.close()


@pytest.mark.parametrize(
    ("coordination_from", "commands_from", "where"),
    [
        (COORDINATION - 1, COMMANDS, "coordination is read from 3"),
        (COORDINATION + 1, COMMANDS, "coordination is read from 5"),
        (COORDINATION, COMMANDS - 1, "read from 6"),
        (COORDINATION, COMMANDS + 1, "read from 8"),
    ],
)
def test_a_batch_that_does_not_begin_where_the_last_one_ended_is_refused(
    writer: PartitionWriter, coordination_from: int, commands_from: int, where: str
) -> None:
    batch = Batch(0, coordination_from, [], commands_from, [])
    with pytest.raises(BrokenInvariant, match=where):
        list(writer.decide(batch, Counter()))
    assert not writer.writes


def test_one_that_does_is_decided(writer: PartitionWriter) -> None:
    assert list(writer.decide(Batch(0, COORDINATION, [], COMMANDS, []), Counter())) == []
