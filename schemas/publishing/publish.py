"""Publishes the types: JSON Schema and Avro files, examples, vectors and the reference pages.

`make reference` writes them, and fails if a schema changed in a way that breaks a reader or writer
of an older version. Each version stays in `published/versions`.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from schemas import (
    commands,
    coordination,
    ids,
    journal,
    money,
    partitioning,
    published_records,
    state,
)
from schemas.encoding import avro, codecs
from schemas.publishing import compatibility, examples, reference

Json = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
PUBLISHED: Final = Path("schemas/published")
VERSIONS: Final = PUBLISHED / "versions"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
VECTOR_PARTITIONS: Final = 8

STATE_TYPES: Final[dict[str, type[Struct]]] = {
    "account": state.AccountState,
    "system_account": state.SystemAccountState,
    "transaction": state.TransactionState,
    "hold": state.HoldState,
    "prepared": state.PreparedTransaction,
    "due": state.Due,
    "position": state.PartitionPosition,
}
_MESSAGES: Final[dict[str, Any]] = {
    "command": commands.Command,
    "coordination": coordination.CoordinationMessage,
    "journal": journal.JournalRecord,
    "transaction": published_records.TransactionRecord,
    "result": published_records.Result,
    "dead_letter": published_records.DeadLetter,
}
_FORMATS: Final[dict[str, Json]] = {
    "timestamp": {"format": "date-time"},
    "transaction_id": {"format": "uuid"},
    "hold_id": {"format": "uuid"},
    "head": {"contentEncoding": "base64"},
}
_AT_LEAST_0: Final = {"minimum": 0}
_BOUNDS: Final[dict[str, Json]] = {
    "amount": {"minimum": 1, "maximum": money.MAX_AMOUNT},
    **dict.fromkeys(
        ("fee", "commission_bps", "held", "incoming", "version", "settings_version"), _AT_LEAST_0
    ),
    **dict.fromkeys(("partition", "sequence", "size", "time_ms", "deadline_ms"), _AT_LEAST_0),
    **dict.fromkeys(("source", "number", "index"), _AT_LEAST_0),
}
_HAS_KEY: Final = [
    {"required": [name], "properties": {name: {"type": "string"}}}
    for name in ("id", "idempotency_key")
]


def json_schemas() -> dict[str, Json]:
    files = {name: _json_schema(name, type) for name, type in _MESSAGES.items()}
    files["state"] = _state_schema()
    return files


def avro_schemas() -> dict[str, Json]:
    return {
        name: json.loads(schema.text)
        for name, schema in (
            ("command", avro.command_schema()),
            ("transaction", avro.transaction_schema()),
            ("result", avro.result_schema()),
        )
    }


def _json_schema(name: str, type: Any) -> Json:
    (top,), parts = msgspec.json.schema_components([type], ref_template="#/$defs/{name}")
    return _document(name, top, parts)


def _state_schema() -> Json:
    """State values as JSON, each under the kind of its key; on the wire they are msgpack."""
    tops, parts = msgspec.json.schema_components(
        STATE_TYPES.values(), ref_template="#/$defs/{name}"
    )
    top = {
        "description": "A value of `state`, under the kind of its key. On the wire it is msgpack.",
        "type": "object",
        "properties": {
            name: {**top, "default": None} for name, top in zip(STATE_TYPES, tops, strict=True)
        },
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": False,
    }
    return _document("state", top, parts)


def _document(name: str, top: Json, parts: Json) -> Json:
    kinds = {kind.__name__ for kind in reference.COMMAND_TYPES}
    for part_name, part in parts.items():
        if part_name in kinds:
            part["anyOf"] = _HAS_KEY
            part["properties"]["metadata"]["description"] = reference.METADATA_BOUND
    document = {
        "$schema": DIALECT,
        "$id": f"urn:streamledger:{name}",
        "title": name,
        **_polished(top),
        "$defs": {part_name: _polished(part) for part_name, part in sorted(parts.items())},
    }
    assert isinstance(document, dict)
    return document


def _polished(part: Any, field: str = "") -> Any:
    """Rewrites patterns for ECMA-262, and adds formats and bounds that the types do not have."""
    if isinstance(part, list):
        return [_polished(p, field) for p in part]
    if not isinstance(part, dict):
        return part
    polished: Json = {}
    for name, value in part.items():
        if name in ("properties", "$defs"):
            polished[name] = {inner: _polished(p, inner) for inner, p in value.items()}
        elif name == "pattern":
            polished[name] = re.sub(r"\\Z$", "$", value)
        elif name in ("default", "enum", "required"):
            polished[name] = value
        elif name == "description":
            polished[name] = " ".join(value.split())
        else:
            polished[name] = _polished(value, field)
    if polished.get("type") == "string":
        polished |= _FORMATS.get(field, {})
    if polished.get("type") == "integer":
        polished = {**_BOUNDS.get(field, {}), **polished}
    return polished


def example_files() -> dict[str, Any]:
    examples_by_name: dict[str, Any] = {}
    examples_by_name |= {f"command.{kind}": command for kind, command in examples.COMMANDS.items()}
    examples_by_name |= {
        f"coordination.{kind}": message for kind, message in examples.COORDINATION.items()
    }
    examples_by_name |= {f"journal.{step}": record for step, record in examples.JOURNAL.items()}
    examples_by_name |= {
        "transaction": examples.TRANSACTION,
        "result": examples.RESULT,
        "dead_letter": examples.DEAD_LETTER,
    }
    examples_by_name |= {f"state.{kind}": {kind: value} for kind, value in examples.STATE.items()}
    return examples_by_name


def vectors() -> Json:
    """Test vectors for programs in other languages."""
    keyed = [("w1", "transfer-1"), ("alice", "a"), ("wallet-0001", "k" * 200), ("a:b_c-D", "é 😀")]
    accounts = ("w1", "w2", "alice", "wallet-0001", "a", "assets:bank", "x" * 64)
    return {
        "namespace": str(ids.NAMESPACE),
        "transaction_ids": [
            {"account": account, "key": key, "transaction_id": ids.transaction_id(account, key)}
            for account, key in keyed
        ],
        "wallets_only_namespace": str(ids.WALLETS_ONLY_NAMESPACE),
        "wallets_only_transaction_ids": [
            {
                "account": account,
                "key": key,
                "transaction_id": ids.transaction_id(account, key, wallets_only=True),
            }
            for account, key in keyed
        ],
        "partitions": [
            {
                "account": account,
                "partitions": VECTOR_PARTITIONS,
                "partition": partitioning.partition_of(account, VECTOR_PARTITIONS),
            }
            for account in accounts
        ],
        "fingerprints": {
            name: avro.parse(json.dumps(schema)).fingerprint.hex()
            for name, schema in avro_schemas().items()
        },
        "single_object": {
            name: codecs.encode_single_object(message).hex()
            for name, message in example_files().items()
            if name.startswith(("command.", "transaction", "result"))
        },
    }


def generate() -> dict[Path, str]:
    """All files except the versions, by path from the root."""
    files = {PUBLISHED / f"{n}.schema.json": _text(s) for n, s in json_schemas().items()}
    files |= {PUBLISHED / f"{n}.avsc": _text(s) for n, s in avro_schemas().items()}
    files |= {
        PUBLISHED / "examples" / f"{name}.json": _text(json.loads(msgspec.json.encode(value)))
        for name, value in example_files().items()
    }
    files[PUBLISHED / "vectors.json"] = _text(vectors())
    files[Path("docs/reference/reasons.md")] = reference.reasons()
    files[Path("docs/reference/messages.md")] = reference.messages_page()
    return files


def next_versions(root: Path, files: dict[Path, str]) -> tuple[dict[Path, str], list[str]]:
    """The versions to add to the published ones, and what the new schemas would break."""
    added, broken = {}, []
    for path, text in files.items():
        if path.parent != PUBLISHED or path.name == "vectors.json":
            continue
        name, _, ending = path.name.partition(".")
        older = versions_of(root, name, ending)
        new = json.loads(text)
        compare = (
            compatibility.avro_breaks if ending == "avsc" else compatibility.json_schema_breaks
        )
        for number, old in older.items():
            broken += [f"{path.name}, version {number}: {what}" for what in compare(old, new)]
        last = max(older, default=0)
        strip = compatibility.without_prose
        if last == 0 or strip(older[last]) != strip(new):
            added[VERSIONS / f"{name}.{last + 1}.{ending}"] = text
    return added, broken


def versions_of(root: Path, name: str, ending: str) -> dict[int, Json]:
    found = {}
    for path in (root / VERSIONS).glob(f"{name}.*.{ending}"):
        number = path.name.removeprefix(f"{name}.").removesuffix(f".{ending}")
        if number.isdecimal():
            found[int(number)] = json.loads(path.read_text("utf-8"))
    return dict(sorted(found.items()))


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    files = generate()
    added, broken = next_versions(ROOT, files)
    if broken:
        sys.stderr.write("Nothing was written: the change breaks published versions.\n")
        sys.stderr.writelines(f"  {what}\n" for what in broken)
        return 1
    for path, text in (files | added).items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text, "utf-8")
    for path in (ROOT / PUBLISHED / "examples").glob("*.json"):
        if path.relative_to(ROOT) not in files:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
