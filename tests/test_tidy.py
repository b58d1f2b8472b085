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

from compose import provisioning
from compose.reference_docs import pages
from plumbing import metrics, setting_names
from schemas import journal, reasons, topics

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
    "processor": (
        "processor.settings",
        "processor.metrics",
        "processor.rules",
        "processor.state",
        "processor.lanes",
        "processor.streaming",
        "processor.admin",
        "processor",
    ),
    "sinks": (
        "sinks.settings",
        "sinks.journal_chain",
        "sinks.reads",
        "sinks.postgres",
        "sinks.worker",
        "sinks.verify",
        "sinks",
    ),
    "ingress": (
        "ingress.sql",
        "ingress.background",
        "ingress.http",
        "ingress.settings",
        "ingress.users",
        "ingress.audit",
        "ingress.wallets",
        "ingress.auth",
        "ingress.ledger",
        "ingress.admin",
        "ingress",
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
    r"\b([Aa]new|[Ww]hoever|[Ll]est|is\s+none|for\s+ever|for\s+the\s+while)\b"
    r"|\b[Ww]ho\s+is\b[^.]{0,60}\bis\s+told\b"
)
# Files in plain English; decision records and migrations are history.
PLAIN = (
    *("schemas", "plumbing", "ingress", "processor", "sinks", "compose"),
    *("docs", "README.md", "CONTRIBUTING.md", "Makefile"),
)
# Files that are not yet.
TO_TRANSLATE: tuple[str, ...] = ()
HISTORY = (
    ROOT / "docs" / "decisions",
    *(ROOT / package / "sql" / "migrations" for package in provisioning.PACKAGES_WITH_TABLES),
)
TEXT_FILES = {".md", ".py", ".sql", ".html", ".json", ".yaml", ".yml", ".lock", ".env", ""}

SKIPPED = {
    ".env",
    ".git",
    ".hypothesis",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".streamledger",
    ".venv",
    "__pycache__",
    "build",
    "dist",
    "node_modules",
}
# In two halves each, so that this file may be read too.
REGISTRY_HOSTS = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "maven" + ".org",
    "maven.apache" + ".org",
    "npmjs" + ".org",
    "proxy.golang" + ".org",
    "docker" + ".io",
    "ghcr" + ".io",
    "quay" + ".io",
]
MACHINE_PATHS = ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/Us" + "ers/", "/de" + "v/fd/"]


def files() -> Iterator[Path]:
    """Every file that belongs to the project, whether committed yet or not."""
    folders = [ROOT]
    while folders:
        for each in sorted(folders.pop().iterdir()):
            if each.name in SKIPPED or each.name.endswith(".egg-info"):
                continue
            if each.is_dir():
                folders.append(each)
            else:
                yield each


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from sorted((ROOT / package).rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of each module or name that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno} imports by a relative name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def under(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == each or name.startswith(each + ".") for each in allowed)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for path in sources(package)
        for line, name in imports(path)
        if name.partition(".")[0] in (*PACKAGES, "tests", "benchmarks")
        and not under(name, (package, *MAY_IMPORT[package]))
    ]
    assert wrong == []


def room_of(name: str, rooms: tuple[str, ...]) -> str:
    return max((room for room in rooms if under(name, (room,))), key=len)


@pytest.mark.parametrize("package", ROOMS)
def test_no_room_imports_from_a_room_above_it(package: str) -> None:
    rooms = ROOMS[package]
    assert len(rooms) <= MAX_ROOMS
    for room in rooms:
        place = ROOT / room.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file(), f"there is no {room}"
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for path in sources(package)
        for line, name in imports(path)
        if under(name, (package,))
        and rooms.index(room_of(name, rooms)) > rooms.index(room_of(module_of(path), rooms))
    ]
    assert wrong == []


def test_benchmarks_import_no_test() -> None:
    """What they share with tests is in the testkit."""
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for path in sources("benchmarks")
        for line, name in imports(path)
        if under(name, ("tests",)) and not under(name, ("tests.testkit",))
    ]
    assert wrong == []


def test_no_class_name_exists_twice() -> None:
    places: dict[str, list[str]] = {}
    for path in sources(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(f"{relative(path)}:{node.lineno}")
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert twice == {}


def test_the_glossary_names_every_module() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    table = text.partition("## Rooms and modules")[2]
    rows = {
        cells[1].strip(" `"): set(re.findall(r"`([^`]+)`", cells[3]))
        for line in table.splitlines()
        if len(cells := line.split("|")) == 5 and cells[1].strip().startswith("`")
    }
    modules: dict[str, set[str]] = {}
    for path in sources(*PACKAGES):
        if not path.name.startswith("__"):
            modules.setdefault(str(path.parent.relative_to(ROOT)), set()).add(path.stem)
    assert rows == modules


def test_the_rules_import_nothing_but_messages_and_the_standard_library() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for path in sorted(PURE.rglob("*.py"))
        for line, name in imports(path)
        if (top := name.partition(".")[0]) in IMPURE_MODULES
        or (top not in sys.stdlib_module_names and not under(name, PURE_MAY_IMPORT))
    ]
    assert wrong == []


def test_the_rules_call_no_clock_no_chance_and_no_file() -> None:
    wrong = [
        f"{relative(path)}:{node.lineno} calls {name}"
        for path in sorted(PURE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (name := ast.unparse(node.func)).removeprefix("datetime.") in IMPURE_CALLS
    ]
    wrong += [
        f"{relative(path)}: is asynchronous"
        for path in sorted(PURE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    assert wrong == []


def test_each_record_of_the_rules_names_its_step() -> None:
    """They are made of a header by `replace`, whose names no type checker looks at."""
    steps = get_args(journal.Step)
    records = [
        (relative(path), node)
        for path in sorted(PURE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "replace"
        and re.search(r"(^|[._])header$|for_input\(", ast.unparse(node.args[0]))
    ]
    for path, node in records:
        fields = {each.arg: each.value for each in node.keywords}
        assert "step" in fields, f"{path}:{node.lineno} makes a record without a step"
        step = fields["step"]
        assert not isinstance(step, ast.Constant) or step.value in steps, f"{path}:{node.lineno}"
    assert len(records) > 15


def test_the_rules_load_without_faust_and_without_clients() -> None:
    program = (
        "import pkgutil, sys, importlib, processor.rules as rules\n"
        "for each in pkgutil.walk_packages(rules.__path__, 'processor.rules.'):\n"
        "    importlib.import_module(each.name)\n"
        "print(*sys.modules)\n"
    )
    heavy = {"faust", "mode", "aiokafka", "confluent_kafka", "psycopg", "aiohttp", "rocksdict"}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert heavy & set(ended.stdout.split()) == set()


def test_package_init_files_are_empty() -> None:
    full = [
        relative(path)
        for path in sources(*PACKAGES)
        if path.name == "__init__.py" and path.stat().st_size > 0
    ]
    assert full == []


def test_every_module_opens_with_what_it_is() -> None:
    bare = [
        relative(path)
        for path in sources(*PACKAGES, "tests", "benchmarks")
        if path.stat().st_size > 0
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert bare == []


def test_generated_references_are_up_to_date() -> None:
    stale = [
        path
        for path, text in pages.pages().items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run `make reference`"


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("settings.md", list(setting_names.ALL)),
        ("topics.md", [topic.role for topic in topics.ALL]),
        ("metrics.md", [metric.name for metric in metrics.ALL]),
        ("reasons.md", [str(reason) for reason in reasons.Reason]),
    ],
)
def test_the_reference_names_every_one(page: str, names: list[str]) -> None:
    text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in text] == []


def test_metric_names_are_in_one_place() -> None:
    """A name that is written elsewhere in the program is one that the list may not have."""
    pattern = re.compile(r"""["'](streamledger_[a-z_]+)["']""")
    roles = {provisioning.INGRESS_ROLE, provisioning.SINK_ROLE}
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
        if VAGUE_NAME.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
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
