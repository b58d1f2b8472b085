"""Coordination messages: each counts once and in order; anything else changes nothing."""

import re

import pytest

from processor.rules import engine
from processor.rules.decision import BrokenInvariant
from processor.rules.journal_header import input_of
from processor.rules.state_view import MemoryState
from schemas import coordination
from schemas.coordination import CoordinationMessage
from schemas.ledger_parameters import RULES_VERSION, Genesis, LedgerParameters
from schemas.reasons import Reason
from schemas.validation.command_validation import UnreadableRecord
from tests.testkit import builders, stories
from tests.testkit.builders import START_MS
from tests.testkit.stories import Stage

NO_TRANSACTION = "00000000-0000-5000-8000-000000000000"

STORIES = {
    "a prepare": """
        a=1000 b1=0
        transfer a b1 100 | pending
        deliver 1 | prepared  | b1=0,in:100
        again 1   | duplicate | b1=0,in:100
        again 1   | duplicate
        all | posted committed | a=898 b1=100
    """,
    "an answer": """
        a=1000 b1=0
        transfer a b1 100 | pending
        deliver 1
        deliver 0 | posted    | a=898 transit=100
        again 0   | duplicate | a=898 transit=100
        all | committed
    """,
    "a refusal": """
        a=1000
        transfer a b1 100 | pending
        deliver 1 | declined:account_not_found
        again 1   | duplicate
        deliver 0 | account_not_found | a=1000
        again 0   | duplicate         | a=1000
    """,
    "a commit": """
        a=1000 b1=0
        transfer a b1 100 | pending
        all | prepared posted committed
        again 1 | duplicate | b1=100 transit1=-100
    """,
    "an abort": """
        a=1000 b1=7
        transfer a b1 100 | pending
        wait 60000
        tick 0 | participant_timeout ticked
        deliver 1 | prepared
        deliver 1 | aborted   | b1=7
        again 1   | duplicate | b1=7
    """,
    "a prepare once more when all is over": """
        a=1000 b1=0
        transfer a b1 100 | pending
        deliver 1 | prepared
        deliver 0 | posted
        again 1   | duplicate
        deliver 1 | committed
        again 1   | duplicate
    """,
}


@pytest.mark.parametrize("name", STORIES)
def test_delivered_again(name: str) -> None:
    stories.play(STORIES[name])


def test_an_old_message_does_not_take_the_count_back() -> None:
    stage = stories.play("a=1000 b1=0; transfer a b1 100 | pending; deliver 1 | prepared")
    oldest = stage.places[1].last_message
    stage.play("transfer a b1 200 | pending; deliver 1 | prepared | b1=0,in:300")
    assert stage.message(1, oldest)[-1].record.step == "duplicate"
    assert stage.places[1].state.partition.seen == (2, 0, 0)
    stage.play("transfer a b1 300 | pending; deliver 1 | prepared | b1=0,in:600; all")


def test_a_duplicate_is_journaled_and_moves_time_alone() -> None:
    stage = stories.play("a=1000 b1=0; transfer a b1 100 | pending; deliver 1; wait 5; again 1")
    record = stage.last[-1].record
    assert (record.step, record.time_ms) == ("duplicate", START_MS + 5)
    assert (record.sent, record.reserved, record.transaction_id) == ((), (), None)
    assert isinstance(record.message, coordination.Prepare)


@pytest.mark.parametrize("number", [2, 3, 1_000])
def test_a_gap_stops_everything(number: int) -> None:
    stage = Stage()
    with pytest.raises(BrokenInvariant, match="came after 0"):
        stage.message(
            1, _message(coordination.Abort(source=0, number=number, transaction_id=NO_TRANSACTION))
        )


def test_a_gap_after_some_that_were_whole_stops_everything() -> None:
    stage = stories.play("a=1000 b1=0; transfer a b1 100 | pending; all")
    with pytest.raises(BrokenInvariant, match=re.escape("message 4 of partition 0 came after 2")):
        stage.message(
            1, _message(coordination.Abort(source=0, number=4, transaction_id=NO_TRANSACTION))
        )


@pytest.mark.parametrize("source", [-1, 3, 99])
def test_a_message_of_a_partition_that_is_not_there_stops_everything(source: int) -> None:
    with pytest.raises(BrokenInvariant, match="but there are 3 partitions"):
        Stage().message(
            1, _message(coordination.Abort(source=source, number=1, transaction_id=NO_TRANSACTION))
        )


@pytest.mark.parametrize(
    "message",
    [
        coordination.Prepared(source=2, number=1, transaction_id=NO_TRANSACTION),
        coordination.Refused(
            source=2, number=1, transaction_id=NO_TRANSACTION, reason="account_frozen", index=0
        ),
        coordination.Commit(source=2, number=1, transaction_id=NO_TRANSACTION),
        coordination.Abort(source=2, number=1, transaction_id=NO_TRANSACTION),
    ],
)
def test_of_an_unknown_transaction_it_is_ignored(message: CoordinationMessage) -> None:
    stage = stories.play("a=5")
    decision = stage.message(0, _message(message))[-1]
    assert (decision.record.step, decision.messages, decision.transactions) == ("ignored", (), ())
    assert stage.places[0].state.partition.seen == (0, 0, 1), "but it was seen"
    stage.play("credit a 1 | posted | a=6")


def test_an_answer_from_a_partition_that_is_no_participant_is_ignored() -> None:
    stage = stories.play("a=1000 b1=0; transfer a b1 100 key=t | pending")
    stranger = coordination.Prepared(
        source=2, number=1, transaction_id=builders.transaction("a", "t")
    )
    assert stage.message(0, _message(stranger))[-1].record.step == "ignored"
    stage.play("all | prepared posted committed | a=898")


def test_a_second_answer_of_the_same_partition_is_ignored() -> None:
    """Numbered anew, so no duplicate; but that partition is not waited for any more."""
    stage = stories.play(
        "a=9 b1=4 c2=0; post debit a 5 debit b1 4 credit c2 9 key=p | pending; "
        "deliver 1; deliver 0 | answered"
    )
    refusal = coordination.Refused(
        source=1,
        number=2,
        transaction_id=builders.transaction("a", "p"),
        reason="account_frozen",
        index=1,
    )
    assert stage.message(0, _message(refusal))[-1].record.step == "ignored"
    stage.play("deliver 2; deliver 0 | posted")


def test_messages_of_two_partitions_are_counted_apart() -> None:
    stage = stories.play(
        """
        a=1000 b1=1000 c2=1000
        transfer b1 a 1 | pending
        transfer c2 a 2 | pending
        deliver 0 from 2 | prepared
        deliver 0 from 1 | prepared
        all
        """
    )
    assert stage.places[0].state.partition.seen == (0, 2, 2)
    assert stage.places[0].state.partition.sent == (0, 1, 1)


def _message(message: CoordinationMessage) -> bytes:
    return stories.encode(message)


# What an owner tells its own partition


def test_a_tick_only_moves_time() -> None:
    stage = stories.play("a=5; wait 70; tick 0 | ticked | a=5")
    assert stage.places[0].state.partition.time_ms == START_MS + 70
    assert stage.last[-1].record.message == coordination.Tick()


def test_configure_replaces_the_settings() -> None:
    stage = stories.play("a=1000 b=0; configure 0 commission_bps=1000 | configured")
    at = stage.places[0].state.partition
    assert at.settings == LedgerParameters(commission_bps=1000, rules_version=RULES_VERSION)
    assert at.settings_version == 2
    assert stage.last[-1].record.settings_version == 1, "decided under the settings before"
    stage.play("transfer a b 100 | posted | a=890 fees=10")
    assert stage.last[-1].record.settings_version == 2
    assert stage.places[1].state.partition.settings_version == 1, "each partition has its own"


def test_a_partition_begins_with_its_genesis() -> None:
    stage = Stage()
    first = stage.journal(0)[0]
    assert (first.sequence, first.time_ms, first.step) == (1, 0, "configured")
    assert first.source.topic == "genesis"
    assert first.genesis == Genesis(ledger_id=stories.LEDGER_ID, partitions=3)
    at = stage.places[0].state.partition
    assert (at.partitions, at.ledger_id, at.sent, at.seen) == (3, "stage", (0, 0, 0), (0, 0, 0))


def test_a_second_genesis_is_ignored() -> None:
    stage = stories.play("a=5")
    other = coordination.Configure(
        settings=LedgerParameters(commission_bps=0),
        genesis=Genesis(ledger_id="other", partitions=9),
    )
    assert stage.message(0, _message(other))[-1].record.step == "ignored"
    at = stage.places[0].state.partition
    assert (at.partitions, at.ledger_id, at.settings_version) == (3, "stage", 1)


def test_nothing_comes_before_the_genesis() -> None:
    state = MemoryState(0)
    bare = coordination.Configure(settings=LedgerParameters())
    with pytest.raises(BrokenInvariant, match="starts with its genesis"):
        engine.apply(state, input_of("coordination", 0, None, b"", START_MS, bare))


@pytest.mark.parametrize("value", [b"", b"not json", b"\xff\xfe", b"x" * 100_000])
def test_an_unreadable_message_is_ignored_and_recorded(value: bytes) -> None:
    stage = stories.play("a=5")
    state = stage.places[0].state
    before = state.values()
    input = input_of(
        "coordination", 7, None, value, START_MS, UnreadableRecord(Reason.MALFORMED, "no message")
    )
    (decision,) = engine.apply(state, input)
    assert (decision.record.step, decision.record.detail) == ("ignored", "no message")
    assert decision.record.refused is not None
    assert decision.record.refused.size == len(value)
    assert len(stories.encode(decision.record)) < 32 * 1024
    assert state.values() == before
