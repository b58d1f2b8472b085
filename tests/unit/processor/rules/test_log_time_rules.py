"""Time is log time: the greatest that a partition has read. What is due is taken first."""

import pytest

from processor.rules import engine
from processor.rules.journal_header import input_of
from schemas import coordination
from schemas.encoding import codecs
from tests.testkit import builders, stories
from tests.testkit.builders import START_MS

STORIES = [
    # A record that was stamped earlier than one before it does not bring time back.
    "a=9; hold a 9 expires=100; wait 100; tick 0 | expired ticked; wait -90; hold a 9 expires=100 "
    "| hold_expired; hold a 9 expires=101 | posted",
    "a=9; wait 100; tick 0; wait -100; hold a 9 key=h expires=100 | hold_expired",
    # By due time, whichever was placed first.
    "a=9; hold a 4 key=h expires=80; hold a 5 key=i expires=70; wait 75; tick 0 | expired ticked | "
    "a=9,held:4 a/h=open a/i=expired",
    # Each partition has a time of its own.
    "a=9 b1=9; hold a 9 expires=100; hold b1 9 expires=100; wait 100; tick 1 | expired ticked | "
    "a=9,held:9 b1=9; tick 0 | expired ticked | a=9",
    # Whatever kind of record it is that comes: what is due is taken before it.
    "a=9; hold a 9 expires=100; wait 100; credit b 1 | expired account_not_found | a=9",
    "a=9; hold a 9 expires=100 key=h; wait 100; hold a 9 expires=100 key=h | expired replayed",
    "a=9; hold a 9 expires=100; wait 100; configure 0 hold_ttl_ms=5 | expired configured | a=9",
    "a=900 b1=0; transfer a b1 1 | pending; deliver 1; hold a 9 expires=100; wait 100; "
    "deliver 0 | expired posted | a=899",
    "a=900 b1=0; transfer a b1 1 | pending; deliver 1; hold b1 1 | insufficient_funds; wait 60000; "
    "transfer a b1 1 | participant_timeout pending | a=900,held:1",
    # A hold and a pending transaction that are due at the same time.
    "a=900 b1=0; hold a 9 expires=60000 key=h; transfer a b1 100 key=t | pending; wait 60000; "
    "tick 0 | {both} ticked | a=900",
]


def _in_order(story: str) -> str:
    """Of two that are due at the same time, the lesser id comes first."""
    hold, transfer = builders.transaction("a", "h"), builders.transaction("a", "t")
    words = ["expired", "participant_timeout"]
    return story.replace("{both}", " ".join(words if hold < transfer else reversed(words)))


@pytest.mark.parametrize("story", STORIES)
def test_story(story: str) -> None:
    stories.play(_in_order(story))


def test_time_never_goes_back() -> None:
    stage = stories.play("a=9; wait 50; tick 0; wait -40; credit a 1")
    assert [record.time_ms - START_MS for record in stage.journal(0)[1:]] == [0, 0, 50, 50]
    assert stage.places[0].state.partition.time_ms == START_MS + 50


def test_of_what_is_due_at_once_the_least_id_comes_first() -> None:
    stage = stories.play("a=99")
    keys = [f"h{n}" for n in range(12)]
    for key in keys:
        stage.play(f"hold a 1 key={key} expires=10")
    stage.play("wait 10")
    stage.message(0, stories.encode(coordination.Tick()))
    expired = [d.record.transaction_id for d in stage.last if d.record.step == "expired"]
    assert expired == sorted(builders.transaction("a", key) for key in keys)


@pytest.mark.parametrize("opened", [999, 1_000, 1_001, 2_001])
def test_at_most_a_thousand_are_taken_before_each_record(opened: int) -> None:
    stage = stories.play("a=9999")
    state = stage.places[0].state
    for number in range(opened):
        value = builders.command(f"hold a 1 key=h{number} expires=10")
        message = codecs.decode_command(stories.encode(value), stories.AVRO)
        key = value["account"].encode()
        engine.apply(state, input_of("commands", number, key, b"", START_MS, message))
    tick = input_of("coordination", 0, None, b"", START_MS + 10, coordination.Tick())
    taken = []
    while len(decisions := engine.apply(state, tick)) > 1:
        taken.append(len(decisions) - 1)
    assert sum(taken) == opened
    assert taken == [1_000] * (opened // 1_000) + [opened % 1_000] * (opened % 1_000 > 0)


def test_a_hold_that_is_due_but_not_yet_taken_is_expired_all_the_same() -> None:
    """More are due than are taken at once: the last one is still open, and still too late."""
    stage = stories.play("a=9999")
    for number in range(1_001):
        stage.send(builders.command(f"hold a 1 key=h{number} expires=10"))
    keys = [f"h{n}" for n in range(1_001)]
    last = max(keys, key=lambda key: builders.transaction("a", key))
    stage.play("wait 10")
    decisions = stage.send(builders.command(f"capture a {last} key=late"))
    assert len(decisions) == 1_001
    assert decisions[-1].record.reason == "hold_expired"
    assert stage.account("a").held == 1
    decisions = stage.send(builders.command(f"void a {last} key=later"))
    assert [d.record.reason or d.record.step for d in decisions] == ["expired", "hold_expired"]
    assert stage.account("a").held == 0


@pytest.mark.parametrize("late_ms", [-1, 0, 1])
def test_the_edge_of_a_hold(late_ms: int) -> None:
    stage = stories.play("a=9; hold a 9 key=h expires=1000")
    stage.now_ms = START_MS + 1_000 + late_ms
    stage.play("capture a h" + (" | expired hold_expired" if late_ms >= 0 else " | posted"))


@pytest.mark.parametrize("late_ms", [-1, 0, 1])
def test_the_edge_of_a_deadline(late_ms: int) -> None:
    stage = stories.play("a=900 b1=0; transfer a b1 1 | pending; deliver 1")
    stage.now_ms = START_MS + 60_000 + late_ms
    expected = "participant_timeout ignored" if late_ms >= 0 else "posted"
    stage.play(f"deliver 0 | {expected}")


def test_the_timestamp_of_what_is_published_is_the_partition_s_time() -> None:
    stage = stories.play("a=9; wait 1234; tick 0; wait -1000; credit a 1")
    assert [each.timestamp for each in stage.published] == ["2025-06-15T15:06:41.234000Z"]
