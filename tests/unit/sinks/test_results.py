"""One result for each command that has an outcome, as its producer is to see it."""

import msgspec
import pytest

from sinks.journal_chain import JournalChain, ReadJournalRecord, SinkRecord, beginning
from sinks.worker import results
from tests.testkit.builders import transaction
from tests.testkit.stories import LEDGER_ID, Stage, play


def published(stage: Stage) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for place in stage.places:
        partition = place.state.partition.partition
        chain = JournalChain(LEDGER_ID, partition, beginning(LEDGER_ID, partition))
        for offset, value in enumerate(place.journal):
            result = results.result_of(chain.follow(ReadJournalRecord(offset, value)))
            if result is not None and result.kind != "open_account":
                found.append(
                    (
                        result.partition,
                        result.offset,
                        result.outcome,
                        result.reason,
                        result.replay,
                        result.transaction_id,
                        len(result.entries),
                    )
                )
    return found


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        (
            "a=0; credit a 5 key=k",
            [(0, 1, "posted", None, False, transaction("a", "k"), 2)],
        ),
        (
            "a=0; debit a 5 key=k | insufficient_funds",
            [(0, 1, "rejected", "insufficient_funds", False, transaction("a", "k"), 0)],
        ),
        (
            "a=0; credit a 5 key=k; credit a 5 key=k | replayed; credit a 6 key=k |"
            " idempotency_key_reused",
            [
                (0, 1, "posted", None, False, transaction("a", "k"), 2),
                (0, 2, "posted", None, True, transaction("a", "k"), 0),
                (0, 3, "rejected", "idempotency_key_reused", False, None, 0),
            ],
        ),
    ],
)
def test_outcomes(story: str, expected: list[tuple[object, ...]]) -> None:
    assert published(play(story)) == expected


def test_over_two_partitions_there_is_none_until_it_is_decided() -> None:
    id = transaction("a", "t")
    stage = play("a=100; b1=0; transfer a b1 5 key=t | pending; transfer a b1 5 key=t | replayed")
    assert [result for result in published(stage) if result[5] == id] == [
        (0, 3, "pending", None, True, id, 0)
    ]
    stage.play("all")
    assert [result for result in published(stage) if result[5] == id][1:] == [
        (0, 2, "posted", None, False, id, 2)
    ]


def test_a_refused_command_keeps_its_label() -> None:
    stage = play("a=0")
    stage.send(b'{"kind":"credit","id":"mine"}', partition=0)
    place = stage.places[0]
    chain = JournalChain(LEDGER_ID, 0, beginning(LEDGER_ID, 0))
    every = [chain.follow(ReadJournalRecord(n, value)) for n, value in enumerate(place.journal)]
    result = results.result_of(every[-1])
    assert result is not None
    assert (result.id, result.outcome, result.reason) == ("mine", "rejected", "malformed")
    assert result.detail


def test_a_record_that_answers_no_command_has_none() -> None:
    stage = play("a=100; b1=0; transfer a b1 5 key=t | pending; all; tick 0")
    found = []
    for place in stage.places:
        records = [msgspec.json.decode(value, type=SinkRecord) for value in place.journal]
        found += [record.step for record in records if results.result_of(record) is None]
    assert sorted(set(found)) == ["committed", "configured", "pending", "prepared", "ticked"]
