"""A sink that dies at each of its steps, is cut off, is frozen, or meets tables of last night: rows
and results are there once each.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from schemas.topics import RESULTS
from tests import conftest
from tests.testkit import sink_rig
from tests.testkit.programs import KILLED
from tests.testkit.sink_rig import Proxy, Rig, history
from tests.testkit.waiting import eventually

STEPS = (
    "fenced",
    "positioned",
    "before_rows",
    "mid_rows",
    "before_rows_commit",
    "after_rows",
    "mid_results",
    "results_sent",
    "before_results_commit",
    "after_results",
)


@pytest.fixture
def rig(kafka: str, database: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    with sink_rig.running_rig(kafka, database, topic_prefix, tmp_path) as rig:
        yield rig


def test_killed_at_every_step(rig: Rig) -> None:
    cluster = history()
    sink = rig.sink()
    for part, step in enumerate(STEPS):
        rig.publish_part(cluster, part, len(STEPS))
        assert sink.start(CRASH_AT=step).wait(60) == KILLED, f"{step}:\n{sink.log_text()[-3000:]}"
        rig.check_order()
    sink.start()
    rig.settle(cluster)
    rig.check(cluster)
    assert sink.stop() == 0


def test_tables_that_were_put_back_are_brought_up_to_date_and_no_result_is_sent_again(
    rig: Rig, postgres: str
) -> None:
    cluster = history()
    rig.publish_part(cluster, 0, 2)
    sink = rig.sink().start()
    rig.reach(cluster, 0, 2)
    assert sink.stop() == 0
    name = rig.database.rpartition("/")[2]
    kept = f"{name}_kept"
    conftest.create(postgres, kept, name)
    try:
        rig.publish_part(cluster, 1, 2)
        sink.start()
        rig.settle(cluster)
        assert sink.stop() == 0
        rig.database = conftest.beside(postgres, kept)
        older = rig.sink(DATABASE_URL=rig.database).start()
        rig.settle(cluster)
        rig.check(cluster)
        assert older.stop() == 0
    finally:
        conftest.drop(postgres, kept)


def test_tables_that_were_put_back_under_a_running_sink_end_it_and_the_next_goes_on(
    rig: Rig, postgres: str
) -> None:
    cluster = history()
    rig.publish_part(cluster, 0, 2)
    sink = rig.sink().start()
    rig.reach(cluster, 0, 2)
    for table in ("entries", "system_entries", "transactions", "commands", "holds", "accounts"):
        rig.execute(f"TRUNCATE ledger.{table}")
    rig.execute("TRUNCATE ledger.system_accounts, ledger.positions")
    rig.publish_part(cluster, 1, 2)
    assert sink.wait(60) == 70
    assert "the tables are no longer at offset" in sink.log_text()
    sink.start()
    rig.settle(cluster)
    rig.check(cluster)
    assert sink.stop() == 0


def test_postgres_is_cut_off_again_and_again(rig: Rig) -> None:
    cluster = history()
    proxy = Proxy(rig.database)
    sink = rig.sink(DATABASE_URL=proxy.database).start()
    try:
        eventually(lambda: "waiting for Postgres" in sink.log_text(), 30)
        proxy.serve()
        for part in range(8):
            seen = proxy.bytes
            rig.publish_part(cluster, part, 8)
            # In the middle of whatever it is at.
            eventually(lambda: proxy.bytes > seen + 2_000, 60)  # noqa: B023
            if part % 3 == 0:
                proxy.cut()
                proxy.serve()
            else:
                proxy.cut_connections()
        rig.settle(cluster)
        rig.check(cluster)
        assert sink.stop() == 0
    finally:
        proxy.cut()


def test_postgres_may_be_away_when_the_sink_is_told_to_stop(rig: Rig) -> None:
    cluster = history()
    proxy = Proxy(rig.database)
    proxy.serve()
    sink = rig.sink(DATABASE_URL=proxy.database).start()
    try:
        rig.publish_part(cluster, 0, 2)
        rig.reach(cluster, 0, 2)
        proxy.cut()
        rig.publish_part(cluster, 1, 2)
        eventually(lambda: "waiting for Postgres" in sink.log_text(), 30)
        eventually(lambda: "results wait for their rows" in sink.log_text(), 30)
        assert sink.stop() == 0
        assert rig.has_part(cluster, 0, 2)
        assert rig.stable(RESULTS)
        rig.check_order()
    finally:
        proxy.cut()


def test_results_wait_for_their_rows_and_nobody_waits_for_the_results(rig: Rig) -> None:
    cluster = history()
    sink = rig.sink().start()
    rig.publish_part(cluster, 0, 2)
    rig.reach(cluster, 0, 2)
    with psycopg.connect(rig.database) as somebody:
        somebody.execute("SELECT FROM ledger.positions FOR UPDATE")
        rig.publish_part(cluster, 1, 2)
        # One of the lanes has both partitions that are 0 modulo 2, the other one has the third.
        eventually(lambda: sink.log_text().count("results wait for their rows") >= 2, 30)
        eventually(lambda: rig.stable(RESULTS), 30)
        rig.check_order()
        assert rig.has_part(cluster, 0, 2)
    rig.settle(cluster)
    rig.check(cluster)
    assert sink.stop() == 0, sink.tail()


def test_one_that_was_frozen_wakes_to_find_another_in_its_place(rig: Rig) -> None:
    cluster = history()
    frozen = rig.sink().start()
    rig.publish_part(cluster, 0, 3)
    rig.reach(cluster, 0, 3)
    frozen.send(signal.SIGSTOP)
    rig.publish_part(cluster, 1, 3)
    other = rig.sink().start()
    rig.reach(cluster, 1, 3)
    frozen.send(signal.SIGCONT)
    rig.publish_part(cluster, 2, 3)
    rig.settle(cluster)
    rig.check(cluster)
    assert other.stop() == 0


@pytest.mark.parametrize("step", ["before_rows", "before_results_commit"])
def test_one_that_freezes_at_a_step_writes_nothing_when_it_wakes(rig: Rig, step: str) -> None:
    cluster = history()
    frozen = rig.sink().start(CRASH_AT=f"freeze:{step}")
    rig.publish_part(cluster, 0, 2)
    eventually(frozen.frozen, 60)
    rig.publish_part(cluster, 1, 2)
    other = rig.sink().start()
    rig.settle(cluster, 120)
    frozen.send(signal.SIGCONT)
    assert frozen.wait(60) == 70, frozen.tail()
    rig.check(cluster)
    assert other.stop() == 0


def test_two_share_the_partitions_and_one_takes_over_what_the_other_leaves(rig: Rig) -> None:
    cluster = history()
    sinks = [rig.sink().start() for _ in range(2)]
    rig.publish_part(cluster, 0, 3)
    rig.reach(cluster, 0, 3)
    eventually(lambda: all("owning partition" in sink.log_text() for sink in sinks), 60)
    rig.publish_part(cluster, 1, 3)
    assert sinks[0].stop() == 0
    rig.publish_part(cluster, 2, 3)
    rig.settle(cluster)
    rig.check(cluster)
    assert sinks[1].stop() == 0


def test_who_comes_is_given_a_share_at_once_however_long_a_session_may_be_silent(rig: Rig) -> None:
    rig.settings["SESSION_TIMEOUT_MS"] = "300000"
    first = rig.sink().start()
    eventually(lambda: "owning partition" in first.log_text(), 60)
    second = rig.sink().start()
    eventually(lambda: "owning partition" in second.log_text(), 30)
    assert [first.stop(), second.stop()] == [0, 0]
