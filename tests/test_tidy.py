"""Style is a test: who may import whom, what the pure core may call, and what the docs must name.

Reads the files of the checkout; only the last few import the program.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from compose.reference_docs import pages
from plumbing import metrics, setting_names
from schemas import journal, reasons, topics
from sinks.postgres import migrations

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "plumbing", "ingress", "processor", "sinks", "compose")
PURE = ROOT / "processor" / "rules"

# What each package may import of ours, itself aside.
MAY_IMPORT = {
    "schemas": (),
    "plumbing": ("schemas",),
    "ingress": ("schemas", "plumbing", "processor.rules", "sinks.reads"),
    "processor": ("schemas", "plumbing"),
    "sinks": ("schemas", "plumbing", "processor.rules"),
    "compose": ("schemas", "plumbing", "ingress", "processor", "sinks"),
}
# The rooms of each package, lowest first: a room imports from those before it alone. A module or a
# folder that is not named here belongs to the nearest room above it.
ROOMS = {
    "schemas": ("schemas", "schemas.validation", "schemas.encoding", "schemas.publishing"),
    "plumbing": ("plumbing", "plumbing.kafka", "plumbing.postgres", "plumbing.worker"),
    "sinks": (
        "sinks.settings",
        "sinks.journal_chain",
        "sinks.reads",
        "sinks.postgres",
        "sinks.worker",
        "sinks.verify",
        "sinks",
    ),
    "compose": ("compose", "compose.embedded", "compose.cli", "compose.reference_docs"),
}
MAX_ROOMS = 12

# The rules know the messages, what these are made of, and the standard library.
PURE_MAY_IMPORT = ("schemas", "processor.rules", "msgspec")
IMPURE_MODULES = (
    "asyncio",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "random",
    "secrets",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "time",
)
IMPURE_CALLS = (
    "date.today",
    "datetime.now",
    "datetime.today",
    "datetime.utcnow",
    "eval",
    "exec",
    "input",
    "open",
    "print",
    "uuid.getnode",
    "uuid.uuid1",
    "uuid.uuid4",
    "uuid1",
    "uuid4",
)

# Words of an older dialect: names that say nothing, and phrases that an engineer has to translate.
VAGUE_NAME = re.compile(r"(^|_)(told|asked)(_|$)")
OLD_PHRASE = re.compile(
    # The titles of decision records are history, too.
    r"\b([Aa]new(?!\.md)|[Ww]hoever|[Ll]est|is\s+none|for\s+ever|for\s+the\s+while)\b"
    r"|\b[Ww]ho\s+is\b[^.]{0,60}\bis\s+told\b"
)
# Files in plain English; decision records and migrations are history.
PLAIN = (
    *("schemas", "plumbing", "ingress", "processor", "sinks", "compose"),
    *("docs", "README.md", "CONTRIBUTING.md", "Makefile"),
)
# Files that are not yet.
TO_TRANSLATE: tuple[str, ...] = ()


def test_the_reference_names_every_one(page: str, names: list[str]) -> None:
    text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in text] == []


def test_metric_names_are_in_one_place() -> None:
    """A name that is written elsewhere in the program is one that the list may not have."""
    pattern = re.compile(r"""["'](streamledger_[a-z_]+)["']""")
    roles = {migrations.INGRESS_ROLE, migrations.SINK_ROLE}
    elsewhere = [
        relative(path)
        for path in sources(*PACKAGES)
        if path != ROOT / "plumbing" / "metrics.py"
        and set(pattern.findall(path.read_text(encoding="utf-8"))) - roles
    ]
    assert elsewhere == []


def plain_files(suffixes: set[str]) -> Iterator[Path]:
    for path in files():
        plain = any(path.is_relative_to(ROOT / place) for place in PLAIN)
        plain = plain and not any(path.is_relative_to(ROOT / place) for place in TO_TRANSLATE)
        if plain and path.suffix in suffixes and not any(map(path.is_relative_to, HISTORY)):
            yield path


def test_no_identifier_says_told_or_asked() -> None:
    vague = [
        f"{relative(path)}:{getattr(node, 'lineno', 0)}: {name}"
        for path in plain_files({".py"})
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in identifiers(node)
        if VAGUE_NAME.search(name.lower())
    ]
    assert vague == []


def identifiers(node: ast.AST) -> Iterator[str]:
    """Those that a node itself introduces or names."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(asname=str(name)):
            yield name
        case ast.arg(arg=name) | ast.keyword(arg=str(name)):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name


def test_no_text_needs_translating() -> None:
    wrong = [
        f"{relative(path)}:{text.count(chr(10), 0, match.start()) + 1}: {match.group()}"
        for path in plain_files(TEXT_FILES)
        for text in [path.read_text(encoding="utf-8")]
        for match in OLD_PHRASE.finditer(text)
    ]
    assert wrong == []


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    banned = re.compile("|".join(re.escape(each) for each in REGISTRY_HOSTS + MACHINE_PATHS))
    found = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{relative(path)}: {match.group()}" for match in banned.finditer(text)]
    assert found == []


def test_locks_hold_versions_and_hashes_and_no_addresses() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, relative(path)
        pinned = re.findall(r"^([a-z0-9][a-z0-9._-]*)(.*)$", text, re.MULTILINE)
        assert pinned, relative(path)
        assert all(rest.startswith("==") for _, rest in pinned), relative(path)
        assert text.count("--hash=sha256:") >= len(pinned), relative(path)


def test_what_runs_is_what_is_tested() -> None:
    """dev.txt has each package of run.txt at the same version: one environment serves both."""
    pins = [
        set(re.findall(r"^[a-z0-9][^ \\]*==\S+", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in (ROOT / "requirements" / "run.txt", ROOT / "requirements" / "dev.txt")
    ]
    assert pins[0] <= pins[1]


def test_each_decision_record_has_its_own_number() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [path.name[:4] for path in records]
    assert numbers == [f"{number:04}" for number in range(1, len(records) + 1)]
    for path, number in zip(records, numbers, strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {number}: "), relative(path)
