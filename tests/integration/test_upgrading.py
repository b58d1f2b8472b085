"""Two versions of the processor on one ledger: docs/upgrading.md.

The newer one is a copy of the sources with one more field in `prepare` and one more kind of
coordination message, both of format level 2.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer

from schemas import ids, topics
from schemas.ledger_parameters import FORMAT_LEVEL, LedgerParameters
from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger
from tests.testkit.programs import FORMAT_LEVEL_2, ROOT, copy_sources, inherited
from tests.testkit.worker_processes import Worker

# One lane for each of two workers.
PARTITIONS = 2
CONFIRM_S = 20.0
LEDGER_ID = "streamledger"
NO_TRANSACTION = "00000000-0000-5000-8000-000000000000"

# What version 2 has beside version 1: file, what is there, what is there instead.
VERSION_2 = [
    FORMAT_LEVEL_2,
    (
        "schemas/coordination.py",
        "    owner: field_types.Owner | None = None\n",
        "    owner: field_types.Owner | None = None\n    note: str | None = None\n",
    ),
    (
        "schemas/coordination.py",
        "class _Own(\n",
        'class Settle(Commit, frozen=True, kw_only=True, gc=False, tag="settle"):\n'
        "    pass\n\n\nclass _Own(\n",
    ),
    ("schemas/coordination.py", "Commit | Abort | Tick", "Commit | Settle | Abort | Tick"),
    (
        "schemas/coordination.py",
        "Refused | Commit | Abort\n",
        "Refused | Commit | Settle | Abort\n",
    ),
    (
        "processor/rules/coordinate.py",
        "                owner=owner,\n",
        "                owner=owner,\n"
        '                note="new" if parameters.format_level >= 2 else None,\n',
    ),
    (
        "processor/rules/coordinate.py",
        "_commit(transaction_id, command, details))",
        "_settle(state, _commit(transaction_id, command, details)))",
    ),
    (
        "processor/rules/coordinate.py",
        "def _numbered(\n",
        "def _settle(\n    state: state_view.StateView, message: coordination.Commit\n"
        ") -> coordination.Commit:\n"
        "    settings = state.partition.settings\n"
        "    if settings is None or settings.format_level < 2:\n"
        "        return message\n"
        "    fields = {f: getattr(message, f) for f in message.__struct_fields__}\n"
        "    return coordination.Settle(**fields)\n"
        "\n\ndef _numbered(\n",
    ),
]


@pytest.fixture(scope="module")
def version_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of a newer program."""
    return copy_sources(tmp_path_factory.mktemp("version-2"), VERSION_2)


@pytest.fixture
def ledger(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[WorkerLedger]:
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path, PARTITIONS) as made:
        yield made


@contextmanager
def sink_member(ledger: WorkerLedger, level: int) -> Iterator[None]:
    """A member of the sinks' group that supports a format level, as the group shows it."""
    group = ids.service_id(ledger.prefix, LEDGER_ID, "sink")
    member = Consumer({**ledger.client, "group.id": group, "client.id": f"{group}-format-{level}"})
    assigned: list[object] = []
    member.subscribe([ledger.names.results_positions], on_assign=lambda *_: assigned.append(1))
    try:
        ledger.wait_until(lambda: member.poll(0.1) is None and bool(assigned), 60)
        yield
    finally:
        member.close()


def configure(ledger: WorkerLedger, code: Path, *words: str, **env: str) -> tuple[int, str]:
    """`streamledger configure` of the version whose sources are in a folder."""
    folder = code if code != ROOT else ROOT / "tests"
    ended = subprocess.run(
        [sys.executable, "-m", "compose.cli.main", "configure", *words],
        cwd=folder,
        env={
            **inherited(),
            "PYTHONPATH": str(code),
            "KAFKA_BROKERS": ledger.bootstrap,
            "TOPIC_PREFIX": ledger.prefix,
            "PARTITIONS": str(PARTITIONS),
            **env,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def partitions_of(worker: Worker) -> list[int]:
    """Those that it runs."""
    status, body = worker.get("/ready")
    return [int(each) for each in json.loads(body)["partitions"]] if status == 200 else []


def share(ledger: WorkerLedger, *workers: Worker) -> list[int]:
    """Waits until each of them runs as many partitions as the others; whose they are."""
    each = PARTITIONS // len(workers)
    ledger.wait_until(lambda: all(len(partitions_of(one)) == each for one in workers), 60)
    return [number for one in workers for number in partitions_of(one)]


def produce(ledger: WorkerLedger, partition: int, value: bytes) -> int:
    """A record in `coordination`; its offset."""
    offsets: list[int] = []
    producer = Producer({**ledger.client, "acks": "all"})
    producer.produce(
        ledger.names.coordination,
        value,
        None,
        partition,
        on_delivery=lambda error, message: offsets.append(-1 if error else message.offset() or 0),
    )
    assert producer.flush(CONFIRM_S) == 0
    return offsets[0]


def transfers(ledger: WorkerLedger, accounts: list[str], count: int, name: str) -> None:
    """As many to and fro between two partitions, each of which is posted."""
    one, other = accounts
    sent = [
        ledger.send({"kind": "transfer", "account": a, "to": b, "amount": 10, "id": f"{name}{n}"})
        for n in range(count)
        for a, b in ((one, other), (other, one))
    ]
    assert {outcome.step for outcome in ledger.outcomes(sent, 60)} == {"posted"}
    ledger.wait_until(ledger.audit.settled, 60)


def balances(ledger: WorkerLedger, accounts: list[str]) -> list[int]:
    return [ledger.audit.books[ledger.partition_of(a)].accounts[a].balance for a in accounts]


def kinds(ledger: WorkerLedger) -> set[str]:
    """Of coordination messages that were ever written."""
    return {
        json.loads(record.value or b"")["message"]
        for partition in ledger.audit.messages
        for record in partition.values()
    }


def test_two_versions_work_side_by_side_until_the_level_is_raised(
    ledger: WorkerLedger, version_2: Path
) -> None:
    old = ledger.ready(data="old")
    new = ledger.start("new", {}, version_2)
    ledgers.wait_until_ready(new)
    assert sorted(share(ledger, old, new)) == [0, 1]
    accounts = [ledger.open(home, amount=10_000) for home in (0, 1)]
    ledger.wait_until(ledger.audit.settled, 30)

    # Both directions: each coordinates, each participates.
    transfers(ledger, accounts, 20, "before")
    assert "commit" in kinds(ledger) and "settle" not in kinds(ledger)
    assert old.running() and new.running()
    # 20 of 10 each way, with a commission that is 0 of so little.
    assert balances(ledger, accounts) == [10_000, 10_000]

    with sink_member(ledger, level=2):
        code, said = configure(ledger, version_2, "--format-level", "2")
    assert code == 1, said
    assert "nothing was changed: these workers do not support format level 2" in said
    assert said.count("(format level 1)") == 1
    code, said = configure(ledger, ROOT, "--format-level", "2")
    assert (code, "this program supports format level 1, not 2" in said) == (1, True), said
    transfers(ledger, accounts, 5, "refused")
    assert "settle" not in kinds(ledger)

    assert old.stop() == 0
    share(ledger, new)
    with sink_member(ledger, level=2):
        code, said = configure(ledger, version_2, "--format-level", "2")
    assert code == 0, said
    assert said.count("format_level=2") == PARTITIONS
    transfers(ledger, accounts, 20, "after")
    assert "settle" in kinds(ledger)
    assert balances(ledger, accounts) == [10_000, 10_000]

    # The old program neither joins, nor changes anything by hand.
    said = ledger.refused(data="old")
    assert "the ledger has format level 2; this program supports 1: upgrade it" in said
    code, said = configure(ledger, ROOT, "--commission-bps", "1")
    assert (code, "this program supports 1: upgrade it" in said) == (1, True), said
    code, said = configure(ledger, version_2, "--format-level", "1")
    assert (code, "cannot be lowered" in said) == (1, True), said
    transfers(ledger, accounts, 5, "last")
    assert ledger.settle_and_audit() == []


def test_a_level_is_not_raised_where_the_workers_are_unknown(
    ledger: WorkerLedger, version_2: Path
) -> None:
    # The first program decides the level that the ledger begins with.
    assert ledger.ready(data="old").stop() == 0
    new = ledger.start("new", {}, version_2)
    ledgers.wait_until_ready(new)
    code, said = configure(ledger, version_2, "--format-level", "2", LEDGER_ID="another")
    assert (code, "LEDGER_ID is wrong" in said) == (1, True), said
    code, said = configure(ledger, version_2, "--format-level", "2")
    assert (code, "nothing was changed: no sink is in the consumer group" in said) == (1, True), (
        said
    )
    with sink_member(ledger, level=1):
        code, said = configure(ledger, version_2, "--format-level", "2")
    assert (code, "these workers do not support format level 2" in said) == (1, True), said
    assert new.stop() == 0
    with sink_member(ledger, level=2):
        code, said = configure(ledger, version_2, "--format-level", "2")
    assert (code, "no processor is in the consumer group" in said) == (1, True), said


NUMBERED = {"source": 1, "number": 1, "transaction_id": NO_TRANSACTION}
SETTINGS: dict[str, Any] = msgspec.to_builtins(LedgerParameters(lanes=topics.lanes(PARTITIONS)))
NEXT = FORMAT_LEVEL + 1
TOO_NEW: dict[str, Mapping[str, Any]] = {
    "a known kind with one more field": {"message": "abort", **NUMBERED, "note": "new"},
    "another kind, of a partition": {"message": "settle", **NUMBERED},
    "another kind, of its own": {"message": "nudge"},
    "one that does not name its kind": {"type": "commit", **NUMBERED},
    "a refusal for a reason of another version": {
        "message": "refused",
        **NUMBERED,
        "reason": "unheard_of",
        "index": 0,
    },
    "settings of another version": {
        "message": "configure",
        "settings": {**SETTINGS, "format_level": NEXT, "unheard_of": 1},
    },
    "a higher format level": {
        "message": "configure",
        "settings": {**SETTINGS, "format_level": NEXT},
    },
    "an unknown rules version": {
        "message": "configure",
        "settings": {**SETTINGS, "rules_version": 99},
    },
}


@pytest.mark.parametrize("what", TOO_NEW)
def test_what_a_running_worker_cannot_read_stops_it(ledger: WorkerLedger, what: str) -> None:
    """The last defence: it is not passed over, at this start or at the next."""
    worker = ledger.ready(data="old")
    ledger.open(0, amount=5)
    ledger.wait_until(ledger.audit.settled, 20)
    value = json.dumps(TOO_NEW[what]).encode()
    offset = produce(ledger, 0, value)
    assert worker.wait(40) == 1, worker.tail()
    where = f"partition 0 of `{ledger.names.coordination}`, record at {offset}"
    assert where in worker.log_text()
    assert "upgrade" in worker.log_text()
    assert where in ledger.refused(data="old")
    ledger.audit.update()
    assert offset not in ledger.audit.books[0].messages


def test_what_is_not_ours_is_ignored(ledger: WorkerLedger) -> None:
    ledger.ready(data="old")
    account = ledger.open(0)
    for value in (b"", b"rubbish", b"[1]", b"{}", b'{"source":1}', b"{" * 100_000, b"7"):
        produce(ledger, 0, value)
    at = ledger.send({"kind": "credit", "account": account, "amount": 1, "id": "later"})
    assert ledger.outcome(at).step == "posted"
    ledger.wait_until(
        lambda: ledger.audit.settled() and ledger.audit.books[0].steps["ignored"] == 7, 20
    )
