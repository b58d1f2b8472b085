"""docs/analytics.md: its lines run as they stand there, read what is committed, and count each
entry once whatever happens to them.

Entries come from a real ledger; those that never happened from a transaction that is aborted.
"""

import json
import secrets
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from schemas import partitioning, published_records
from schemas.encoding import codecs
from tests.testkit import doc_pages, pipeline
from tests.testkit.pipeline import PARTITIONS, Pipeline
from tests.testkit.waiting import eventually

PAGE = "analytics.md"
BLOCKS = doc_pages.blocks(PAGE)
ACCOUNTS = ("alice", "bob", "carol")
KILLS = 6
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def ledger(
    kafka: str, postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """With entries of three accounts: each has a credit, and pays the next five times."""
    folder = tmp_path_factory.mktemp("analytics")
    with pipeline.made(kafka, postgres, template, folder) as ledger:
        lines: list[Entry] = []
        for name in ACCOUNTS:
            opening = {"kind": "open_account", "type": "wallet", "currency": "NGN"}
            lines.append({**opening, "account": name, "id": "open"})
            lines.append({"kind": "credit", "account": name, "amount": 90_000, "id": "fund"})
        send(ledger, lines)
        # The receivers must be there before what is between partitions.
        eventually(lambda: len(entries(ledger)) == 3, 30)
        send(
            ledger,
            [
                {"kind": "transfer", "account": name, "to": to, "amount": 100, "id": f"pay-{n}"}
                for n in range(5)
                for name, to in zip(ACCOUNTS, (*ACCOUNTS[1:], ACCOUNTS[0]), strict=True)
            ],
        )
        eventually(lambda: len(entries(ledger)) == 3 + 3 * 5 * 2, 30)
        abort_one(ledger)
        yield ledger


def send(ledger: Pipeline, commands: list[Entry]) -> None:
    given = "".join(json.dumps(each) + "\n" for each in commands)
    ledger.streamledger("produce", "--strict", given=given)


def entries(ledger: Pipeline, isolation: str = "read_committed") -> list[Entry]:
    return [json.loads(value) for _, value in ledger.read(ledger.names.transactions, isolation)]


def abort_one(ledger: Pipeline) -> None:
    """An entry of alice that never happened, as a processor that dies may leave it."""
    entry = {**json.loads(never()), "version": 1_000}
    producer = Producer(
        {
            "bootstrap.servers": ledger.kafka,
            "transactional.id": f"{ledger.prefix}dead-{secrets.token_hex(4)}",
            "transaction.timeout.ms": 10_000,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    home = partitioning.partition_of("alice", PARTITIONS)
    producer.produce(ledger.names.transactions, json.dumps(entry), "alice", home)
    producer.flush(30)
    producer.abort_transaction(30)


def never() -> str:
    """The entry that the page shows, of which the account has no such one."""
    return next(block.text for block in BLOCKS if block.info == "json").replace("\n", "")


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    return doc_pages.examples(tmp_path)


def decoded(text: str) -> list[Entry]:
    """The JSON objects among the lines, each after whatever stands before it."""
    return [json.loads(line[line.index("{") :]) for line in text.splitlines() if "{" in line]


def line(words: str) -> str:
    """The block of the page that begins with these words."""
    (found,) = [block.text for block in BLOCKS if block.text.startswith(words)]
    return found


def test_every_line_of_the_page_is_run_here(ledger: Pipeline, cwd: Path) -> None:
    texts = [b.text for b in BLOCKS if b.info == "sh" and b.runs]
    outputs = [ledger.shell(text, cwd).stdout for text in texts]
    assert all(outputs[n] for n, text in enumerate(texts) if ">" not in text)
    assert {block.info for block in BLOCKS} == {"json", "sh", "sh duckdb", "sh pandas"}
    assert all(block.runs for block in BLOCKS)


def test_the_record_on_the_page_is_one() -> None:
    assert (
        msgspec.json.decode(never(), type=published_records.TransactionRecord).account_id == "alice"
    )


# What is committed, and nothing else


def test_without_read_committed_there_is_money_that_never_moved(ledger: Pipeline) -> None:
    happened = entries(ledger)
    assert len(entries(ledger, "read_uncommitted")) == len(happened) + 1
    assert [entry for entry in happened if entry["version"] == 1_000] == []


@pytest.mark.parametrize(
    "words", ["kafka-console-consumer.sh", "streamledger consume --from-beginning --json |"]
)
def test_readers_of_the_page_skip_what_was_aborted(ledger: Pipeline, cwd: Path, words: str) -> None:
    said = ledger.shell(line(words), cwd).stdout
    if not said:
        said = (cwd / "entries.jsonl").read_text("utf-8")
    assert same(decoded(said), entries(ledger))


def test_the_console_consumer_shows_it_where_nothing_is_asked(ledger: Pipeline, cwd: Path) -> None:
    text = line("kafka-console-consumer.sh").replace("--isolation-level read_committed ", "")
    found = decoded(ledger.shell(text, cwd).stdout)
    assert len([entry for entry in found if entry["version"] == 1_000]) == 1


def same(one: list[Entry], other: list[Entry]) -> bool:
    def key(entry: Entry) -> tuple[str, int]:
        return entry["account_id"], entry["version"]

    return sorted(one, key=key) == sorted(other, key=key)


# By key, by time, as Avro


def python(ledger: Pipeline, cwd: Path, *words: str, **more: str) -> str:
    command = [sys.executable, *words]
    return ledger.run(command, cwd=cwd, environment=ledger.environment(**more)).stdout


def test_by_key_and_by_time(ledger: Pipeline, cwd: Path) -> None:
    happened = entries(ledger)
    of_bob = [entry for entry in happened if entry["account_id"] == "bob"]
    assert decoded(python(ledger, cwd, "python/transactions.py", "--account", "bob")) == of_bob
    assert [entry["version"] for entry in of_bob] == list(range(1, len(of_bob) + 1))
    printed = ledger.streamledger("consume", "--from-beginning", "--key", "bob", "--json").stdout
    assert [record["value"] for record in map(json.loads, printed.splitlines())] == of_bob
    moment = sorted(entry["timestamp"] for entry in happened)[len(happened) // 2]
    since = decoded(python(ledger, cwd, "python/transactions.py", "--since", moment))
    assert same(since, [entry for entry in happened if entry["timestamp"] >= moment])


def test_avro_is_read_by_the_same_lines(ledger: Pipeline, cwd: Path) -> None:
    happened = entries(ledger)
    admin = AdminClient({"bootstrap.servers": ledger.kafka})
    topic = f"{ledger.prefix}mixed"
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    eventually(lambda: topic in admin.list_topics(timeout=10).topics)
    producer = Producer({"bootstrap.servers": ledger.kafka})
    for number, entry in enumerate(happened):
        record = msgspec.convert(entry, published_records.TransactionRecord)
        value = codecs.encode_single_object(record) if number % 2 else json.dumps(entry)
        producer.produce(topic, value, entry["account_id"])
    assert producer.flush(30) == 0
    more = {"KAFKA_TOPIC": "mixed"}
    assert same(decoded(python(ledger, cwd, "python/transactions.py", **more)), happened)
    printed = python(ledger, cwd, "-m", "compose.cli.main", "consume", "--from-beginning", **more)
    assert same(decoded(printed), happened)


# State and positions in one commit


def killed_again_and_again(ledger: Pipeline, cwd: Path, script: str, file: str) -> str:
    """Its output in the end; a while into each run it is killed, once it has begun to write."""
    for number in range(KILLS):
        began = subprocess.Popen(
            [sys.executable, f"python/{script}", file, "--follow"],
            cwd=cwd,
            env=ledger.environment(),
            stdout=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: rows(cwd / file, "positions") > 0, 30)
            more = {"kind": "debit", "account": ACCOUNTS[number % 3], "amount": 1}
            ids = [f"{script}-{number}-{n}" for n in range(20)]
            send(ledger, [{**more, "id": id} for id in ids])
        finally:
            began.kill()
            began.wait()
    return python(ledger, cwd, f"python/{script}", file)


def rows(file: Path, table: str) -> int:
    if not file.exists():
        return 0
    connection = sqlite3.connect(file)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not made yet, or being written
    finally:
        connection.close()


def test_totals_survive_being_killed(ledger: Pipeline, cwd: Path) -> None:
    said = killed_again_and_again(ledger, cwd, "daily.py", "totals.db")
    amounts: Counter[tuple[str, ...]] = Counter()
    counts: Counter[tuple[str, ...]] = Counter()
    for entry in entries(ledger):
        group = (entry["timestamp"][:10], entry["currency"], entry["kind"], entry["entry"])
        amounts[group] += entry["amount"]
        counts[group] += 1
    expected = [[*group, str(counts[group]), str(amounts[group])] for group in sorted(amounts)]
    assert [row.split() for row in said.splitlines()] == expected


def test_alerts_survive_being_killed(ledger: Pipeline, cwd: Path) -> None:
    said = killed_again_and_again(ledger, cwd, "fraud.py", "alerts.db")
    assert said == python(ledger, cwd, "python/fraud.py", "whole.db")
    alerts = [row.split() for row in said.splitlines()]
    assert {account for account, *_ in alerts} == set(ACCOUNTS)
    names = [(account, version) for account, version, *_ in alerts]
    assert len(set(names)) == len(names)
    assert all(int(debits) > 3 for *_, debits in alerts)


# DuckDB and pandas


@pytest.mark.parametrize("library", ["duckdb", "pandas"])
def test_reports_agree_with_the_entries(library: str, ledger: Pipeline, cwd: Path) -> None:
    (block,) = [block for block in BLOCKS if block.info == f"sh {library}"]
    ledger.shell(line("streamledger consume --from-beginning --json |"), cwd)
    said = [row.split() for row in ledger.shell(block.text, cwd).stdout.splitlines()]
    happened = entries(ledger)
    of_alice = [entry for entry in happened if entry["account_id"] == "alice"]
    of_alice.sort(key=lambda entry: int(entry["version"]))
    fields = ("version", "entry", "amount", "balance")
    printed = [[str(entry[name]) for name in fields] for entry in of_alice]
    assert [row[1:] for row in said if row[0] == "account"] == printed
    hourly = [row for row in said if row[0] == "hourly"]
    assert sum(int(row[-1]) for row in hourly) == sum(entry["amount"] for entry in happened)
    assert sum(int(row[-2]) for row in hourly) == len(happened)
