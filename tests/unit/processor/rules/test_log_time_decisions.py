"""Log time that an operator decided: the rules obey it when the record is decided, and a replay
follows. Every step of a stage is replayed from its journal, so each story tests that, too."""

import pytest

from processor.rules.journal_header import input_of
from schemas import coordination
from schemas.coordination import LogTime
from schemas.state import LogTimeDecision
from tests.testkit import builders, stories
from tests.testkit.builders import START_MS
from tests.testkit.stories import Stage

YEARS_MS = 5 * 365 * 24 * 3_600_000
TICK = stories.encode(coordination.Tick())


def decision(topic: str, first: int, last: int, after_ms: int) -> LogTime:
    time_ms = START_MS + after_ms
    return LogTime(topic=topic, first=first, last=last, time_ms=time_ms)  # type: ignore[arg-type]  # one of two


def early(stage: Stage, place: int, given: LogTime) -> None:
    """As the owner does that comes to a record whose decision lies behind it."""
    at = stage.places[0]
    stage._apply(at, input_of("operator", place, None, stories.encode(given), 0, given))


def test_a_command_is_of_the_time_that_was_decided() -> None:
    stage = stories.play("a=9; hold a 4 key=h expires=70000")
    offset = stage.places[0].commands
    stage.message(0, stories.encode(decision("commands", offset, offset, 10)))
    assert [record.step for record in stage.journal(0)][-1] == "timed"
    assert stage.places[0].state.partition.time_ms == START_MS, "it lets no time pass"
    stage.play(f"wait {YEARS_MS}; credit a 1 | posted | a=10,held:4 a/h=open")
    assert stage.places[0].state.partition.time_ms == START_MS + 10
    assert stage.places[0].state.partition.log_times == (), "it is over"
    # The next one is of its own time again.
    stage.play("credit a 1 | expired posted | a=11")


def test_a_decision_counts_for_a_range_and_for_its_topic_alone() -> None:
    stage = stories.play("a=9; hold a 4 key=h expires=70000")
    offset = stage.places[0].commands
    stage.message(0, stories.encode(decision("commands", offset, offset + 1, 10)))
    stage.play(f"wait {YEARS_MS}; credit a 1; credit a 1 | posted | a=11,held:4")
    stage.play("credit a 1 | expired posted | a=12")
    stage = stories.play("a=9; hold a 4 key=h expires=70000")
    stage.message(0, stories.encode(decision("commands", 0, 99, 10)))
    stage.play(f"wait {YEARS_MS}; tick 0 | expired ticked | a=9")


def test_of_two_decisions_the_later_one_counts() -> None:
    stage = stories.play("a=9; hold a 4 key=h expires=70000")
    offset = stage.places[0].commands
    for after_ms in (60_000, 80_000, 10):
        stage.message(0, stories.encode(decision("commands", offset, offset, after_ms)))
    stage.play(f"wait {YEARS_MS}; credit a 1 | posted | a=10,held:4")
    assert stage.places[0].state.partition.time_ms == START_MS + 10


def test_a_decision_makes_no_record_later() -> None:
    stage = stories.play("a=9; hold a 4 key=h expires=70000")
    offset = stage.places[0].commands
    stage.message(0, stories.encode(decision("commands", offset, offset, YEARS_MS)))
    stage.play("credit a 1 | posted | a=10,held:4")
    assert stage.places[0].state.partition.time_ms == START_MS


def test_a_decision_on_a_message_lies_behind_it_and_comes_first() -> None:
    stage = stories.play("a=9; hold a 4 key=h expires=70000; tick 0")
    offset = stage.places[0].coordination_read
    given = decision("coordination", offset, offset, 10)
    stage.now_ms += YEARS_MS
    early(stage, offset + 1, given)
    stage.message(0, TICK)
    assert [d.record.step for d in stage.last] == ["ticked"]
    assert stage.last[-1].record.time_ms == START_MS + 10
    # In its place it is over, and brings no time of its own.
    stage.message(0, stories.encode(given))
    assert [d.record.step for d in stage.last] == ["ignored"]
    assert stage.places[0].state.partition == stage.places[0].replayed.partition
    assert stage.places[0].state.partition.log_times == ()
    sources = [record.source for record in stage.journal(0)][-3:]
    assert [(each.topic, each.offset - offset) for each in sources] == [
        ("operator", 1),
        ("coordination", 0),
        ("coordination", 1),
    ]


def test_one_that_is_kept_is_there_once() -> None:
    stage = stories.play("a=9")
    given = decision("commands", 50, 60, 10)
    early(stage, 0, given)
    stage.message(0, stories.encode(given))
    at = stage.places[0].state.partition
    assert at.log_times == (LogTimeDecision("commands", 50, 60, START_MS + 10),)


@pytest.mark.parametrize("due_ms", [10, 11])
def test_what_is_due_is_due_by_the_time_that_was_decided(due_ms: int) -> None:
    stage = stories.play(f"a=9; hold a 4 key=h expires={due_ms}")
    offset = stage.places[0].commands
    stage.message(0, stories.encode(decision("commands", offset, offset, 10)))
    stage.now_ms += YEARS_MS
    decisions = stage.send(builders.command("credit a 1"))
    assert [d.record.step for d in decisions] == ["expired"] * (due_ms <= 10) + ["posted"]
