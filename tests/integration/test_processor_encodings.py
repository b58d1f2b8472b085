"""`transactions` as it is configured: the same entries in each encoding, for each reader of ours.

One topic has all three, one after the other, as when an operator changes the setting.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.encoding import avro, codecs
from schemas.encoding.avro_schema_cache import AvroSchemas
from schemas.encoding.codecs import UnreadableRecord
from schemas.encoding.schema_registry import HttpRegistry
from schemas.published_records import TransactionRecord
from tests.crash import worker_ledger as ledgers
from tests.testkit import doc_pages, fake_registry, pipeline
from tests.testkit.fake_registry import FakeRegistry
from tests.testkit.pipeline import Pipeline
from tests.testkit.waiting import eventually

ENCODINGS = {"json": b"{", "avro": avro.SINGLE_OBJECT, "confluent": avro.CONFLUENT}
MORE = {"reference": "é 😀", "description": "rent", "metadata": {"house": "7", "none": ""}}
Entry = dict[str, Any]


@pytest.fixture
def ledger(kafka: str, postgres: str, template: str, tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline.made(kafka, postgres, template, tmp_path / "ledger") as started:
        opening = {"kind": "open_account", "type": "wallet", "currency": "NGN", "id": "open"}
        send(started, {**opening, "account": "ada", "owner": "u-1"}, {**opening, "account": "bem"})
        yield started


def send(ledger: Pipeline, *commands: Entry) -> None:
    given = "".join(json.dumps(each) + "\n" for each in commands)
    ledger.streamledger("produce", "--strict", given=given)


def restart(ledger: Pipeline, **settings: str) -> None:
    assert ledger.worker.stop() == 0
    ledger.worker.start(**settings)
    eventually(ledger.worker.ready, 60)


def write(ledger: Pipeline, number: int) -> list[bytes]:
    """Three entries: with every field, and with nulls. All that there are now."""
    paying = {"kind": "transfer", "account": "ada", "to": "bem", "amount": 100, **MORE}
    send(
        ledger,
        {"kind": "credit", "account": "ada", "amount": 2**40, "id": f"credit-{number}"},
        {**paying, "id": f"pay-{number}"},
    )

    def values() -> list[bytes]:
        return [value for _, value in ledger.read(ledger.names.transactions)]

    eventually(lambda: len(values()) == 3 * (number + 1), 30)
    return values()


def in_order(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (entry["account_id"], entry["version"]))


def entries_in(ended: subprocess.CompletedProcess[str]) -> list[Entry]:
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return in_order([line.get("value", line) for line in lines])


def test_every_reader_decodes_every_encoding(ledger: Pipeline, tmp_path: Path) -> None:
    fake = FakeRegistry()
    with fake_registry.served(fake) as address:
        url = f"http://{address}"
        for number, encoding in enumerate(ENCODINGS):
            if encoding != "json":  # which is the default
                restart(ledger, TRANSACTIONS_ENCODING=encoding, SCHEMA_REGISTRY_URL=url)
            values = write(ledger, number)
        for begins in ENCODINGS.values():
            assert len([value for value in values if value.startswith(begins)]) == 3
        (id,) = fake.subjects[f"{ledger.names.transactions}-value"]
        assert json.loads(fake.schemas[id]) == avro.generate(TransactionRecord, "Transaction")

        registered = AvroSchemas(registry=HttpRegistry(url))
        decoded = [codecs.decode_transaction(value, registered) for value in values]
        assert not [each for each in decoded if isinstance(each, UnreadableRecord)]
        entries = in_order(msgspec.to_builtins(decoded))
        as_expected(entries)
        options = ("consume", "--from-beginning", "--json", "--registry", url)
        assert entries_in(ledger.streamledger(*options)) == entries
        example = ledger.run(
            [sys.executable, "python/transactions.py"],
            cwd=doc_pages.examples(tmp_path),
            environment=ledger.environment(SCHEMA_REGISTRY_URL=url),
        )
        assert entries_in(example) == entries
    # The id is on disk: a registry that is away now stops nothing.
    restart(ledger, TRANSACTIONS_ENCODING="confluent", SCHEMA_REGISTRY_URL=url)
    later = write(ledger, 3)
    header = avro.CONFLUENT + id.to_bytes(4, "big")
    assert len([value for value in later if value.startswith(header)]) == 6


def as_expected(entries: list[Entry]) -> None:
    fields = ("account_id", "user_id", "version", "entry", "amount", "balance", "fee", "metadata")
    wanted: list[tuple[object, ...]] = []
    balance = 0
    for number in range(len(ENCODINGS)):
        balance += 2**40
        credit: tuple[object, ...] = ("ada", "u-1", 2 * number + 1, "credit", 2**40, balance, 0, {})
        balance -= 102
        debit: tuple[object, ...] = (
            "ada",
            "u-1",
            2 * number + 2,
            "debit",
            102,
            balance,
            2,
            MORE["metadata"],
        )
        wanted += [credit, debit]
    for number in range(len(ENCODINGS)):
        got = 100 * (number + 1)
        wanted.append(("bem", None, number + 1, "credit", 100, got, 0, MORE["metadata"]))
    assert [tuple(entry[field] for field in fields) for entry in entries] == wanted
    assert {entry["reference"] for entry in entries} == {None, MORE["reference"]}


def test_confluent_without_an_id_does_not_start(
    kafka: str, topic_prefix: str, tmp_path: Path
) -> None:
    """One record in another encoding would stay in the topic."""
    confluent = {"TRANSACTIONS_ENCODING": "confluent"}
    with ledgers.worker_ledger(kafka, topic_prefix, tmp_path) as ledger:
        worker = ledger.worker(**confluent)
        assert worker.wait(60) == 2
        assert "TRANSACTIONS_ENCODING=confluent: needs SCHEMA_REGISTRY_URL" in worker.log_text()
        fake = FakeRegistry()
        fake.refused.add(avro.transaction_schema().text)
        with fake_registry.served(fake) as address:
            url = f"http://{address}"
            said = ledger.refused(SCHEMA_REGISTRY_URL=url, **confluent)
        assert "it is incompatible with 1" in said
        said = ledger.refused(SCHEMA_REGISTRY_URL=url, **confluent)
        assert "the registry is unreachable" in said
