"""What is published follows from the types, is true of the examples, and breaks nobody."""

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from schemas import ids
from schemas.commands import Command
from schemas.coordination import CoordinationMessage
from schemas.encoding import avro, codecs
from schemas.encoding.avro_schema_cache import AvroSchemas
from schemas.journal import JournalRecord
from schemas.partitioning import partition_of
from schemas.published_records import DeadLetter, Result, TransactionRecord
from schemas.publishing import compatibility, examples, publish
from schemas.reasons import CATALOGUE, NEVER_FROZEN, Reason

Json = dict[str, Any]

FILES = publish.generate()
EXAMPLES = sorted((publish.ROOT / publish.PUBLISHED / "examples").glob("*.json"))
TYPES: dict[str, Any] = {
    "command": Command,
    "coordination": CoordinationMessage,
    "journal": JournalRecord,
    "transaction": TransactionRecord,
    "result": Result,
    "dead_letter": DeadLetter,
}
IN_AVRO: dict[str, Any] = {"command": Command, "transaction": TransactionRecord, "result": Result}


def read(name: str) -> Json:
    loaded = json.loads((publish.ROOT / publish.PUBLISHED / name).read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def message_of(path: Path) -> str:
    return path.name.partition(".")[0]


# Nothing changes when it is made again, and nothing is missing.


@pytest.mark.parametrize("path", sorted(FILES), ids=str)
def test_made_again_nothing_changes(path: Path) -> None:
    assert (publish.ROOT / path).read_text("utf-8") == FILES[path], "make reference"


def test_what_is_published_is_the_last_version_and_breaks_no_other() -> None:
    assert publish.next_versions(publish.ROOT, FILES) == ({}, [])


def test_there_is_an_example_of_everything() -> None:
    names = {path.name.removesuffix(".json") for path in EXAMPLES}
    assert names == set(publish.example_files())
    kinds = {f"command.{tag}" for tag in read("command.schema.json")["discriminator"]["mapping"]}
    messages = {
        f"coordination.{tag}"
        for tag in read("coordination.schema.json")["discriminator"]["mapping"]
    }
    steps = read("journal.schema.json")["$defs"]["JournalRecord"]["properties"]["step"]["enum"]
    values = set(read("state.schema.json")["properties"])
    assert kinds | messages | {f"journal.{step}" for step in steps} <= names
    assert {f"state.{value}" for value in values} <= names


# The examples are true.


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_by_its_schema_and_is_the_value(path: Path) -> None:
    text = path.read_bytes()
    name = message_of(path)
    Draft202012Validator(read(f"{name}.schema.json")).validate(json.loads(text))
    expected = publish.example_files()[path.name.removesuffix(".json")]
    if name == "state":
        ((kind, value),) = json.loads(text).items()
        type = publish.STATE_TYPES[kind]
        assert msgspec.convert(value, type) == expected[kind]
        assert (
            msgspec.msgpack.decode(msgspec.msgpack.encode(expected[kind]), type=type)
            == (expected[kind])
        )
    else:
        decoded = msgspec.json.decode(text, type=TYPES[name])
        assert decoded == expected
        assert msgspec.json.decode(codecs.encode_json(decoded), type=TYPES[name]) == expected


@pytest.mark.parametrize(
    "path", [p for p in EXAMPLES if message_of(p) in IN_AVRO], ids=lambda path: path.stem
)
def test_an_example_is_the_same_value_in_avro(path: Path) -> None:
    name = path.name.removesuffix(".json")
    value = bytes.fromhex(read("vectors.json")["single_object"][name])
    schema = avro.parse(json.dumps(read(f"{message_of(path)}.avsc")))
    assert value[:10] == avro.SINGLE_OBJECT + schema.fingerprint
    record = schema.read(value[10:])
    if message_of(path) == "command":
        record = {field: given for field, given in record.items() if given is not None}
    typed = msgspec.json.decode(msgspec.json.encode(record), type=IN_AVRO[message_of(path)])
    assert typed == publish.example_files()[name]
    assert codecs.encode_single_object(typed) == value


def test_the_known_schemas_read_the_published_bytes() -> None:
    schemas = AvroSchemas()
    vectors = read("vectors.json")["single_object"]
    for kind, command in examples.COMMANDS.items():
        assert codecs.decode_command(bytes.fromhex(vectors[f"command.{kind}"]), schemas) == command
    value = bytes.fromhex(vectors["transaction"])
    assert codecs.decode_transaction(value, schemas) == examples.TRANSACTION


def test_the_schemas_are_json_schemas() -> None:
    for name in publish.json_schemas():
        schema = read(f"{name}.schema.json")
        assert schema["$schema"] == publish.DIALECT
        Draft202012Validator.check_schema(schema)
        assert r"\\Z" not in json.dumps(schema)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pay"},
        {"account": "w 1"},
        {"account": "x" * 65},
        {"amount": 0},
        {"amount": 2**53},
        {"amount": "5"},
        {"amount": 1.5},
        {"id": None},
        {"id": ""},
        {"reference": "x" * 201},
        {"description": "x" * 1_001},
        {"metadata": {"a": 1}},
        {"effective_at_ms": 0},
        {"expected_version": -1},
        {"colour": "red"},
    ],
)
def test_the_schema_of_commands_refuses_what_the_door_refuses(change: Json) -> None:
    good = {"kind": "credit", "account": "w1", "id": "a", "amount": 5}
    schema = Draft202012Validator(read("command.schema.json"))
    assert schema.is_valid(good)
    assert schema.is_valid({**good, "id": None, "idempotency_key": "k"})
    assert not schema.is_valid(good | change)


def test_vectors() -> None:
    vectors = read("vectors.json")
    assert vectors["namespace"] == str(ids.NAMESPACE)
    for vector in vectors["transaction_ids"]:
        assert ids.transaction_id(vector["account"], vector["key"]) == vector["transaction_id"]
    assert vectors["wallets_only_namespace"] == str(ids.WALLETS_ONLY_NAMESPACE)
    for vector in vectors["wallets_only_transaction_ids"]:
        transaction_id = ids.transaction_id(vector["account"], vector["key"], wallets_only=True)
        assert transaction_id == vector["transaction_id"]
    partitions = {v["account"]: v["partition"] for v in vectors["partitions"]}
    assert partitions["w1"] == 7
    assert partitions["alice"] == 5
    assert partitions["wallet-0001"] == 1
    assert partitions == {account: partition_of(account, 8) for account in partitions}
    for name, fingerprint in vectors["fingerprints"].items():
        assert avro.parse(json.dumps(read(f"{name}.avsc"))).fingerprint.hex() == fingerprint


def test_the_reasons_page_has_every_reason_in_order() -> None:
    page = (publish.ROOT / "docs/reference/reasons.md").read_text("utf-8")
    rows = [
        line.split(" | ") for line in page.splitlines() if line.startswith("| ") and "`" in line
    ]
    assert [row[1].strip("`") for row in rows] == [str(reason) for reason in Reason]
    for row, reason in zip(rows, Reason, strict=True):
        assert row[2] == str(CATALOGUE[reason].status)
        assert row[5].strip(" |") == ("no" if reason in NEVER_FROZEN else "yes")


# Changes that break, and changes that do not.

Change = Any


def in_record(name: str, change: Change) -> Change:
    def apply(schema: Json) -> None:
        change(schema["$defs"][name])

    return apply


def at(*path: Any, **to: Any) -> Change:
    """Sets, at a path within the schema; `...` takes away."""

    def apply(part: Json) -> None:
        for step in path:
            part = part[step]
        for name, value in to.items():
            if value is ...:
                del part[name]
            else:
                part[name] = value

    return apply


def require(name: str) -> Change:
    return lambda part: part["required"].append(name)


def no_longer_require(name: str) -> Change:
    return lambda part: part["required"].remove(name)


BROKEN: list[tuple[str, str, Change]] = [
    ("a field removed", "command", in_record("Credit", at("properties", reference=...))),
    ("a required field removed", "command", in_record("Credit", at("properties", amount=...))),
    (
        "another type",
        "command",
        in_record("Credit", at("properties", "amount", type="string")),
    ),
    (
        "one more type",
        "result",
        in_record(
            "Result",
            at("properties", sequence={"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ),
    ),
    (
        "null taken away",
        "command",
        in_record("Credit", lambda part: part["properties"]["reference"]["anyOf"].pop()),
    ),
    (
        "a required field added",
        "command",
        in_record("Credit", at("properties", purpose={"type": "string"})),
    ),
    (
        "a field added without a default, not required",
        "journal",
        in_record("JournalRecord", at("properties", purpose={"type": "string"})),
    ),
    ("a field now required", "command", in_record("Credit", require("reference"))),
    (
        "a field no longer required",
        "transaction",
        in_record("TransactionRecord", no_longer_require("amount")),
    ),
    ("a narrower bound", "command", in_record("Credit", at("properties", "amount", maximum=100))),
    ("a wider bound", "command", in_record("Credit", at("properties", "amount", minimum=0))),
    ("a bound gone", "command", in_record("Credit", at("properties", "amount", maximum=...))),
    ("another pattern", "command", in_record("Credit", at("properties", "account", pattern="^x$"))),
    ("another default", "journal", in_record("JournalRecord", at("properties", "fee", default=1))),
    (
        "an allowed value removed",
        "command",
        in_record("OpenAccount", lambda part: part["properties"]["type"]["enum"].remove("wallet")),
    ),
    (
        "a reason removed",
        "result",
        in_record("Reason", lambda part: part["enum"].remove("malformed")),
    ),
    (
        "values no longer listed",
        "result",
        in_record("Result", at("properties", outcome={"type": "string"})),
    ),
    ("unknown fields let in", "command", in_record("Credit", at(additionalProperties=...))),
    (
        "metadata of integers",
        "command",
        in_record("Credit", at("properties", "metadata", additionalProperties={"type": "integer"})),
    ),
    ("a kind removed", "command", at("discriminator", "mapping", close=...)),
    (
        "entries of another type",
        "command",
        in_record("PostEntry", at("properties", "amount", type="number")),
    ),
    ("fewer entries", "command", in_record("Post", at("properties", "entries", maxItems=10))),
    ("a deep field removed", "journal", in_record("Entry", at("properties", held=...))),
    (
        "the last element gone",
        "state",
        in_record("AccountState", lambda part: part["prefixItems"].pop()),
    ),
    (
        "an element put between",
        "state",
        in_record(
            "AccountState",
            lambda part: part["prefixItems"].insert(2, {"type": "integer", "default": 0}),
        ),
    ),
    (
        "an element added without default",
        "state",
        in_record("AccountState", lambda part: part["prefixItems"].append({"type": "integer"})),
    ),
    ("more elements required", "state", in_record("AccountState", at(minItems=6))),
    ("a kind of state removed", "state", at("properties", hold=...)),
]

GOOD: list[tuple[str, str, Change]] = [
    ("nothing", "command", lambda schema: None),
    (
        "a field added with a default",
        "command",
        in_record(
            "Credit",
            at(
                "properties",
                purpose={"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            ),
        ),
    ),
    ("a reason added", "result", in_record("Reason", lambda part: part["enum"].append("too_late"))),
    (
        "an allowed value added",
        "command",
        in_record("OpenAccount", lambda part: part["properties"]["type"]["enum"].append("vault")),
    ),
    ("other words", "command", in_record("Credit", at(description="other", title="Other"))),
    (
        "words about a field",
        "command",
        in_record("Credit", at("properties", "metadata", description="other")),
    ),
    (
        "an element added with a default",
        "state",
        in_record(
            "AccountState",
            lambda part: part["prefixItems"].append({"type": "integer", "default": 0}),
        ),
    ),
]


def changed(schema: Json, change: Change) -> Json:
    new = copy.deepcopy(schema)
    change(new)
    return new


@pytest.mark.parametrize(("message", "change"), [pytest.param(m, c, id=n) for n, m, c in BROKEN])
def test_a_change_that_breaks_is_found(message: str, change: Change) -> None:
    old = read(f"{message}.schema.json")
    assert compatibility.json_schema_breaks(old, changed(old, change))


@pytest.mark.parametrize(("message", "change"), [pytest.param(m, c, id=n) for n, m, c in GOOD])
def test_a_change_that_breaks_nothing_is_let_through(message: str, change: Change) -> None:
    old = read(f"{message}.schema.json")
    assert compatibility.json_schema_breaks(old, changed(old, change)) == []


def test_a_kind_may_be_added() -> None:
    old = read("command.schema.json")
    new = copy.deepcopy(old)
    new["$defs"]["Rename"] = new["$defs"]["Close"]
    new["anyOf"].append({"$ref": "#/$defs/Rename"})
    new["discriminator"]["mapping"]["rename"] = "#/$defs/Rename"
    assert compatibility.json_schema_breaks(old, new) == []
    assert compatibility.json_schema_breaks(new, old)


def field(schema: Json, name: str) -> Json:
    return next(f for f in schema["fields"] if f["name"] == name)


AVRO_BROKEN: list[tuple[str, Change]] = [
    ("a field removed", lambda s: s["fields"].pop()),
    ("another type", lambda s: field(s, "kind").update(type="long")),
    ("null taken away", lambda s: field(s, "amount").update(type="long")),
    ("null let in", lambda s: field(s, "account").update(type=["null", "string"])),
    ("a default gone", lambda s: field(s, "amount").pop("default")),
    ("another default", lambda s: field(s, "metadata").update(default={"a": "b"})),
    ("added without default", lambda s: s["fields"].append({"name": "x", "type": "string"})),
    ("another name", lambda s: s.update(name="Other")),
    ("another namespace", lambda s: s.update(namespace="other")),
    ("a map of others", lambda s: field(s, "metadata")["type"].update(values="long")),
    ("an entry's field removed", lambda s: field(s, "entries")["type"][1]["items"]["fields"].pop()),
]


@pytest.mark.parametrize("change", [pytest.param(c, id=name) for name, c in AVRO_BROKEN])
def test_a_change_that_breaks_avro_is_found(change: Change) -> None:
    old = read("command.avsc")
    assert compatibility.avro_breaks(old, changed(old, change))


def test_an_avro_field_may_be_added_with_a_default_and_old_and_new_read_each_other() -> None:
    old = read("command.avsc")
    new = copy.deepcopy(old)
    new["fields"].insert(1, {"name": "purpose", "type": ["null", "string"], "default": None})
    field(new, "amount")["doc"] = "other words"
    assert compatibility.avro_breaks(old, new) == []
    was, now = avro.parse(json.dumps(old)), avro.parse(json.dumps(new))
    record = avro.record_of(examples.COMMANDS["transfer"])
    assert was.fingerprint != now.fingerprint
    old_read, new_read = was.read(was.write(record)), now.read(now.write(record))
    assert new_read == old_read | {"purpose": None}


def test_publishing_refuses_what_breaks_and_numbers_what_does_not(tmp_path: Path) -> None:
    added, broken = publish.next_versions(tmp_path, FILES)
    assert broken == []
    assert publish.VERSIONS / "command.1.avsc" in added
    for path, text in added.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    assert publish.next_versions(tmp_path, FILES) == ({}, [])

    path = publish.PUBLISHED / "command.avsc"
    new = json.loads(FILES[path])
    new["fields"].append({"name": "purpose", "type": ["null", "string"], "default": None})
    added, broken = publish.next_versions(tmp_path, FILES | {path: json.dumps(new)})
    assert (list(added), broken) == ([publish.VERSIONS / "command.2.avsc"], [])

    new["fields"].pop(0)
    added, broken = publish.next_versions(tmp_path, FILES | {path: json.dumps(new)})
    assert broken == ["command.avsc, version 1: .kind: was removed"]
