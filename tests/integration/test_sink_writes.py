"""The sink on a real Kafka and Postgres: tables and results are what the journal says."""

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psycopg
import pytest

from sinks.ledger import Ledger, Queries, Superseded
from sinks.postgres import Connections
from sinks.reading import Chain, Read, beginning
from sinks.rows import Rows
from tests import sink_rig, stories
from tests.builders import account_id
from tests.simulation.cluster import LEDGER_ID
from tests.sink_rig import PARTITIONS, Rig, check_tables, history
from tests.waiting import eventually


@pytest.fixture
def rig(kafka: str, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    with sink_rig.made(kafka, database, topic_prefix, tmp_path) as made:
        yield made


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
    _, told = sink.get("/ready")
    assert [f'"{n}": "running"' in told for n in range(PARTITIONS)] == [True] * PARTITIONS
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


def ledger(connections: Connections, partition: int, id: str = LEDGER_ID) -> Ledger:
    return Ledger(connections, Queries(), id, partition, threading.Event(), lambda step: None)


def reads(partition: int) -> Iterator[Read]:
    values = history().partitions[partition].whole
    return (Read(2 * number, value) for number, value in enumerate(values))


@pytest.mark.parametrize("size", [7, 100])
def test_batches_of_any_size_make_the_same_tables(
    rig: Rig, connections: Connections, size: int
) -> None:
    """Small ones go another way than large ones."""
    for partition in range(PARTITIONS):
        given, writer = reads(partition), ledger(connections, partition)
        chain = Chain(LEDGER_ID, partition, beginning(LEDGER_ID, partition))
        while batch := list(islice(given, size)):
            before, rows = chain.position, Rows(partition)
            for read in batch:
                rows.add(chain.follow(read))
            writer.write(before, chain.position, rows)
        assert writer.position() == chain.position
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
    chain = Chain(stories.LEDGER_ID, 0, beginning(stories.LEDGER_ID, 0))
    writer, given = ledger(connections, 0, stories.LEDGER_ID), iter(stage.places[0].journal)
    while batch := list(islice(given, size)):
        before, rows = chain.position, Rows(0)
        for value in batch:
            rows.add(chain.follow(Read(chain.position.next_offset, value)))
        writer.write(before, chain.position, rows)
    with connections.use() as connection:
        told = dict(connection.execute("SELECT id, metadata FROM ledger.accounts").fetchall())
    assert told == {account_id("a"): {"tier": '"gold"', "name": "A\\da"}, account_id("b"): None}


@pytest.mark.parametrize("size", [5, 50])
def test_a_zombie_writes_nothing(connections: Connections, size: int) -> None:
    """Two that believe the partition is theirs, with the same batch or with others."""
    living, zombie = ledger(connections, 0), ledger(connections, 0)
    chain = Chain(LEDGER_ID, 0, beginning(LEDGER_ID, 0))
    given = reads(0)
    for _ in range(3):
        before, rows = chain.position, Rows(0)
        for read in islice(given, size):
            rows.add(chain.follow(read))
        living.write(before, chain.position, rows)
        with pytest.raises(Superseded):
            zombie.write(before, chain.position, rows)
        assert living.position() == chain.position


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
    chain, rows = Chain(LEDGER_ID, 0, beginning(LEDGER_ID, 0)), Rows(0)
    for read in islice(reads(0), 50):
        rows.add(chain.follow(read))
    writer = ledger(connections, 0)
    writer.write(beginning(LEDGER_ID, 0), chain.position, rows)
    assert writer.position() == chain.position
    (found,) = rig.query("SELECT count(*) AS commands FROM ledger.commands")
    assert found["commands"] == len(rows.commands)
