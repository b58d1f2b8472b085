"""Replay: the journal's bytes alone give the state that was, and nothing else fits on it.

(The stage of every other story does the same after each of its steps.)
"""

from typing import get_args

import msgspec
import pytest

from processor.rules import decide, engine
from processor.rules.decision import BrokenInvariant
from processor.rules.evolve import evolve
from processor.rules.journal_header import input_of
from processor.rules.state_view import MemoryState
from schemas import journal, state_keys
from schemas import state as states
from schemas.encoding import codecs
from schemas.journal import JournalRecord
from tests.testkit import builders, stories
from tests.testkit.builders import START_MS
from tests.testkit.stories import Stage

# Every step that there is, in three partitions.
TOUR = """
    a=1000,owner:o b1=500,owner:o c2=0,USD d=50,liability e1=0,frozen a2=0
    credit a 5 key=k
    credit a 5 key=k             | replayed
    credit a 6 key=k             | idempotency_key_reused
    debit a 5000                 | insufficient_funds
    limit a -100
    change a limit=-90 meta=n:1,m:
    transfer a d 30
    transfer a b1 100 key=t      | pending
    transfer a e1 100            | pending
    all
    reverse a t                  | pending
    all
    post debit a 9 credit b1 4 credit a2 5 | pending
    deliver 1                    | prepared
    deliver 0                    | answered
    all
    hold a 60 key=h expires=500
    capture a h 20 to=b1         | pending
    all
    hold a 60 key=i expires=500
    hold a 70 key=j expires=900
    hold a 80 key=l
    capture a j 5
    void a l
    transfer a c2 1              | pending
    transfer a b1 77 key=late    | pending
    configure 0 commission_bps=7 | configured
    log_time 0 500               | timed
    wait 500
    credit a 1                   | expired posted
    again 1                      | duplicate
    wait 60000
    tick 0                       | participant_timeout participant_timeout ticked
    all
    freeze b1
    unfreeze b1
    open z wallet NGN
    close z
    transfer a a2 50             | pending
    deliver 2                    | prepared
    hold a 3 key=open
    transfer a b1 3              | pending
"""


@pytest.fixture(scope="module")
def toured() -> Stage:
    return stories.play(TOUR)


def _replayed(values: list[bytes], state: MemoryState) -> MemoryState:
    for value in values:
        evolve(state, stories.decode_record(value))
    return state


def test_the_tour_takes_every_step(toured: Stage) -> None:
    steps = {record.step for n in range(builders.PARTITIONS) for record in toured.journal(n)}
    assert set(get_args(journal.Step)) == steps
    kinds = {key[:1] for place in toured.places for key in place.state.values()}
    assert kinds == {b"a", b"s", b"t", b"h", b"r", b"x"}


@pytest.mark.parametrize("partition", range(builders.PARTITIONS))
def test_the_journal_gives_the_state(partition: int, toured: Stage) -> None:
    place = toured.places[partition]
    again = _replayed(place.journal, MemoryState(partition))
    assert again.values() == place.state.values()
    assert again.partition == place.state.partition
    far = START_MS * 2
    assert again.due(far, 9_999) == place.state.due(far, 9_999)


@pytest.mark.parametrize("partition", range(builders.PARTITIONS))
def test_it_may_go_on_from_any_copy(partition: int, toured: Stage) -> None:
    place = toured.places[partition]
    for cut in range(0, len(place.journal), 3):
        saved = _replayed(place.journal[:cut], MemoryState(partition))
        copy = saved.copy()
        _replayed(place.journal[cut:], copy)
        assert copy.values() == place.state.values()
        assert saved.partition.sequence == cut, "the copy is another"


@pytest.mark.parametrize("partition", range(builders.PARTITIONS))
def test_the_state_s_own_bytes_give_it_too(partition: int, toured: Stage) -> None:
    """As it lies in the state topic and on disk: typed msgpack, told by the first byte of a key."""
    types: dict[bytes, type[states.StateValue]] = {
        state_keys.ACCOUNT: states.AccountState,
        state_keys.SYSTEM_ACCOUNT: states.SystemAccountState,
        state_keys.TRANSACTION: states.TransactionState,
        state_keys.HOLD: states.HoldState,
        state_keys.PREPARED: states.PreparedTransaction,
        state_keys.DUE: states.Due,
    }
    place = toured.places[partition]
    for key, value in place.state.values().items():
        encoded = msgspec.msgpack.encode(value)
        assert msgspec.msgpack.decode(encoded, type=types[key[:1]]) == value
    encoded = msgspec.msgpack.encode(place.state.partition)
    assert msgspec.msgpack.decode(encoded, type=states.PartitionState) == place.state.partition


def test_sequences_have_no_gaps_and_times_never_fall(toured: Stage) -> None:
    for partition in range(builders.PARTITIONS):
        records = toured.journal(partition)
        assert [record.sequence for record in records] == list(range(1, len(records) + 1))
        times = [record.time_ms for record in records]
        assert times == sorted(times)
        assert {record.partition for record in records} == {partition}


def test_settings_versions_are_those_that_decided(toured: Stage) -> None:
    for partition in range(builders.PARTITIONS):
        records = toured.journal(partition)
        version = 0
        for record in records:
            assert record.settings_version == version
            version += record.settings is not None
        assert version == 2 if partition == 0 else 1


# What cannot follow


def _record(stage: Stage, step: str) -> JournalRecord:
    return next(record for record in reversed(stage.journal(0)) if record.step == step)


def _next(stage: Stage, record: JournalRecord, **changes: object) -> JournalRecord:
    sequence = stage.places[0].state.partition.sequence + 1
    return msgspec.structs.replace(record, sequence=sequence, **changes)


@pytest.mark.parametrize("ahead", [-1, 0, 2, 100])
def test_only_the_next_sequence(ahead: int, toured: Stage) -> None:
    state = toured.places[0].state.copy()
    record = _record(toured, "ticked")
    wrong = msgspec.structs.replace(record, sequence=state.partition.sequence + ahead)
    with pytest.raises(BrokenInvariant, match="follows on"):
        evolve(state, wrong)


@pytest.mark.parametrize("by", [-1, 1])
def test_only_the_next_version_of_an_account(by: int) -> None:
    stage = stories.play("a=5; credit a 1")
    record = _record(stage, "posted")
    entries = tuple(
        msgspec.structs.replace(entry, version=entry.version + 1 + by) for entry in record.entries
    )
    with pytest.raises(BrokenInvariant, match="version"):
        evolve(stage.places[0].state.copy(), _next(stage, record, entries=entries))


def test_an_entry_stands_on_an_account() -> None:
    stage = stories.play("a=5; credit a 1")
    record = _record(stage, "posted")
    other = Stage().places[0].state
    with pytest.raises(BrokenInvariant, match="never opened"):
        evolve(other, msgspec.structs.replace(record, sequence=other.partition.sequence + 1))


@pytest.mark.parametrize("step", ["posted", "answered"])
def test_a_later_step_stands_on_what_is_pending(step: str) -> None:
    stage = stories.play(
        "a=9 b1=0 c2=0; post debit a 5 credit b1 2 credit c2 3 | pending; deliver 1; deliver 0; all"
    )
    with pytest.raises(BrokenInvariant, match="not pending"):
        evolve(stage.places[0].state.copy(), _next(stage, _record(stage, step)))


# Deciding changes nothing


class _Untouchable:
    def __init__(self, state: MemoryState) -> None:
        self.partition, self.get, self.due = state.partition, state.get, state.due

    def put(self, key: bytes, value: states.StateValue | None) -> None:
        raise AssertionError("a decision put something into the state")


@pytest.mark.parametrize(
    "step",
    [
        "credit a 1",
        "debit a 1",
        "transfer a d 1",
        "transfer a b1 1",
        "post debit a 1 credit b1 1",
        "hold a 1",
        "capture a open",
        "void a open",
        "reverse a k",
        "freeze a",
        "limit a -50",
        "close a",
        "open new wallet NGN",
        "credit a 5 key=k",
        "debit a 999999",
    ],
)
def test_a_decision_touches_no_state(step: str, toured: Stage) -> None:
    copy = toured.places[0].state.copy()
    state = _Untouchable(copy)
    body = builders.command(step)
    value = stories.encode(body)
    message = codecs.decode_command(value, stories.AVRO)
    input = input_of("commands", 0, body["account"].encode(), value, START_MS, message)
    decision = decide.decide(state, input, message, state.partition.time_ms)
    assert copy.values() == toured.places[0].state.values()
    assert decision.record.step in ("posted", "rejected", "pending", "replayed")


def test_the_same_input_gives_the_same_bytes(toured: Stage) -> None:
    one, other = toured.places[0].state.copy(), toured.places[0].state.copy()
    body = builders.command("transfer a b1 9 ref=r meta=x:y")
    value = stories.encode(body)
    message = codecs.decode_command(value, stories.AVRO)
    input = input_of("commands", 9, body["account"].encode(), value, toured.now_ms, message)
    outputs = [
        [(stories.encode(d.record), d.messages, d.transactions) for d in engine.apply(state, input)]
        for state in (one, other)
    ]
    assert outputs[0] == outputs[1]


def test_an_old_copy_stays_what_it_was() -> None:
    stage = stories.play("a=5")
    copy = stage.places[0].state.copy()
    before = copy.values()
    stage.play("hold a 2 key=h expires=9; credit a 1; wait 9; tick 0")
    assert copy.values() == before
    assert copy.due(START_MS * 2, 99) == []
