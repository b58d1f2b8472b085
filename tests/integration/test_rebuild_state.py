"""The processor's state made anew: a local copy from either topic, and a lost topic from the
journal, with which the processor goes on."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec.structs import replace
from rocksdict import AccessType, Options, Rdict

from plumbing.failures import Failure
from plumbing.kafka import transactional_producer
from plumbing.kafka.committed_reader import CommittedReader
from processor.admin import rebuild_changelog, rebuild_state
from processor.admin.rebuild_state import StateSources
from processor.state.recovery import Recovery, check_owner
from processor.state.store import LOCAL_KEY, Memory, StateStore
from schemas import ids, state, state_keys, topics
from schemas.state import PartitionPosition
from sinks.verify.verification import VerifyOptions, verify
from tests.crash import worker_ledger as crash_ledger
from tests.integration.test_verify import WHOLE, N, changed
from tests.simulation.cluster import Logged
from tests.testkit import histories, recorded_topics
from tests.testkit.histories import INCARNATION, Kept


def nothing(done: int, total: int) -> None:
    pass


def quiet(partition: int, done: int, total: int) -> None:
    assert 0 <= partition < N and done <= total


def made(kafka: str, prefix: str, history: list[Kept], states: list[Kept]) -> StateSources:
    names = recorded_topics.make(kafka, prefix, N)
    recorded_topics.write(kafka, names, history, states)
    config = {"bootstrap.servers": kafka, "client.id": f"{prefix}processor"}
    return StateSources(config, names, histories.LEDGER_ID, N)


@pytest.fixture
def whole(kafka: str, topic_prefix: str) -> StateSources:
    return made(kafka, topic_prefix, WHOLE, WHOLE)


@pytest.fixture
def lost(kafka: str, topic_prefix: str) -> StateSources:
    return made(kafka, topic_prefix, WHOLE, [])


def values(path: Path) -> dict[bytes, bytes]:
    database = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
    found = {key: value for key, value in database.items() if key != LOCAL_KEY}
    database.close()
    return found  # type: ignore[return-value]  # it is raw


def expect(folder: Path, *, rewritten: bool = False) -> None:
    """`rewritten`: the copies are of a `state` that a rebuild has written."""
    for one in WHOLE:
        found = values(folder / f"partition-{one.number}")
        if rewritten:
            position = msgspec.msgpack.decode(found[state_keys.POSITION], type=PartitionPosition)
            assert len(position.incarnation) == 16 and position.incarnation != INCARNATION
            same = replace(position, incarnation=INCARNATION)
            found[state_keys.POSITION] = msgspec.msgpack.encode(same)
        assert found == dict(one.changelog())
    assert sorted(each.name for each in folder.iterdir()) == [f"partition-{n}" for n in range(N)]


def agrees(sources: StateSources, kafka: str) -> bool:
    asked = VerifyOptions(
        config={"bootstrap.servers": kafka},
        names=sources.names,
        partitions=N,
        database_url=None,
        against_rules=True,
    )
    report = verify(asked, nothing)
    assert report.agree, report.text()
    return {each.state for each in report.partitions} == {len(one.journal) for one in WHOLE}


@pytest.mark.parametrize("way", [rebuild_state.from_state, rebuild_state.from_journal])
def test_a_local_copy(whole: StateSources, tmp_path: Path, way: "type[object]") -> None:
    folder = tmp_path / "fresh"
    rebuilt = way(whole, folder, quiet)  # type: ignore[call-arg]  # one of the two
    assert [each.sequence for each in rebuilt] == [len(one.journal) for one in WHOLE]  # type: ignore[attr-defined]  # likewise
    expect(folder)
    with pytest.raises(Failure, match="is not empty"):
        way(whole, folder, quiet)  # type: ignore[call-arg]  # likewise


def test_a_copy_from_the_journal_is_one_that_an_owner_goes_on_with(
    whole: StateSources, tmp_path: Path
) -> None:
    rebuild_state.from_journal(whole, tmp_path, quiet)
    with CommittedReader(whole.config) as reader:
        table = StateStore(tmp_path / "partition-0", 0, Memory(16), 100)
        before = table.local
        recovery = Recovery(reader, whole.names, 0)
        recovery.restore(table, histories.LEDGER_ID, nothing)
        assert table.local == before, "nothing had to be restored"
        position = table.position
        assert position is not None and recovery.check_journal(position) is not None
        recovery.check_inputs(position)
        table.close()


def test_a_journal_that_comes_to_something_else(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    value = WHOLE[0].journal[-1][1]
    history = changed(len(WHOLE[0].journal) - 1, value.replace(b"}", b" }", 1))
    sources = made(kafka, topic_prefix, history, WHOLE)
    with pytest.raises(Failure, match="comes to something else"):
        rebuild_state.from_journal(sources, tmp_path, quiet)
    assert not (tmp_path / "partition-0").exists()


def test_a_broken_journal(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    history = changed(50, WHOLE[0].journal[50][1] + b" ")
    sources = made(kafka, topic_prefix, history, [])
    with pytest.raises(Failure, match="record at 51: it does not follow"):
        rebuild_changelog.write_anew(sources, quiet, replace=False)


def test_a_lost_topic_is_written_anew(lost: StateSources, kafka: str, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is lost"):
        rebuild_state.from_journal(lost, tmp_path / "one", quiet)
    done = rebuild_changelog.write_anew(lost, quiet, replace=False)
    assert [each.sequence for each in done] == [len(one.journal) for one in WHOLE]
    assert agrees(lost, kafka)
    rebuild_state.from_state(lost, tmp_path / "two", quiet)
    expect(tmp_path / "two", rewritten=True)
    with pytest.raises(Failure, match="is there, at sequence"):
        rebuild_changelog.write_anew(lost, quiet, replace=False)


def test_an_owner_that_still_runs_is_fenced(kafka: str, topic_prefix: str) -> None:
    """Of any partition, and not of the first ones alone: else both would write it."""
    partitions = 5
    names = recorded_topics.make(kafka, topic_prefix, partitions)
    config = {"bootstrap.servers": kafka, "client.id": f"{topic_prefix}processor", "log_level": 0}
    sources = StateSources(config, names, histories.LEDGER_ID, partitions)
    with CommittedReader(config) as reader:
        for number in range(partitions):
            lane = topics.lane(number, partitions)
            owner = transactional_producer.fenced_producer(config, lane, 30, threading.Event())
            owner.begin_transaction()
            owner.produce(names.state, b"", b"key", number)
            rebuild_changelog.fenced(sources, lane)
            with pytest.raises(KafkaException, match=r"(?i)fenced"):
                transactional_producer.commit(owner, lane)
            assert reader.last(names.state, number) is None


def test_one_that_was_cut_short_is_lost_still(
    lost: StateSources, kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many transactions; the position comes with the last. Given again, it ends whole."""
    monkeypatch.setattr(rebuild_changelog, "MOST_RECORDS", 40)

    class Cut(Exception):
        pass

    commits = 0
    real = rebuild_changelog._PartitionRebuild._commit

    def some(
        self: rebuild_changelog._PartitionRebuild, changes: list[rebuild_changelog.Change]
    ) -> None:
        nonlocal commits
        commits += 1
        if commits > 5:
            raise Cut
        real(self, changes)

    with monkeypatch.context() as patch:
        patch.setattr(rebuild_changelog._PartitionRebuild, "_commit", some)
        with pytest.raises(Cut):
            rebuild_changelog.write_anew(lost, quiet, replace=False)
    with CommittedReader(lost.config) as reader:
        last = reader.last(lost.names.state, 0)
        assert last is not None and last.key != state_keys.POSITION
    with pytest.raises(Failure, match="does not end with a position"):
        rebuild_state.from_state(lost, tmp_path, quiet)
    rebuild_changelog.write_anew(lost, quiet, replace=False)
    assert agrees(lost, kafka)


def test_a_topic_that_says_something_else_is_replaced(whole: StateSources, kafka: str) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    account = next(v for v in WHOLE[0].state.values().values() if isinstance(v, state.AccountState))
    intruder = msgspec.msgpack.encode(account)
    producer.produce(whole.names.state, intruder, state_keys.account("intruder"), 0)
    producer.flush(20)
    rebuild_changelog.write_anew(whole, quiet, replace=True)
    assert agrees(whole, kafka)


def test_a_position_without_an_incarnation_is_refused(whole: StateSources, tmp_path: Path) -> None:
    producer = Producer(dict(whole.config))
    for one in WHOLE:
        older = msgspec.msgpack.encode(replace(one.position(), incarnation=b""))
        producer.produce(whole.names.state, older, state_keys.POSITION, one.number)
    producer.flush(20)
    with pytest.raises(Failure, match=r"before version 0\.1\.0 cannot be carried over"):
        rebuild_state.from_state(whole, tmp_path / "one", quiet)
    with pytest.raises(Failure, match=r"before version 0\.1\.0 cannot be carried over"):
        rebuild_state.from_journal(whole, tmp_path / "two", quiet)


def with_commands(partition: int, commands: list[Logged]) -> list[Kept]:
    return [
        dataclasses.replace(one, commands=commands) if one.number == partition else one
        for one in WHOLE
    ]


def with_coordination(partition: int, messages: list[Logged]) -> list[Kept]:
    return [
        dataclasses.replace(one, messages=messages) if one.number == partition else one
        for one in WHOLE
    ]


COMMANDS, COORDINATION = WHOLE[1].commands, WHOLE[1].messages
OTHER = Logged(b"account", b'{"kind":"credit"}', 1)
LAST_COMMAND, LAST_MESSAGE = len(COMMANDS) - 1, len(COORDINATION) - 1


@pytest.mark.parametrize(
    ("history", "topic", "offset"),
    [
        (with_commands(1, [*COMMANDS[:-1], OTHER]), "commands", LAST_COMMAND),
        (with_commands(1, [*COMMANDS[:7], OTHER, *COMMANDS[8:]]), "commands", 7),
        # The account that a command is for is its key.
        (
            with_commands(1, [*COMMANDS[:7], COMMANDS[7]._replace(key=b"x"), *COMMANDS[8:]]),
            "commands",
            7,
        ),
        # A copy by record: the offsets of aborted records and markers are gone.
        (with_commands(1, [*COMMANDS[:9], *COMMANDS[10:]]), "commands", 9),
        (with_commands(1, [*COMMANDS[:9], *COMMANDS[10:], COMMANDS[-1]]), "commands", 9),
        (with_commands(1, COMMANDS[:-1]), "commands", LAST_COMMAND),
        (with_commands(1, []), "commands", 0),
        (with_coordination(1, [*COORDINATION[:-1], OTHER]), "coordination", LAST_MESSAGE),
        (with_coordination(1, COORDINATION[:-1]), "coordination", LAST_MESSAGE),
        (with_coordination(1, []), "coordination", 0),
    ],
)
def test_inputs_that_are_not_those_that_were_decided(
    kafka: str, topic_prefix: str, history: list[Kept], topic: str, offset: int
) -> None:
    """The rebuild names the record, and leaves `state` of every partition as it is."""
    sources = made(kafka, topic_prefix, history, WHOLE)
    name = getattr(sources.names, topic)
    with pytest.raises(Failure, match=rf"partition 1 of `{name}`, offset {offset}: "):
        rebuild_changelog.write_anew(sources, quiet, replace=True)
    with CommittedReader(sources.config) as reader:
        for one in WHOLE:
            last = reader.last(sources.names.state, one.number)
            assert last is not None
            assert last.value == msgspec.msgpack.encode(one.position())


def test_a_command_that_the_journal_passes_over(kafka: str, topic_prefix: str) -> None:
    """Else it would never have an outcome."""
    shifted = with_commands(1, [*COMMANDS[:5], OTHER, *COMMANDS[5:]])
    sources = made(kafka, topic_prefix, shifted, [])
    with pytest.raises(Failure, match=rf"partition 1 of `{sources.names.commands}`, offset 5: "):
        rebuild_changelog.write_anew(sources, quiet, replace=False)


def test_messages_that_were_read_and_deleted(kafka: str, topic_prefix: str) -> None:
    """As a processor deletes them: all but the last one."""
    sources = made(kafka, topic_prefix, WHOLE, [])
    admin = AdminClient({"bootstrap.servers": kafka})
    kept = [
        TopicPartition(sources.names.coordination, one.number, len(one.messages) - 1)
        for one in WHOLE
    ]
    for deleted in admin.delete_records(kept).values():
        deleted.result(20)
    rebuild_changelog.write_anew(sources, quiet, replace=False)
    assert agrees(sources, kafka)


def test_a_record_beyond_its_topic_is_named(whole: StateSources) -> None:
    with (
        CommittedReader(whole.config) as reader,
        pytest.raises(Failure, match=rf"partition 0 of `{whole.names.commands}`, offset 99999: "),
    ):
        reader.at(whole.names.commands, 0, 99_999)


# With a processor


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[crash_ledger.WorkerLedger]:
    with crash_ledger.worker_ledger(kafka, topic_prefix, tmp_path) as one:
        yield one


def sources_of(ledger: crash_ledger.WorkerLedger) -> StateSources:
    client_id = ids.service_id(ledger.prefix, "streamledger", "processor")
    config = {"bootstrap.servers": ledger.bootstrap, "client.id": client_id}
    return StateSources(config, ledger.names, "streamledger", ledger.partitions)


def test_the_processor_goes_on_with_a_topic_written_anew(ledger: crash_ledger.WorkerLedger) -> None:
    worker = ledger.ready()
    sender, receiver = ledger.open(0, amount=10_000), ledger.open(1)
    # What is between partitions comes before commands: the receiver must be there first.
    ledger.wait_until(ledger.audit.settled, 20)
    transfer = {"kind": "transfer", "account": sender, "to": receiver, "amount": 100}
    first = ledger.send({**transfer, "id": "before"})
    assert ledger.outcome(first).step == "posted"
    ledger.wait_until(ledger.audit.settled, 20)
    worker.stop()
    ledger.recreate_topic(ledger.names.state)
    assert "the state was lost" in ledger.refused()
    rebuild_changelog.write_anew(sources_of(ledger), lambda *told: None, replace=False)
    ledger.ready()
    second = ledger.send({**transfer, "id": "after"})
    again = ledger.send({**transfer, "id": "before"})
    assert ledger.outcome(second).step == "posted"
    assert ledger.outcome(again).step == "replayed"
    assert ledger.settle_and_audit() == []


def credit(ledger: crash_ledger.WorkerLedger, accounts: list[str], id: str) -> None:
    command = {"kind": "credit", "amount": 1, "id": id}
    sent = ledger.send_all([({**command, "account": each}, None, None) for each in accounts])
    assert {told.step for told in ledger.outcomes(sent)} == {"posted"}


@pytest.mark.parametrize("copy", ["older", "newest"])
def test_a_copy_from_before_a_rebuild_is_wiped(
    ledger: crash_ledger.WorkerLedger, copy: str, tmp_path: Path
) -> None:
    """The rebuilt topic reuses the offsets of the old one, so an older copy seems to be a part of
    it, and a newer one to be ahead of it."""
    older = ledger.ready(data="older")
    first = [ledger.open(partition) for partition in (0, 1) for _ in range(40)]
    credit(ledger, first, "before")
    assert older.stop() == 0
    newest = ledger.ready(data="newest")
    for turn in range(3):
        credit(ledger, first, f"meanwhile-{turn}")
    second = [ledger.open(partition) for partition in (0, 1) for _ in range(80)]
    credit(ledger, second, "meanwhile")
    assert newest.stop() == 0
    table = StateStore(tmp_path / "older" / "partition-0", 0, Memory(16), 100)
    offset = table.local.changelog_next_offset
    table.close()

    ledger.recreate_topic(ledger.names.state)
    rebuild_changelog.write_anew(sources_of(ledger), lambda *told: None, replace=False)
    with CommittedReader(ledger.client) as reader:
        assert reader.range(ledger.names.state, 0).end > offset, "the older copy's is within it"

    worker = ledger.ready(data=copy)
    credit(ledger, [*first, *second], "after")
    assert ledger.settle_and_audit() == []
    assert worker.log_text().count("another incarnation of `") == ledger.partitions


def test_checks_of_the_owner_are_those_of_a_start(whole: StateSources, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="LEDGER_ID is wrong"):
        rebuild_state.from_journal(whole._replace(ledger_id="another"), tmp_path, quiet)
    position = WHOLE[0].position()
    with pytest.raises(Failure, match="partitions for life"):
        check_owner(position, histories.LEDGER_ID, N + 1)
