"""Producers in other languages: each example is built and run by the lines of docs/producing.md.

Run where the language's tools are found; what was not run is printed. Libraries come from each
language's own registry.
"""

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.testkit import doc_pages, pipeline
from tests.testkit.pipeline import Pipeline

TOOLS = {"java": ("java", "javac", "mvn"), "go": ("go",), "node": ("node", "npm")}
ACCOUNTS = 24
_RESULT_LINE = re.compile(r"(\d+:\d+) (\S+) (posted|rejected) (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def ledger(
    kafka: str, postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    folder = tmp_path_factory.mktemp("languages")
    with pipeline.made(kafka, postgres, template, folder) as ledger:
        yield ledger


@pytest.mark.parametrize("language", TOOLS)
def test_the_example_sends_to_the_right_partitions_and_finds_its_results(
    language: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = [tool for tool in TOOLS[language] if shutil.which(tool) is None]
    if missing:
        with capsys.disabled():
            print(f"\nnot run: the {language} example: missing {', '.join(missing)}")  # noqa: T201
        return
    ledger: Pipeline = request.getfixturevalue("ledger")
    (block,) = [b for b in doc_pages.blocks("producing.md") if b.info == f"sh {language}"]
    cwd = doc_pages.examples(tmp_path)
    commands, expected = some_commands()
    (cwd / "commands.jsonl").write_text(commands, "utf-8")
    # Build tools may say more, and in colours.
    lines = _RESULT_LINE.findall(ledger.shell(block.text, cwd).stdout)
    # Twice: found by their positions, then the replays of all of them, by their ids.
    assert [list(line[1:]) for line in lines] == expected * 2
    positions = [line[0] for line in lines]
    assert len(set(positions)) == len(positions)
    results = {f"{r['partition']}:{r['offset']}": r for r in ledger.results()}
    assert {results[position].get("replay", False) for position in positions} == {False, True}


def some_commands() -> tuple[str, list[list[str]]]:
    """Of accounts in all partitions, as most wrong hashes put each of them elsewhere."""
    commands: list[dict[str, Any]] = []
    expected = []
    for number in range(ACCOUNTS):
        account = f"{'long:' * number}{secrets.token_hex(3)}"[-64:]
        opening = {"kind": "open_account", "type": "wallet", "currency": "NGN"}
        commands.append({**opening, "account": account, "id": f"open-{account}"})
        credit: dict[str, Any] = {
            "kind": "credit",
            "account": account,
            "amount": 2**53 - 1,
            "description": "é 😀",
        }
        commands.append({**credit, "id": f"credit-{account}"})
        debit: dict[str, Any] = {"kind": "debit", "account": account, "amount": 0}
        commands.append({**debit, "id": f"debit-{account}"})
        expected += [
            [f"open-{account}", "posted", "-"],
            [f"credit-{account}", "posted", "-"],
            [f"debit-{account}", "rejected", "amount_invalid"],
        ]
    text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in commands)
    return text, expected
