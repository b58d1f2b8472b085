"""verify and rebuild beside a ledger that is at work: a processor, a sink, and producers that send
whatever they like."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas import state_keys
from sinks import rebuild
from sinks.verify.report import VerifyReport
from sinks.verify.verification import VerifyOptions, verify
from tests.crash import worker_ledger as crash_ledger
from tests.crash.load_generator import LoadGenerator
from tests.testkit.sink_rig import Sink

PARTITIONS = 2
SEED = 77
RATE = 150.0
SETTLED_S = 90.0


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[crash_ledger.WorkerLedger]:
    with crash_ledger.worker_ledger(kafka, topic_prefix, tmp_path, PARTITIONS) as running_ledger:
        yield running_ledger


@pytest.fixture
def sink(
    ledger: crash_ledger.WorkerLedger, database: str, topic_prefix: str, tmp_path: Path
) -> Iterator[Sink]:
    settings = {
        "KAFKA_BROKERS": ledger.bootstrap,
        "TOPIC_PREFIX": topic_prefix,
        "PARTITIONS": str(PARTITIONS),
        "DATABASE_URL": database,
    }
    sink = Sink(1, tmp_path / "sink", settings).start()
    yield sink
    sink.kill()


def verify_options(
    ledger: crash_ledger.WorkerLedger, database: str, *, against_rules: bool
) -> VerifyOptions:
    return VerifyOptions(
        config={**ledger.client},
        names=ledger.names,
        partitions=PARTITIONS,
        database_url=database,
        against_rules=against_rules,
    )


def agreed(
    ledger: crash_ledger.WorkerLedger, database: str, *, against_rules: bool
) -> VerifyReport:
    options = verify_options(ledger, database, against_rules=against_rules)
    report = verify(options, lambda done, total: None)
    assert report.agree, report.text() + ledger.tails()
    return report


def test_beside_a_live_system(ledger: crash_ledger.WorkerLedger, sink: Sink, database: str) -> None:
    ledger.ready()
    load = LoadGenerator(ledger.client, ledger.names.commands, PARTITIONS, SEED, RATE, hanging=0.0)
    load.start()

    def written() -> int:
        ledger.audit.update()
        return sum(books.sequence for books in ledger.audit.books)

    verified = PARTITIONS  # a genesis in each
    for turn in range(4):
        # The ledger continues meanwhile: it always has more than was verified.
        ledger.wait_until(lambda: written() > verified, SETTLED_S)  # noqa: B023
        report = agreed(ledger, database, against_rules=turn % 2 == 1)
        verified = sum(each.sequence for each in report.partitions)
        if turn == 2:
            # The sink waits, then continues in the new tables.
            sources = rebuild.PostgresSources(
                {**ledger.client}, ledger.names, "streamledger", PARTITIONS, database
            )
            rebuild.rebuild(sources, lambda *progress: None)
    ledger.wait_until(lambda: written() > verified, SETTLED_S)
    load.stop()
    assert sink.running(), sink.log_text()[-2_000:]
    ledger.wait_until(ledger.audit.settled, SETTLED_S)

    def caught_up() -> bool:
        last = agreed(ledger, database, against_rules=False)
        return all(each.sequence == each.postgres == each.state for each in last.partitions)

    ledger.wait_until(caught_up, SETTLED_S)
    last = agreed(ledger, database, against_rules=True)
    assert {each.transit for each in last.currencies} == {0}
    assert all(each.waiting == 0 for each in last.partitions)
    assert sink.stop() == 0


def test_what_somebody_else_writes_to_the_state_is_named(
    ledger: crash_ledger.WorkerLedger, sink: Sink, database: str
) -> None:
    ledger.ready()
    account = ledger.open(0, amount=500)
    at = ledger.send({"kind": "debit", "account": account, "amount": 1, "id": "one"})
    assert ledger.outcome(at).step == "posted"
    ledger.wait_until(ledger.audit.settled, 20)
    producer = Producer(ledger.client)
    producer.produce(ledger.names.state, None, state_keys.account(account), 0)
    producer.flush(20)
    # The last record of a partition must be its position.
    next = ledger.send({"kind": "debit", "account": ledger.open(0), "amount": 1, "id": "two"})
    ledger.outcome(next)
    ledger.wait_until(ledger.audit.settled, 20)
    report = verify(verify_options(ledger, database, against_rules=False), lambda done, total: None)
    named = [each for each in report.differences if each.copy == "state"]
    assert [each.account for each in named] == [account], report.text()
