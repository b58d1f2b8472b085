"""The format level and the lane layout in a ledger's settings: who supports what is known, and who
cannot go on says so by name."""

from types import SimpleNamespace
from typing import Any

import faust
import msgspec
import pytest
from msgspec.structs import replace

from plumbing.failures import Failure
from processor.admin import running_workers
from processor.lanes.admission import Admission, Stopped
from processor.lanes.broker_clock import WorkerClock
from processor.rules.journal_header import input_of
from processor.settings import ProcessorSettings
from processor.state import record_digest
from processor.state.recovery import TakeoverRefused, check_owner
from processor.streaming.assignor import LaneAssignor
from schemas import coordination, topics
from schemas.journal import genesis_hash
from schemas.ledger_parameters import FORMAT_LEVEL, LedgerParameters
from schemas.state import InputPosition, PartitionPosition, PartitionState
from schemas.topics import Names
from sinks.journal_chain import BrokenJournal, JournalChain, ReadJournalRecord, beginning
from sinks.worker.group_member import member_id

PARTITIONS = 12


def position(**settings: int) -> PartitionPosition:
    given = LedgerParameters(**{"lanes": topics.lanes(PARTITIONS), **settings})
    partition = PartitionState(3, PARTITIONS, "books", settings_version=1, settings=given)
    return PartitionPosition(partition, InputPosition(), InputPosition(), "", b"one")


def test_a_partition_of_this_level_and_layout_is_owned() -> None:
    check_owner(position(), "books", PARTITIONS)


def test_a_higher_format_level_is_refused_by_name() -> None:
    with pytest.raises(
        TakeoverRefused, match="format level 2; this program supports 1: upgrade it"
    ):
        check_owner(position(format_level=2), "books", PARTITIONS)


def test_another_lane_layout_is_refused_by_name() -> None:
    with pytest.raises(TakeoverRefused, match=r"in lane layout 4 .*; this program has layout 3"):
        check_owner(position(lanes=4), "books", PARTITIONS)


def test_a_running_worker_refuses_a_configure_message_with_another_lane_layout() -> None:
    """Once it is journaled, no worker can take the partition over."""
    message = coordination.Configure(settings=LedgerParameters(lanes=4))
    configure = input_of("coordination", 12, None, b"{}", 0, message)
    admission = Admission({}, Names(""), WorkerClock({}, Names(""), PARTITIONS))
    with pytest.raises(Stopped, match=r"record at 12: .*lane layout 4 .*this program has layout 3"):
        admission(position().partition, configure)


def test_a_new_ledger_begins_with_the_level_and_the_layout_of_its_program() -> None:
    read = ProcessorSettings.model_validate({"PARTITIONS": PARTITIONS})
    settings = read.deciding()
    assert (settings.format_level, settings.lanes) == (FORMAT_LEVEL, topics.lanes(PARTITIONS))


def test_a_position_that_this_program_cannot_read_names_its_level() -> None:
    """A higher level may have settings, and parts of a position, that are not known here."""
    newer: Any = msgspec.to_builtins(position(format_level=7), builtin_types=(bytes,))
    partition = list(newer[0])
    partition[6] = {**partition[6], "unheard_of": 1}
    value = msgspec.msgpack.encode([[*partition, "more"], *newer[1:], "more"])
    with pytest.raises(Failure, match="format level 7; this program supports 1"):
        record_digest.decode(value)


def test_a_position_from_before_the_first_release_is_refused_in_one_line() -> None:
    older = replace(position(), incarnation=b"")
    with pytest.raises(TakeoverRefused, match=r"before version 0\.1\.0 cannot be carried over"):
        check_owner(older, "books", PARTITIONS)


def test_a_position_that_cannot_be_read_at_its_own_level_is_no_upgrade() -> None:
    broken: Any = msgspec.to_builtins(position(), builtin_types=(bytes,))
    partition = list(broken[0])
    partition[6] = {**partition[6], "unheard_of": 1}
    with pytest.raises(Failure, match=r"unheard_of.*before version 0\.1\.0") as raised:
        record_digest.decode(msgspec.msgpack.encode([partition, *broken[1:]]))
    assert "upgrade it" not in str(raised.value)


def test_a_processor_sends_its_group_the_level_that_it_supports() -> None:
    app: Any = faust.App("p", web_enabled=False)
    app.lanes = SimpleNamespace(
        identity=SimpleNamespace(partitions=PARTITIONS), local_records=lambda: {0: 5}
    )
    metadata = LaneAssignor(app, replicas=1).metadata({"commands", "coordination"})
    assert running_workers.level_of_processor(metadata.encode()) == FORMAT_LEVEL


def test_a_sink_stops_where_the_level_is_raised_above_its_own() -> None:
    settings = msgspec.to_builtins(LedgerParameters(format_level=FORMAT_LEVEL + 1))
    record = {
        "previous_hash": genesis_hash("books", 0),
        "partition": 0,
        "sequence": 1,
        "time_ms": 0,
        "source": {"topic": "genesis"},
        "step": "configured",
        "genesis": {"ledger_id": "books", "partitions": 1},
        "settings": {**settings, "unheard_of": 1},
    }
    chain = JournalChain("books", 0, beginning("books", 0))
    with pytest.raises(BrokenJournal, match="raises the format level to 2; this program supports"):
        chain.follow(ReadJournalRecord(0, msgspec.json.encode(record)))


def test_a_sink_sends_its_group_the_level_that_it_supports() -> None:
    assert running_workers.level_of_sink(member_id("books-sink")) == FORMAT_LEVEL
    assert running_workers.level_of_sink("books-sink") == 0
    assert running_workers.level_of_sink("books-sink-format-12") == 12
