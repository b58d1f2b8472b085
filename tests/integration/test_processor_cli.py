"""The processor as an operator has it: the command line beside it, what it shows, and how it stops.

One ledger of two partitions, and a processor whose session lasts so long that what is handed over
within seconds was handed over, not waited for.
"""

import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from compose.embedded import ports
from processor.rules_build import rules_build
from tests.crash import worker_ledger as ledgers
from tests.crash.worker_ledger import WorkerLedger
from tests.testkit import brokers
from tests.testkit.programs import inherited
from tests.testkit.waiting import eventually
from tests.testkit.worker_processes import Worker

SESSION_MS = 60_000
HANDED_OVER_S = 25.0
SETTINGS = {"SESSION_TIMEOUT_MS": str(SESSION_MS), "LOG_FORMAT": "json", "LEDGER_ID": "shown"}


class Operator:
    """A ledger and what is needed to call `streamledger` beside it."""

    def __init__(self, ledger: WorkerLedger, prefix: str, folder: Path) -> None:
        self.ledger = ledger
        self._folder = folder
        self._settings = {
            **inherited(),
            **SETTINGS,
            "KAFKA_BROKERS": ledger.bootstrap,
            "TOPIC_PREFIX": prefix,
            "PARTITIONS": str(ledger.partitions),
        }
        self.worker = ledger.ready(**SETTINGS)

    def streamledger(self, *words: str, exit_code: int = 0) -> str:
        """What it writes; where it fails, what it writes to standard error."""
        ended = subprocess.run(
            self._command(*words),
            cwd=self._folder,
            env=self._settings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == exit_code, ended.stderr
        return ended.stderr if exit_code else ended.stdout

    @contextmanager
    def processor(self, data: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        """`streamledger processor`, and the address that it shows itself at."""
        port = ports.next_free(brokers.some_port())
        with (self._folder / f"{data}.log").open("ab") as log:
            started = subprocess.Popen(
                self._command("processor", "--data", data),
                cwd=self._folder,
                env={**self._settings, "METRICS_PORT": str(port)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield started, f"http://127.0.0.1:{port}"
        finally:
            started.kill()
            started.wait()

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "compose.cli.main", *words]


@pytest.fixture(scope="module")
def operator(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    prefix = f"cli-{random.SystemRandom().randrange(10**9)}-"
    folder = tmp_path_factory.mktemp("cli")
    with ledgers.worker_ledger(kafka, prefix, folder) as made:
        yield Operator(made, prefix, folder)
        made.delete_topics()


def partitions_at(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/ready", timeout=5) as answered:
        told: dict[str, Any] = json.loads(answered.read())
    return told["partitions"]  # type: ignore[no-any-return]  # it is JSON


def lines(worker: Worker) -> list[dict[str, Any]]:
    return [json.loads(line) for line in worker.log_text().splitlines()]


def test_what_is_configured_holds_from_the_next_command_on(operator: Operator) -> None:
    ledger = operator.ledger
    payer, payee = ledger.open(0, amount=10_000), ledger.open(1)
    # What is between partitions comes before commands: the receiver must be there first.
    ledger.wait_until(ledger.audit.settled, 20)
    transfer = {"kind": "transfer", "account": payer, "to": payee, "amount": 1_000}
    before = ledger.send({**transfer, "id": "before"})
    assert ledger.outcome(before).fee == 15
    told = operator.streamledger("configure", "--commission-bps", "300").splitlines()
    assert [line.partition(": ")[0] for line in told] == ["partition 0", "partition 1"]
    assert all("version 2" in line and "commission_bps=300" in line for line in told)
    after = ledger.send({**transfer, "id": "after"})
    assert ledger.outcome(after).fee == 30
    ledger.wait_until(ledger.audit.settled, 20)
    balances = [
        ledger.audit.books[home].accounts[id].balance for home, id in enumerate((payer, payee))
    ]
    assert balances == [10_000 - 1_015 - 1_030, 2_000]


def test_a_setting_that_is_not_allowed_changes_nothing(operator: Operator) -> None:
    said = operator.streamledger("configure", "--commission-bps", "10001", exit_code=1)
    assert said.startswith("streamledger: not allowed: ")
    said = operator.streamledger("configure", "--format-level", "2", exit_code=1)
    assert said == "streamledger: this program supports format level 1, not 2: upgrade it\n"
    said = operator.streamledger("configure", exit_code=2)
    assert said.startswith("streamledger: name what to change")
    said = operator.streamledger("configure", "--rules-version", "1", exit_code=1)
    assert "the ledger has rules version 2, which cannot be lowered" in said
    said = operator.streamledger("configure", "--rules-version", "3", exit_code=1)
    assert "this program supports rules versions [1, 2], not 3" in said
    audit = operator.ledger.audit
    audit.update()
    assert all(books.steps["configured"] <= 2 for books in audit.books)


def test_dead_letters_are_listed_shown_and_sent_again(operator: Operator) -> None:
    ledger = operator.ledger
    account = ledger.open(0)
    credit = {"kind": "credit", "account": account, "amount": 7}
    strayed = ledger.send({**credit, "id": "strayed"}, account.encode(), 1)
    broken = ledger.send({**credit, "amount": -7, "id": "broken"})
    rubbish = ledger.send(b"\x00\x00\x00\x00\x07?", b"nobody", 0)
    for at in (strayed, broken, rubbish):
        assert ledger.outcome(at).step == "refused"

    listed = operator.streamledger("dead-letters", "list").splitlines()
    named = {line.split()[0]: line.split()[1:] for line in listed}
    assert named[f"{strayed.partition}:{strayed.offset}"][0] == "misrouted"
    assert named[f"{broken.partition}:{broken.offset}"][0] == "amount_invalid"
    assert named[f"{broken.partition}:{broken.offset}"][3] == "broken"
    assert named[f"{rubbish.partition}:{rubbish.offset}"][:2] == ["schema_unknown", "6"]

    told = operator.streamledger("dead-letters", "show", f"1:{strayed.offset}")
    letter, original = told.rsplit("\n", 2)[:2]
    assert json.loads(original) == {**credit, "id": "strayed"}
    assert json.loads(letter)["reason"] == "misrouted"

    again = operator.streamledger("dead-letters", "resubmit", f"1:{strayed.offset}")
    found = re.fullmatch(rf"sent for {account} as 0:(\d+)\n", again)
    assert found, again
    assert ledger.outcome(ledgers.Position(0, int(found[1]))).step == "posted"

    # What was wrong is set right in a file; the letter stays as it was written.
    corrected = Path(operator.worker.folder, "corrected.json")
    corrected.write_text(json.dumps({**credit, "id": "broken"}))
    words = ("resubmit", f"0:{broken.offset}", "--value", str(corrected))
    again = operator.streamledger("dead-letters", *words)
    posted = ledgers.Position(0, int(again.rpartition(":")[2]))
    assert ledger.outcome(posted).step == "posted"
    assert ledger.audit.books[0].accounts[account].balance == 14


def test_what_is_no_dead_letter_is_told_in_a_line(operator: Operator) -> None:
    for words, told in (
        (("show", "0:0"), "no dead letter at 0:0"),
        (("show", "7"), "invalid position '7': expected partition:offset, such as 3:1200"),
    ):
        said = operator.streamledger("dead-letters", *words, exit_code=1)
        assert said == f"streamledger: {told}\n"


def test_it_shows_its_health_and_its_numbers(operator: Operator) -> None:
    ledger, worker = operator.ledger, operator.worker
    account = ledger.open(1, amount=5)
    at = ledger.send({"kind": "debit", "account": account, "amount": 6, "id": "too much"})
    assert ledger.outcome(at).reason == "insufficient_funds"
    assert json.loads(worker.get("/health")[1]) == {"status": "alive", "ledger": "shown"}
    status, body = worker.get("/ready")
    partitions = {"0": "running", "1": "running"}
    assert (status, json.loads(body)) == (200, {"status": "ready", "partitions": partitions})

    rejected = 'streamledger_commands_total{outcome="rejected",reason="insufficient_funds"}'
    eventually(lambda: worker.numbers()[rejected] == 1)
    found = worker.numbers()
    assert found['streamledger_commands_total{outcome="posted",reason=""}'] >= 2
    assert found["streamledger_batch_records_count"] >= 1
    assert found["streamledger_transaction_seconds_count"] >= 2
    for partition in partitions:
        labels = f'{{partition="{partition}"}}'
        assert found[f"streamledger_lag_records{labels}"] <= 1
        assert found[f"streamledger_lag_seconds{labels}"] < 60
        assert found[f"streamledger_table_bytes{labels}"] > 0
        told = f'streamledger_partition_phase{{partition="{partition}",phase="running"}}'
        assert found[told] == 1
    info = [name for name in found if name.startswith("streamledger_info")]
    assert info and 'ledger="shown",service="processor"' in info[0]


def shown_as_running(worker: Worker) -> list[str]:
    """The partitions that are in this phase and no other, and have nothing left to restore."""
    shown = worker.numbers()
    phase, left = "streamledger_partition_phase", "streamledger_restore_remaining_records"
    running = []
    for partition in ("0", "1"):
        label = f'{{partition="{partition}"'
        phases = [name for name in shown if name.startswith(phase + label) and shown[name]]
        if phases == [f'{phase}{label},phase="running"}}'] and not shown.get(f"{left}{label}}}"):
            running.append(partition)
    return running


def test_two_share_the_partitions_and_one_that_stops_hands_over_at_once(
    operator: Operator,
) -> None:
    ledger, first = operator.ledger, operator.worker
    payers = [ledger.open(home, amount=1_000) for home in (0, 1)]
    with operator.processor("second") as (second, url):

        def shared() -> bool:
            try:
                theirs = partitions_at(url)
            except OSError:
                return False
            mine = json.loads(first.get("/ready")[1])["partitions"]
            phases = [*theirs.values(), *mine.values()]
            return len(theirs) == len(mine) == 1 and phases == ["running"] * 2

        eventually(shared, 30)
        started = time.monotonic()
        second.terminate()
        sent = ledger.send_all(
            [
                ({"kind": "debit", "account": payer, "amount": 1, "id": f"d{number}"}, None, None)
                for number in range(100)
                for payer in payers
            ]
        )
        steps = [told.step for told in ledger.outcomes(sent)]
        handed_over_s = time.monotonic() - started
        assert second.wait(20) == 0
        assert handed_over_s < HANDED_OVER_S
        assert steps == ["posted"] * len(sent)
        assert ledger.audit.differences.lines == []
        eventually(lambda: shown_as_running(first) == ["0", "1"])


def test_it_ends_cleanly_and_each_line_of_its_log_has_fields(operator: Operator) -> None:
    """The last test: the processor is stopped, and started again with another environment."""
    ledger, worker = operator.ledger, operator.worker
    assert worker.stop() == 0
    again = ledger.ready(**SETTINGS, COMMISSION_BPS="42", ROCKSDB_MIB="11")
    assert again.stop() == 0
    for line in (*lines(worker), *lines(again)):
        assert line.keys() >= {"message", "level", "logger", "timestamp", "service"}, line
        assert line["service"] == "processor"
    (begins,) = [line for line in lines(worker) if line["message"] == "processor starting"]
    assert begins["rules"] == rules_build()
    owned = [line for line in lines(worker) if line["message"] == "owning partition"]
    assert {line["partition"] for line in owned} == {0, 1}
    assert all(line.keys() >= {"sequence", "commands", "coordination"} for line in owned)
    assert {line["level"] for line in lines(worker)} <= {"info", "warning"}
    (told, *_) = [line for line in lines(again) if "environment" in line]
    assert told["message"] == "the ledger's own settings hold, not the environment's"
    assert (told["ledger"]["commission_bps"], told["environment"]["commission_bps"]) == (300, 42)
    (little,) = [line for line in lines(again) if line["message"].startswith("ROCKSDB_MIB")]
    assert (little["rocksdb_mib"], little["partitions"]) == (11, 2)
