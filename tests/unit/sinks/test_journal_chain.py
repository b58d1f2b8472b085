"""A sink reads a journal only as long as each record follows on the one before."""

import pytest

from schemas import journal
from sinks.journal_chain import (
    BrokenJournal,
    JournalChain,
    ReadJournalRecord,
    SinkRecord,
    beginning,
)
from tests.simulation.cluster import LEDGER_ID
from tests.testkit.sink_rig import PARTITIONS, history, records


def values(partition: int = 0) -> list[bytes]:
    return list(history().partitions[partition].whole)


def follow(given: list[bytes], partition: int = 0, ledger_id: str = LEDGER_ID) -> list[SinkRecord]:
    # Transaction markers take offsets, too.
    chain = JournalChain(ledger_id, partition, beginning(ledger_id, partition))
    return [chain.follow(ReadJournalRecord(2 * n, value)) for n, value in enumerate(given)]


@pytest.mark.parametrize("partition", range(PARTITIONS))
def test_it_reads_every_record_as_it_was_written(partition: int) -> None:
    for record, whole in zip(
        follow(values(partition), partition), records(history(), partition), strict=True
    ):
        for name in (
            "previous_hash",
            "partition",
            "sequence",
            "time_ms",
            "source",
            "step",
            "transaction_id",
            "command_offset",
            "first_status",
            "reason",
            "detail",
            "released",
            "reserved",
            "entries",
            "fee",
            "commission_bps",
            "account",
            "hold",
            "genesis",
        ):
            assert getattr(record, name) == getattr(whole, name), name
        if whole.command is not None:
            assert record.command is not None
            assert record.command.kind == whole.command.__struct_config__.tag
            assert record.command.reference == whole.command.reference


def test_the_position_is_where_to_go_on() -> None:
    chain = JournalChain(LEDGER_ID, 0, beginning(LEDGER_ID, 0))
    for n, value in enumerate(values()[:3]):
        chain.follow(ReadJournalRecord(10 + 2 * n, value))
    assert chain.position == (15, 3, journal.hash_of(values()[2]))
    again = JournalChain(LEDGER_ID, 0, chain.position)
    assert again.follow(ReadJournalRecord(16, values()[3])).sequence == 4


def changed(at: int, value: bytes) -> list[bytes]:
    given = values()
    given[at] = value
    return given


@pytest.mark.parametrize(
    ("given", "offset", "reason"),
    [
        (changed(5, b""), 10, "cannot be decoded"),
        (changed(5, b"[]"), 10, "cannot be decoded"),
        (changed(5, values()[5].replace(b'"step":"', b'"step":"un')), 10, "cannot be decoded"),
        (changed(5, values()[5] + b" "), 12, "has previous_hash"),
        (changed(5, values(1)[5]), 10, "belongs to partition 1"),
        ([*values()[:5], *values()[6:]], 10, "has sequence 7 after 5"),
        ([*values()[:5], values()[4]], 10, "has sequence 5 after 5"),
        (values()[1:], 0, "has sequence 2 after 0"),
    ],
)
def test_it_stops_where_something_is_wrong(given: list[bytes], offset: int, reason: str) -> None:
    with pytest.raises(BrokenJournal) as caught:
        follow(given)
    assert f"journal partition 0, record at offset {offset}: " in str(caught.value)
    assert reason in str(caught.value)


def test_another_ledgers_journal() -> None:
    with pytest.raises(BrokenJournal, match="record at offset 0: has previous_hash"):
        follow(values(), ledger_id="another")
