"""Avro in the Confluent wire format, by a real registry: run only where one is asked for.

STREAMLEDGER_TEST_REGISTRY is the URL of any registry with Confluent's API, or `apicurio`: then
Apicurio is fetched by Maven and runs on the Java that the embedded Kafka has.
"""

import json
import os
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compose.embedded import java, ports
from schemas.encoding import codecs
from schemas.encoding.avro_schema_cache import AvroSchemas
from schemas.encoding.codecs import UnreadableRecord
from schemas.encoding.schema_registry import HttpRegistry
from tests.testkit import brokers, doc_pages, pipeline
from tests.testkit.waiting import eventually

REGISTRY_VARIABLE = "STREAMLEDGER_TEST_REGISTRY"
APICURIO = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
GET = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1"
CONFLUENT_API = "/apis/ccompat/v7"
START_S = 90.0


@contextmanager
def registry(registry_url: str, folder: Path) -> Iterator[str]:
    if registry_url != "apicurio":
        yield registry_url
        return
    maven = ["mvn", "-q", "-B"]
    one = [f"-Dartifact={APICURIO}", "-Dtransitive=false"]
    subprocess.run([*maven, f"{GET}:get", *one], check=True, cwd=folder)
    copied = [f"-DoutputDirectory={folder}", "-Dmdep.useBaseVersion=true"]
    subprocess.run([*maven, f"{GET}:copy", *one, *copied], check=True, cwd=folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (runner,) = folder.glob("*-runner.jar")
    port = ports.next_free(brokers.some_port())
    flags = [f"-Dquarkus.http.port={port}", "-Dquarkus.http.host=127.0.0.1", "-Xmx512m"]
    with (folder / "log").open("wb") as log:
        started = subprocess.Popen(
            [str(java.find().program), *flags, "-jar", str(runner)], stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}{CONFLUENT_API}"

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/subjects", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        eventually(answers, START_S)
        yield url
    finally:
        started.terminate()
        started.wait(30)


def test_what_the_page_sends_by_a_registry_is_read_by_it(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry_url = os.environ.get(REGISTRY_VARIABLE)
    if registry_url is None:
        with capsys.disabled():
            print(f"\nnot run: Avro by a real registry: set {REGISTRY_VARIABLE}")  # noqa: T201
        return
    kafka, postgres, template = (
        request.getfixturevalue(name) for name in ("kafka", "postgres", "template")
    )
    (tmp_path / "registry").mkdir()
    with (
        registry(registry_url, tmp_path / "registry") as url,
        pipeline.made(kafka, postgres, template, tmp_path / "ledger") as ledger,
    ):
        cwd = doc_pages.examples(tmp_path)
        (block,) = [b for b in doc_pages.blocks("producing.md") if "command.avsc http" in b.text]
        text = block.text.replace("http://127.0.0.1:8081", url)

        def said() -> list[list[str]]:
            lines = ledger.shell(text, cwd).stdout.splitlines()
            return [line.split()[1:] for line in lines]

        # A processor without a registry says so of each.
        assert said() == [["None", "rejected", "schema_unknown"]] * 4
        assert ledger.worker.stop() == 0
        ledger.worker.start(SCHEMA_REGISTRY_URL=url, TRANSACTIONS_ENCODING="confluent")
        eventually(ledger.worker.ready, START_S)
        assert said() == [
            ["open-alice", "posted", "-"],
            ["salary-1", "posted", "-"],
            ["cash-1", "posted", "-"],
            ["too-much-1", "rejected", "insufficient_funds"],
        ]

        commands = (cwd / "commands.jsonl").read_text().splitlines()
        sent = [json.loads(line) for line in commands] * 2
        schemas = AvroSchemas(tmp_path / "kept", HttpRegistry(url))
        assert schemas.load([f"{ledger.names.commands}-value"]) is None
        for cache in (schemas, kept_on_disk(tmp_path / "kept")):
            read = [
                codecs.decode_command(value, cache)
                for _, value in ledger.read(ledger.names.commands)
            ]
            assert not [each for each in read if isinstance(each, UnreadableRecord)]
            assert [json.loads(codecs.encode_json(each)) for each in read] == sent
        words = ("consume", "commands", "--from-beginning", "--json", "--registry", url)
        lines = ledger.streamledger(*words).stdout.splitlines()
        assert [json.loads(line)["value"]["id"] for line in lines] == [each["id"] for each in sent]
        # What it wrote by the same registry, for a reader that asks that one for the schema.
        assert all(v.startswith(b"\0") for _, v in ledger.read(ledger.names.transactions))
        on_transactions = ("consume", "--from-beginning", "--json", "--registry", url)
        entries = [
            json.loads(line)["value"]
            for line in ledger.streamledger(*on_transactions).stdout.split("\n")[:-1]
        ]
        assert [(each["kind"], each["version"]) for each in entries] == [
            ("credit", 1),
            ("debit", 2),
        ]


def kept_on_disk(folder: Path) -> AvroSchemas:
    """As after a restart while the registry is away."""
    nobody = HttpRegistry(f"http://127.0.0.1:{ports.next_free(brokers.some_port())}")
    schemas = AvroSchemas(folder, nobody)
    assert schemas.load(["commands-value"]) is not None
    return schemas
