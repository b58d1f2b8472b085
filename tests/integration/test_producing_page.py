"""docs/producing.md is what people do who have only Kafka: its lines run as they stand there.

One ledger for the whole page, in the order of the page. Lines for other languages are run by
tests/languages.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from schemas import ids, published_records
from schemas.encoding import codecs
from schemas.encoding.codecs import AvroSchemas, UnreadableRecord
from tests.testkit import doc_pages, pipeline
from tests.testkit.pipeline import Pipeline

PAGE = "producing.md"
BLOCKS = doc_pages.blocks(PAGE)
LANGUAGES = {"sh java", "sh go", "sh node"}
EXCERPTS = {"python": "python/produce.py", "go": "go/main.go", "js": "node/produce.js"}
_POSITION = re.compile(r"\b\d+:\d+\b")


@pytest.fixture(scope="module")
def ledger(
    kafka: str, postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("producing")
    with pipeline.made(kafka, postgres, template, folder) as ledger:
        yield ledger


def test_every_line_runs_and_says_what_the_page_says(ledger: Pipeline, tmp_path: Path) -> None:
    cwd = doc_pages.examples(tmp_path)
    outputs = {}
    for block in BLOCKS:
        if block.info == "sh" and block.runs:
            outputs[block.line] = ledger.shell(block.text, cwd).stdout
    printed = "\n".join(outputs.values())
    unplaced = {_POSITION.sub("P:O", line).strip() for line in printed.splitlines()}
    for sample in samples():
        assert _POSITION.sub("P:O", sample) in unplaced, sample
    # What each part of the page promises of its own.
    commands = dict.fromkeys(("alice", "carol", "dora", "emeka"), 0)
    for key, _ in ledger.read(ledger.names.commands):
        commands[(key or b"carol").decode()] += 1
    assert commands == {"alice": 4 + 4 + 3 + 4 + 4 + 4, "carol": 4, "dora": 4, "emeka": 4}
    results = ledger.results()
    assert len(results) == sum(commands.values())
    assert [r["id"] for r in results if r.get("reason") == "misrouted"] == ["no-key-1"]
    balances = {
        json.loads(value)["account_id"]: json.loads(value)["balance"]
        for _, value in ledger.read(ledger.names.transactions)
    }
    assert balances == {"alice": 480_000, "carol": 150_100, "dora": 480_000, "emeka": 480_000}


def samples() -> list[str]:
    """Output that the page shows, indented; its blocks in fences are code."""
    text = (doc_pages.ROOT / "docs" / PAGE).read_text("utf-8")
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for line in re.findall(r"^    (\d.*)$", outside, re.MULTILINE)]


def test_what_is_not_run_says_so_and_no_block_is_forgotten() -> None:
    allowed = {"sh", "json", *LANGUAGES, *EXCERPTS}
    assert [block for block in BLOCKS if block.info not in allowed] == []
    not_run = [block for block in BLOCKS if not block.runs]
    assert len(not_run) == 2
    assert samples() != []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.info in EXCERPTS], ids=lambda b: b.line)
def test_code_on_the_page_is_code_that_is_run(block: doc_pages.Block) -> None:
    path = doc_pages.ROOT / "docs" / "examples" / EXCERPTS[block.info]
    assert block.text in path.read_text("utf-8")


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.info == "json"], ids=lambda b: b.line)
def test_messages_on_the_page_are_messages(block: doc_pages.Block) -> None:
    if "outcome" in block.text:
        result = msgspec.json.decode(block.text, type=published_records.Result)
        assert result.id is not None
        assert result.transaction_id == ids.transaction_id("alice", result.id)
    else:
        value = block.text.strip().encode()
        assert not isinstance(codecs.decode_command(value, AvroSchemas()), UnreadableRecord)


def test_the_constants_on_the_page_are_ours() -> None:
    text = (doc_pages.ROOT / "docs" / PAGE).read_text("utf-8")
    assert str(ids.NAMESPACE) in text
