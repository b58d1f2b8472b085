"""`streamledger consume`: what is committed in each topic, as lines for people or for programs."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer

from compose.cli import consume
from schemas import partitioning, topics
from schemas.commands import Credit
from schemas.encoding import codecs
from tests.testkit import pipeline
from tests.testkit.pipeline import PARTITIONS, Pipeline
from tests.testkit.waiting import eventually

RESTING = 12_345


@pytest.fixture(scope="module")
def ledger(
    kafka: str, postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("consuming")
    with pipeline.made(kafka, postgres, template, folder) as ledger:
        opening = {"kind": "open_account", "type": "wallet", "currency": "NGN", "id": "open"}
        lines = [{**opening, "account": name} for name in ("alice", "bob")]
        lines += [credit("alice", "one"), credit("bob", "two"), credit("alice", "three")]
        given = "".join(json.dumps(each) + "\n" for each in lines)
        ledger.streamledger("produce", "--strict", given=given)
        yield ledger


def credit(account: str, id: str) -> dict[str, Any]:
    return {"kind": "credit", "account": account, "amount": RESTING, "id": id}


def consumed(ledger: Pipeline, *words: str) -> list[dict[str, Any]]:
    printed = ledger.streamledger("consume", *words, "--from-beginning", "--json").stdout
    return [json.loads(line) for line in printed.splitlines()]


@pytest.mark.parametrize("topic", [topic.role for topic in topics.ALL])
def test_every_topic_can_be_read_to_its_end(ledger: Pipeline, topic: str) -> None:
    found = consumed(ledger, topic)
    name = ledger.prefix + topic
    assert len(found) == len(ledger.read(name))
    assert all("unreadable" not in (record["value"] or {}) for record in found)
    assert bool(found) == (topic not in ("coordination", "commands.dead"))


def test_the_default_is_transactions_and_a_key_shows_one_account(ledger: Pipeline) -> None:
    entries = consumed(ledger, "--key", "alice")
    assert [(e["key"], e["value"]["version"]) for e in entries] == [("alice", 1), ("alice", 2)]
    home = partitioning.partition_of("alice", PARTITIONS)
    assert {entry["partition"] for entry in entries} == {home}
    assert len(consumed(ledger)) == 3
    assert len(consumed(ledger, "-n", "2")) == 2
    transaction = entries[0]["value"]["transaction_id"]
    (result,) = consumed(ledger, "results", "--key", transaction)
    assert result["value"]["id"] == "one"


def test_lines_for_people_name_position_and_key(ledger: Pipeline) -> None:
    printed = ledger.streamledger("consume", "--from-beginning", "--key", "bob").stdout
    position, key, value = printed.strip().split("  ", 2)
    assert (key, json.loads(value)["amount"]) == ("bob", RESTING)
    assert position.startswith(f"{partitioning.partition_of('bob', PARTITIONS)}:")


def test_what_is_aborted_is_not_shown_and_what_is_avro_or_broken_is(ledger: Pipeline) -> None:
    producer = Producer(
        {
            "bootstrap.servers": ledger.kafka,
            "transactional.id": f"{ledger.prefix}consuming",
            "transaction.timeout.ms": 10_000,
        }
    )
    producer.init_transactions(30)
    avro = codecs.encode_single_object(Credit(account="carol", amount=5, id="as-avro"))
    for value, kept in (
        (b'{"aborted": true}', False),
        (avro, True),
        (b"\0\0\0\0\1 of another registry", True),
        (b"\xff broken", True),
        (b'"\\ud800"', True),
    ):
        producer.begin_transaction()
        producer.produce(ledger.names.commands, value, "carol", 0)
        producer.flush(30)
        if kept:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    values = [record["value"] for record in consumed(ledger, "commands", "--key", "carol")]
    assert values[0] == {"kind": "credit", "account": "carol", "amount": 5, "id": "as-avro"}
    assert values[1]["unreadable"].startswith("schema_unknown: ")
    assert values[2]["unreadable"].startswith("not JSON: ")
    assert values[3:] == ["\ud800"]


def test_it_follows_from_now_on_until_it_is_interrupted(ledger: Pipeline) -> None:
    words = [sys.executable, "-m", "compose.cli.main", "consume", "results", "--json"]
    following = subprocess.Popen(
        words,
        cwd=ledger.folder,
        env=ledger.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    lines: list[str] = []
    assert following.stdout is not None
    output = following.stdout
    reader = threading.Thread(target=lambda: lines.extend(output))
    reader.start()
    try:

        def seen() -> bool:
            line = json.dumps(credit("alice", f"later-{len(sent)}"))
            sent.append(line)
            ledger.streamledger("produce", "--strict", given=line)
            return bool(lines)

        sent: list[str] = []
        eventually(seen, 60)
        assert all('"later-' in line for line in lines)
        following.send_signal(signal.SIGINT)
        assert following.wait(20) == 0
    finally:
        following.kill()
        following.wait()
        reader.join()
        output.close()


def test_what_is_asked_for_wrongly_is_one_line(ledger: Pipeline) -> None:
    ended = ledger.streamledger("consume", "transfers", exit_code=2)
    roles = ", ".join(topic.role for topic in topics.ALL)
    assert ended.stderr == f"streamledger: transfers: no topic of the ledger; it has {roles}\n"
    ended = ledger.streamledger("consume", "--registry", "nowhere", exit_code=2)
    assert ended.stderr.startswith("streamledger: a registry URL must start with http://")


def test_topics_that_are_not_there_are_one_line(ledger: Pipeline) -> None:
    elsewhere = ledger.environment(TOPIC_PREFIX="nowhere-")
    for words in (["consume", "--from-beginning"], ["produce", "--wait"]):
        command = [sys.executable, "-m", "compose.cli.main", *words]
        ended = ledger.run(command, "{}", 1, environment=elsewhere)
        assert ended.stderr.startswith("streamledger: ")
        assert ended.stderr.count("\n") == 1


def test_a_registry_that_is_away_is_told_once_with_each_record() -> None:
    """Nothing listens at the port of the discard protocol."""
    avro_schemas = consume.schemas("http://127.0.0.1:9")
    value = b"\0\0\0\0\7 a record"
    said = consume.shown(topics.TRANSACTIONS, value, avro_schemas)
    assert said["unreadable"].startswith("schema_unknown: ")
