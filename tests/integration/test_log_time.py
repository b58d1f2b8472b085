"""Clocks that are wrong: a broker's, whose stamp would let years pass, and a worker's own.

A stamp far in the future is made by a topic that for a moment keeps the times that records bring
along. A worker's clock is set by a file that its programs read instead.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from plumbing.kafka.committed_reader import CommittedReader
from processor.admin import rebuild_state
from processor.admin.rebuild_state import StateSources
from schemas import state_keys
from sinks.verify.verification import VerifyOptions, verify
from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import Position, WorkerLedger
from tests.testkit.programs import inherited
from tests.testkit.worker_processes import Worker

ROOT = Path(__file__).parents[2]
HOUR_MS = 3_600_000
YEARS_MS = 5 * 365 * 24 * HOUR_MS
CONFIRM_S = 20.0
TICK = b'{"message":"tick"}'

# Set before any module of a program is imported.
WRONG_CLOCK = """
import time
from pathlib import Path

real, offset = time.time, Path(__file__).with_name("offset")
time.time = lambda: real() + float(offset.read_text())
"""


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path) as made:
        yield made


def stamp(ledger: WorkerLedger, topic: str, **options: str) -> None:
    """Sets how the topic's records get their times."""
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in options.items()
    ]
    changed = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    (done,) = ledger.admin.incremental_alter_configs([changed]).values()
    done.result(CONFIRM_S)


def produce_later(ledger: WorkerLedger, topic: str, key: bytes | None, *values: bytes) -> list[int]:
    """Records of partition 0 whose broker's clock is years ahead; their offsets."""
    offsets: list[int] = []
    stamp(
        ledger,
        topic,
        message_timestamp_type="CreateTime",
        message_timestamp_after_max_ms=str(2**62),
    )
    producer = Producer({**ledger.client, "acks": "all"})
    for value in values:
        producer.produce(
            topic,
            value,
            key,
            0,
            timestamp=int(time.time() * 1_000) + YEARS_MS,
            on_delivery=lambda error, message: offsets.append(
                -1 if error else message.offset() or 0
            ),
        )
    assert producer.flush(CONFIRM_S) == 0
    stamp(ledger, topic, message_timestamp_type="LogAppendTime")
    return offsets


def decide(ledger: WorkerLedger, *words: str, exit_code: int = 0) -> str:
    return run(ledger, "log-time", *words, exit_code=exit_code)


def run(ledger: WorkerLedger, *words: str, exit_code: int = 0) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "compose.cli.main", *words],
        cwd=ROOT / "tests",
        env={
            **inherited(),
            "KAFKA_BROKERS": ledger.bootstrap,
            "TOPIC_PREFIX": ledger.prefix,
            "PARTITIONS": str(ledger.partitions),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == exit_code, ended.stderr
    return ended.stdout + ended.stderr


def now() -> str:
    return datetime.now(UTC).isoformat()


def agree(ledger: WorkerLedger, folder: Path) -> None:
    """Every copy that can be made agrees with the journal, and with the rules."""
    report = verify(
        VerifyOptions(
            config=ledger.client,
            names=ledger.names,
            partitions=ledger.partitions,
            database_url=None,
            against_rules=True,
        ),
        lambda *_: None,
    )
    ours = [each for each in report.differences if each.copy not in ("results", "postgres")]
    assert ours == []
    sources = StateSources(
        {**ledger.client, "client.id": "rebuild"}, ledger.names, "streamledger", ledger.partitions
    )
    rebuild_state.from_journal(sources, folder / "rebuilt", lambda *_: None)


def journal(ledger: WorkerLedger, partition: int = 0) -> list[dict[str, Any]]:
    with CommittedReader({**ledger.client, "client.id": "test"}) as reader:
        topic = ledger.names.journal
        start, end = reader.range(topic, partition)
        return [json.loads(each.value or b"") for each in reader.read(topic, partition, start, end)]


def open_hold(ledger: WorkerLedger) -> str:
    """An account of partition 0 with 100, of which 40 are held for a day."""
    account = ledger.open(0, amount=100)
    expires = int(time.time() * 1_000) + 24 * HOUR_MS
    hold = {"kind": "hold", "account": account, "amount": 40, "expires_at_ms": expires, "id": "h"}
    assert ledger.outcome(ledger.send(hold)).step == "posted"
    return account


def available(ledger: WorkerLedger, account: str) -> int:
    ledger.audit.update()
    found = ledger.audit.books[ledger.partition_of(account)].accounts[account]
    return found.balance - found.held


def times_are_of_today(ledger: WorkerLedger) -> bool:
    latest = max(record["time_ms"] for record in journal(ledger))
    return bool(abs(latest - time.time() * 1_000) < HOUR_MS)


def credit(account: str, id: str) -> dict[str, Any]:
    return {"kind": "credit", "account": account, "amount": 1, "id": id}


def test_a_command_of_the_far_future_waits_for_an_operator(
    ledger: WorkerLedger, tmp_path: Path
) -> None:
    worker = ledger.ready(data="one")
    account = open_hold(ledger)
    values = [json.dumps(credit(account, f"late{n}")).encode() for n in range(3)]
    first, *_, last = produce_later(ledger, ledger.names.commands, account.encode(), *values)
    later = ledger.send(credit(account, "later"))
    assert worker.wait(40) == 1, worker.tail()
    where = f"partition 0 of `{ledger.names.commands}`, record at {first}: its log time is"
    for told in (worker.log_text(), ledger.refused(data="one")):
        assert where in told
        assert f"streamledger log-time 0:{first} --topic commands --time" in told
    ledger.audit.update()
    assert first not in ledger.audit.books[0].outcomes, "it is not decided"
    assert available(ledger, account) == 60, "and nothing has expired"

    said = decide(
        ledger, f"0:{first}", "--topic", "commands", "--through", str(last), "--time", now()
    )
    assert said.startswith(f"written: partition 0 decides commands {first} to {last} as of ")
    ledger.ready(data="one")
    outcomes = ledger.outcomes([Position(0, first), Position(0, last), later])
    assert [each.step for each in outcomes] == ["posted"] * 3
    assert available(ledger, account) == 64, "the hold is open"
    assert times_are_of_today(ledger)
    assert [record["step"] for record in journal(ledger)].count("timed") >= 1
    assert ledger.settle_and_audit() == []
    agree(ledger, tmp_path)

    said = decide(ledger, f"0:{first}", "--topic", "commands", "--time", now(), exit_code=1)
    assert "was decided, at its log's own time" in said


def test_a_message_of_the_far_future_is_decided_though_its_decision_lies_behind_it(
    ledger: WorkerLedger, tmp_path: Path
) -> None:
    worker = ledger.ready(data="one")
    account = open_hold(ledger)
    (offset,) = produce_later(ledger, ledger.names.coordination, None, TICK)
    assert worker.wait(40) == 1, worker.tail()
    told = worker.log_text()
    assert (
        f"partition 0 of `{ledger.names.coordination}`, record at {offset}: its log time is" in told
    )
    said = decide(ledger, f"0:{offset}", "--topic", "coordination", "--time", now())
    assert said.startswith(f"written: partition 0 decides coordination {offset} to {offset} as of ")
    ledger.ready(data="one")
    assert ledger.outcome(ledger.send(credit(account, "later"))).step == "posted"
    ledger.wait_until(ledger.audit.settled, 20)
    assert available(ledger, account) == 61, "the hold is open"
    assert times_are_of_today(ledger)
    sources = [record["source"]["topic"] for record in journal(ledger)]
    assert sources.count("operator") == 1
    assert ledger.settle_and_audit() == []
    agree(ledger, tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("0:0", "--topic", "commands", "--time", "tomorrow"), "is not a time with its zone"),
        (("0:0", "--topic", "commands", "--time", "2999-01-01T00:00:00Z"), "lies in the future"),
        (("7:0", "--topic", "commands", "--time", "2020-01-01T00:00:00Z"), "has no partition 7"),
        (("0:9", "--topic", "commands", "--time", "2020-01-01T00:00:00Z"), "has offsets up to"),
        (("0:0", "--topic", "commands", "--time", "2020-01-01T00:00:00Z"), "was decided"),
    ],
)
def test_a_decision_that_cannot_be_is_not_written(
    ledger: WorkerLedger, words: tuple[str, ...], told: str
) -> None:
    worker = ledger.ready()
    ledger.open(0)
    ledger.wait_until(ledger.audit.settled, 20)
    assert told in decide(ledger, *words, exit_code=1)
    assert worker.stop() == 0
    assert [record["step"] for record in journal(ledger)].count("timed") == 0


def test_an_interrupted_rebuild_of_state_is_named(ledger: WorkerLedger) -> None:
    """`state` does not end with a position then."""
    worker = ledger.ready()
    ledger.open(0)
    ledger.wait_until(ledger.audit.settled, 20)
    assert worker.stop() == 0
    producer = Producer({**ledger.client, "acks": "all"})
    producer.produce(ledger.names.state, None, state_keys.POSITION, 0)
    assert producer.flush(CONFIRM_S) == 0
    words = ("0:0", "--topic", "commands", "--time", "2026-01-31T12:00:00Z")
    for command in (("log-time", *words), ("configure", "--commission-bps", "1")):
        said = run(ledger, *command, exit_code=1)
        assert "does not end with a position" in said, said
        assert len(said.splitlines()) == 1


class Clock:
    """The clock of a worker, as far as it differs from that of everyone else here."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "sitecustomize.py").write_text(WRONG_CLOCK)
        self.set(0)

    def set(self, offset_s: float) -> None:
        new = self.folder / "new"
        new.write_text(str(offset_s))
        new.replace(self.folder / "offset")


@pytest.mark.parametrize("offset_s", [-7_200, 7_200])
def test_a_worker_whose_clock_disagrees_owns_nothing_until_it_agrees(
    ledger: WorkerLedger, tmp_path: Path, offset_s: float
) -> None:
    clock = Clock(tmp_path / "clock")
    worker = ledger.start("one", {}, clock.folder)
    ledgers.wait_until_ready(worker)
    account = open_hold(ledger)

    clock.set(offset_s)
    waiting = "waiting for the clock to agree with the brokers'"
    ledger.wait_until(lambda: waiting in worker.log_text(), 40)
    how = "ahead of" if offset_s < 0 else "behind"
    assert f"s {how} this machine's" in worker.log_text()
    assert worker.running() and not worker.ready()
    # Another one has its lanes: the ledger is not stopped.
    other = ledger.ready(data="two")
    assert ledger.outcome(ledger.send(credit(account, "meanwhile"))).step == "posted"
    assert not worker.ready()
    assert other.stop() == 0

    clock.set(0)
    ledgers.wait_until_ready(worker)
    assert ledger.outcome(ledger.send(credit(account, "again"))).step == "posted"
    assert available(ledger, account) == 62
    assert ledger.settle_and_audit() == []


def test_a_worker_that_starts_with_a_wrong_clock_takes_no_lane(
    ledger: WorkerLedger, tmp_path: Path
) -> None:
    clock = Clock(tmp_path / "clock")
    clock.set(-7_200)
    worker: Worker = ledger.start("one", {}, clock.folder)
    ledger.wait_until(lambda: "s ahead of this machine's" in worker.log_text(), 40)
    assert "owning partition" not in worker.log_text()
    clock.set(0)
    ledgers.wait_until_ready(worker)
    assert worker.stop() == 0
