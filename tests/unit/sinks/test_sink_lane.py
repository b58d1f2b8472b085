"""What a sink does where its tables and its results are of different records: the one that is
behind may catch up only if it arrives at the very record where the other one stands.
"""

import pytest

from plumbing.failures import Failure
from schemas import journal
from sinks.journal_chain import BrokenJournal, JournalPosition, ReadJournalRecord, beginning
from sinks.worker import lane
from tests.testkit.stories import LEDGER_ID, play

AHEAD = 4
STORY = "a=0; credit a 5; credit a 6; credit a 7; credit a 8"


def read(story: str) -> list[ReadJournalRecord]:
    return [
        ReadJournalRecord(offset, value)
        for offset, value in enumerate(play(story).places[0].journal)
    ]


def after(records: list[ReadJournalRecord], count: int) -> JournalPosition:
    return JournalPosition(count, count, journal.hash_of(records[count - 1].value))


@pytest.mark.parametrize("behind", ["tables", "results"])
def test_what_is_behind_arrives_where_the_other_one_stands(behind: str) -> None:
    records, other = read(STORY), read(STORY.replace("credit a 6", "credit a 9"))
    first, ahead = beginning(LEDGER_ID, 0), after(records, AHEAD)
    tables_at, results_at = (first, ahead) if behind == "tables" else (ahead, first)
    builder = lane._BatchBuilder(lane._PartitionProgress(0, LEDGER_ID, tables_at, results_at))
    for each in records:
        builder.add(each)
    assert builder.progress.chain.position == after(records, len(records))
    # Of what is ahead only the rest is taken.
    assert builder.rows.records == len(records) - (0 if behind == "tables" else AHEAD)
    # Another journal, whole in itself: it is noticed at that record, before anything is written.
    builder = lane._BatchBuilder(lane._PartitionProgress(0, LEDGER_ID, tables_at, results_at))
    for each in other[: AHEAD - 1]:
        builder.add(each)
    where = "the results" if behind == "tables" else "the tables"
    noticed = f"offset {AHEAD - 1}: is not the record that {where} ended at"
    with pytest.raises(BrokenJournal, match=noticed):
        builder.add(other[AHEAD - 1])


def test_tables_and_results_that_read_equally_far_of_two_journals_are_refused() -> None:
    at = after(read(STORY), AHEAD)
    with pytest.raises(Failure, match="of different journals"):
        lane._PartitionProgress(0, LEDGER_ID, at, at._replace(last_hash="another"))
