"""The sink on a real Kafka and Postgres: tables and results are what the journal says."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import psycopg
import pytest

from sinks.journal_chain import JournalChain, ReadJournalRecord, beginning
from sinks.postgres.ledger_writer import LedgerWriter, PartitionBatch, Superseded
from sinks.postgres.projection import Rows
from sinks.postgres.write_connection import Connections
from tests.simulation.cluster import LEDGER_ID
from tests.testkit import sink_rig, stories
from tests.testkit.builders import account_id
from tests.testkit.sink_rig import PARTITIONS, Rig, check_tables, history
from tests.testkit.waiting import eventually


@pytest.fixture
def rig(kafka: str, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    with sink_rig.running_rig(kafka, database, topic_prefix, tmp_path) as rig:
        yield rig


def test_tables_and_results_are_what_the_journal_says(rig: Rig) -> None:
    cluster = history()
    rig.publish_all(cluster)
    sink = rig.sink().start()
    rig.settle(cluster)
    rig.check(cluster)
    assert sink.stop() == 0


def test_it_follows_a_journal_that_is_being_written_and_tells_how_far_it_is(rig: Rig) -> None:
    cluster = history()
    sink = rig.sink().start()
    for part in range(20):
        rig.publish_part(cluster, part, 20)
    rig.settle(cluster)
    rig.check(cluster)
    eventually(lambda: sink.get("/ready")[0] == 200, 20)
    _, body = sink.get("/ready")
    assert [f'"{n}": "running"' in body for n in range(PARTITIONS)] == [True] * PARTITIONS
    _, metrics = sink.get("/metrics")
    total = sum(len(partition.whole) for partition in cluster.partitions)
    assert f"streamledger_sink_records_total {float(total)}" in metrics
    for partition in range(PARTITIONS):
        lag = f'streamledger_sink_lag_records{{partition="{partition}"}}'
        assert f"{lag} 0.0" in metrics
    assert sink.stop() == 0


@pytest.fixture
def connections(database: str) -> Iterator[Connections]:
    made = Connections(database, "test-sink", 2)
    yield made
    made.close()


def ledger(connections: Connections, id: str = LEDGER_ID) -> LedgerWriter:
    return LedgerWriter(connections, id, threading.Event(), lambda step: None)


def reads(partition: int) -> Iterator[ReadJournalRecord]:
    values = history().partitions[partition].whole
    return (ReadJournalRecord(2 * number, value) for number, value in enumerate(values))


def taken(chain: JournalChain, batch: Iterable[ReadJournalRecord]) -> PartitionBatch:
    before, rows = chain.position, None
    for read in batch:
        record = chain.follow(read)
        rows = rows or Rows(record.partition)
        rows.add(record)
    assert rows is not None
    return PartitionBatch(before, chain.position, rows)


@pytest.mark.parametrize("size", [7, 100])
def test_batches_of_any_size_make_the_same_tables(
    rig: Rig, connections: Connections, size: int
) -> None:
    """Each of them has records of every partition that has any left."""
    writer = ledger(connections)
    given = [reads(partition) for partition in range(PARTITIONS)]
    chains = [JournalChain(LEDGER_ID, n, beginning(LEDGER_ID, n)) for n in range(PARTITIONS)]
    while parts := [
        taken(chain, batch)
        for chain, each in zip(chains, given, strict=True)
        if (batch := list(islice(each, size)))
    ]:
        writer.write(parts)
    assert [writer.position(n) for n in range(PARTITIONS)] == [c.position for c in chains]
    check_tables(rig, history())


@pytest.mark.parametrize("size", [1, 3, 20])
def test_an_account_has_the_metadata_that_the_journal_left_it(
    connections: Connections, size: int
) -> None:
    stage = stories.play("""
        open a wallet NGN meta=name:Ada,colour:red
        open b wallet NGN meta=name:Bem
        change a meta=colour:,tier:"gold" limit=-5
        credit a 7
        freeze a
        change a meta=name:
        change b meta=name:
        credit b 1
        change a meta=name:A\\da
    """)
    chain = JournalChain(stories.LEDGER_ID, 0, beginning(stories.LEDGER_ID, 0))
    writer, given = ledger(connections, stories.LEDGER_ID), iter(stage.places[0].journal)
    while batch := list(islice(given, size)):
        first = chain.position.next_offset
        writer.write(
            [taken(chain, (ReadJournalRecord(n, value) for n, value in enumerate(batch, first)))]
        )
    with connections.use() as connection:
        metadata = dict(connection.execute("SELECT id, metadata FROM ledger.accounts").fetchall())
    assert metadata == {account_id("a"): {"tier": '"gold"', "name": "A\\da"}, account_id("b"): None}


@pytest.mark.parametrize("size", [5, 50])
def test_a_zombie_writes_nothing(connections: Connections, size: int) -> None:
    """Two that believe the partition is theirs, with the same batch or with others."""
    living, zombie = ledger(connections), ledger(connections)
    chain = JournalChain(LEDGER_ID, 0, beginning(LEDGER_ID, 0))
    given = reads(0)
    for _ in range(3):
        part = taken(chain, islice(given, size))
        living.write([part])
        with pytest.raises(Superseded):
            zombie.write([part])
        assert living.position(0) == chain.position


def test_one_partition_that_is_not_where_it_was_keeps_the_others_from_being_written(
    connections: Connections,
) -> None:
    writer = ledger(connections)
    chains = [JournalChain(LEDGER_ID, n, beginning(LEDGER_ID, n)) for n in range(2)]
    one, two = (taken(chain, islice(reads(n), 20)) for n, chain in enumerate(chains))
    writer.write([two])
    with pytest.raises(Superseded, match="partition 1"):
        writer.write([one, two])
    assert writer.position(0) == beginning(LEDGER_ID, 0)
    writer.write([one])


@pytest.mark.parametrize(
    ("sqlstate", "what"),
    [
        ("40001", "serialization failure"),
        ("40P01", "deadlock"),
        ("53100", "full disk"),
        ("25006", "read only, as a standby is"),
        ("57P01", "shut down by an administrator"),
    ],
)
def test_what_passes_is_waited_for(
    rig: Rig, connections: Connections, database: str, sqlstate: str, what: str
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            f"""
            CREATE SEQUENCE ledger.troubles;
            CREATE FUNCTION ledger.trouble() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF nextval('ledger.troubles') <= 2 THEN
                    RAISE EXCEPTION '{what}' USING ERRCODE = '{sqlstate}';
                END IF;
                RETURN NEW;
            END $$;
            CREATE TRIGGER trouble BEFORE INSERT ON ledger.commands
                FOR EACH ROW EXECUTE FUNCTION ledger.trouble();
            """
        )
    chain = JournalChain(LEDGER_ID, 0, beginning(LEDGER_ID, 0))
    part = taken(chain, islice(reads(0), 50))
    writer = ledger(connections)
    writer.write([part])
    assert writer.position(0) == chain.position
    (found,) = rig.query("SELECT count(*) AS commands FROM ledger.commands")
    assert found["commands"] == len(part.rows.commands)


@pytest.mark.parametrize("amid", ["a statement and the next", "a copy"])
def test_one_that_froze_in_a_batch_holds_up_its_successor_for_seconds(
    connections: Connections, database: str, amid: str
) -> None:
    chain = JournalChain(LEDGER_ID, 0, beginning(LEDGER_ID, 0))
    given = reads(0)
    writer = ledger(connections)
    writer.write([taken(chain, islice(given, 20))])
    with contextlib.closing(psycopg.connect(database, application_name="test-sink")) as frozen:
        frozen.execute("SELECT * FROM ledger.positions FOR UPDATE")
        if amid == "a copy":
            frozen.pgconn.exec_(b"COPY ledger.entries FROM STDIN")
        writer.write([taken(chain, islice(given, 20))])
        assert writer.position(0) == chain.position
