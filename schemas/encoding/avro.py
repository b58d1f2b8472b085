"""Avro: schemas derived from the message types, and reading and writing of records.

A writer's schema with which a few bytes could consume much memory or time is rejected before use.
Knows no registry and no rule.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Final, get_args

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form
from msgspec import NODEFAULT, Struct, inspect

from schemas.commands import Command
from schemas.published_records import Result, TransactionRecord

CONFLUENT: Final = b"\x00"
CONFLUENT_HEADER_BYTES: Final = 5
SINGLE_OBJECT: Final = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES: Final = 10
NAMESPACE: Final = "streamledger"

# The limit on the parts of a writer's schema, counted with named types expanded.
MAX_SCHEMA_PARTS: Final = 400
MAX_SCHEMA_BYTES: Final = 256 * 1024

# Types with a lossless JSON form: no bytes, no floats.
_SIMPLE: Final = ("null", "boolean", "int", "long", "string")

Message = Command | TransactionRecord | Result
Json = dict[str, Any]


# Errors that the parser raises for an invalid schema besides its own exception.
_NOT_A_SCHEMA: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class AvroUnreadable(ValueError):
    """The bytes are not one whole record of the schema."""


class Unusable(ValueError):
    """The text is not an Avro schema, or the schema is unsafe to read records with."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A writer's schema."""

    text: str
    parsed: Any
    # CRC-64-AVRO of the parsing canonical form, in the byte order of the wire.
    fingerprint: bytes

    def read(self, payload: bytes) -> Json:
        file = BytesIO(payload)
        try:
            record = fastavro.schemaless_reader(file, self.parsed, None)
        except (EOFError, LookupError, ValueError, TypeError, OverflowError) as error:
            raise AvroUnreadable("the bytes do not match the Avro schema") from error
        if file.tell() != len(payload):
            raise AvroUnreadable(f"{len(payload) - file.tell()} bytes follow the Avro record")
        if not isinstance(record, dict):
            raise AvroUnreadable("the Avro value is not a record")
        return record

    def write(self, record: Json) -> bytes:
        file = BytesIO()
        fastavro.schemaless_writer(file, self.parsed, record)
        return file.getvalue()


def parse(text: str) -> Schema:
    """Parse a schema that is safe to read records with; raise Unusable for any other."""
    if len(text) > MAX_SCHEMA_BYTES:
        raise Unusable(f"the schema is larger than {MAX_SCHEMA_BYTES} bytes")
    try:
        # Dropping logical types keeps a time as the number of milliseconds written.
        raw = json.loads(text, object_hook=_without_logical_type)
        parsed = fastavro.parse_schema(raw)
        _least_bytes(parsed, {}, iter(range(MAX_SCHEMA_PARTS)))
        mark = fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO")
    except Unusable:
        raise
    except (*_NOT_A_SCHEMA, fastavro.schema.SchemaParseException) as error:
        raise Unusable("not a valid Avro schema") from error
    return Schema(text, parsed, bytes.fromhex(mark))


def _without_logical_type(part: Json) -> Json:
    part.pop("logicalType", None)
    return part


def _least_bytes(part: Any, named: dict[str, Any], left: Iterator[int]) -> int:
    """0 if a value of this part may take no bytes, else 1. Raises Unusable if the schema is
    recursive or too large."""
    if next(left, None) is None:
        raise Unusable(f"the schema has more than {MAX_SCHEMA_PARTS} parts or is recursive")
    if isinstance(part, list):
        for branch in part:
            _least_bytes(branch, named, left)
        return 1
    if isinstance(part, str):
        if part in named:
            return _least_bytes(named[part], named, left)
        if part not in _SIMPLE:
            raise Unusable(f"unsupported type {part[:64]} in the schema")
        return 0 if part == "null" else 1
    kind = part["type"]
    if kind == "record":
        named[part["name"]] = part
        return max((_least_bytes(f["type"], named, left) for f in part["fields"]), default=0)
    if kind == "map":
        _least_bytes(part["values"], named, left)
        return 1
    if kind == "array":
        if _least_bytes(part["items"], named, left) == 0:
            raise Unusable("the schema has an array whose items take no bytes")
        return 1
    if kind == "enum":
        named[part["name"]] = "string"
        return 1
    return _least_bytes(kind, named, left)


# The schemas that we write with, derived from the types.


@cache
def command_schema() -> Schema:
    """One flat record for all kinds of command: fields that a kind does not have are null."""
    return parse(json.dumps(generate_command()))


@cache
def transaction_schema() -> Schema:
    return parse(json.dumps(generate(TransactionRecord, "Transaction")))


@cache
def result_schema() -> Schema:
    return parse(json.dumps(generate(Result, "Result")))


def schema_of(message: Message) -> Schema:
    if isinstance(message, TransactionRecord):
        return transaction_schema()
    return result_schema() if isinstance(message, Result) else command_schema()


def generate_command() -> Json:
    merged: dict[str, Json] = {}
    kinds_with: dict[str, list[str]] = {}
    kinds = get_args(Command)
    for kind in kinds:
        info = inspect.type_info(kind)
        assert isinstance(info, inspect.StructType)
        for field in info.fields:
            avro_field = _field(field)
            kinds_with.setdefault(field.encode_name, []).append(str(info.tag))
            merged_field = merged.setdefault(field.encode_name, avro_field)
            if "default" in avro_field:
                merged_field |= {"type": avro_field["type"], "default": avro_field["default"]}
    tags = ", ".join(str(inspect.type_info(kind).tag) for kind in kinds)  # type: ignore[attr-defined] # all are structs
    fields: list[Json] = [{"name": "kind", "type": "string", "doc": f"one of {tags}"}]
    for name, avro_field in merged.items():
        if len(kinds_with[name]) < len(kinds):
            if "default" not in avro_field:
                avro_field |= {"type": ["null", avro_field["type"]], "default": None}
            avro_field["doc"] = "of " + ", ".join(kinds_with[name])
        fields.append(avro_field)
    return _record("Command", fields)


def generate(type: type[Struct], name: str) -> Json:
    info = inspect.type_info(type)
    assert isinstance(info, inspect.StructType)
    return _record(name, [_field(field) for field in info.fields])


def _record(name: str, fields: list[Json]) -> Json:
    return {"type": "record", "name": name, "namespace": NAMESPACE, "fields": fields}


def _field(field: inspect.Field) -> Json:
    avro_field: Json = {"name": field.encode_name, "type": _type(field.type)}
    default = field.default
    if field.default_factory is not NODEFAULT:
        default = field.default_factory()
    if default is not NODEFAULT:
        avro_field["default"] = list(default) if isinstance(default, tuple) else default
    elif isinstance(avro_field["type"], list) and avro_field["type"][0] == "null":
        avro_field["default"] = None
    return avro_field


def _type(type: inspect.Type) -> Any:
    match type:
        case inspect.Metadata():
            return _type(type.type)
        case inspect.StrType() | inspect.LiteralType() | inspect.EnumType():
            # Enumerations are plain strings, so that a new value breaks no reader.
            return "string"
        case inspect.IntType():
            return "long"
        case inspect.BoolType():
            return "boolean"
        case inspect.DictType():
            return {"type": "map", "values": _type(type.value_type)}
        case inspect.VarTupleType():
            return {"type": "array", "items": _type(type.item_type)}
        case inspect.UnionType():
            branches = [_type(t) for t in type.types if not isinstance(t, inspect.NoneType)]
            return ["null", *branches] if len(branches) < len(type.types) else branches
        case inspect.StructType():
            return generate(type.cls, type.cls.__name__)
    raise TypeError(f"no Avro type for {type}")


def record_of(message: Message) -> Json:
    # JSON turns tuples into lists: fastavro gives a tuple in a union another meaning.
    record = msgspec.json.decode(msgspec.json.encode(message))
    assert isinstance(record, dict)
    return record
