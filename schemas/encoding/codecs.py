"""Codecs: bytes to typed messages and back, in three encodings distinguished by the first byte.

Reading a command never raises: bytes that cannot be decoded become an UnreadableRecord with its
reason. The fast path is one decode and a few cheap tests. If these are inconclusive,
`validation.command_validation` finds the reason. Knows no key, partition or state.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from schemas import field_types
from schemas.commands import Command
from schemas.encoding import avro
from schemas.encoding.avro import Message
from schemas.encoding.avro_schema_cache import AvroSchemas, SchemaUnknown
from schemas.published_records import TransactionRecord
from schemas.reasons import Reason
from schemas.validation import command_validation
from schemas.validation.command_validation import UnreadableRecord

__all__ = [
    "AvroSchemas",
    "UnreadableRecord",
    "decode_command",
    "decode_transaction",
    "encode_confluent",
    "encode_json",
    "encode_single_object",
    "transactions_as_confluent",
    "transactions_as_single_objects",
]

_OPENING: Final = b"{"[0]
_AVRO_FIRST: Final = (avro.CONFLUENT[0], avro.SINGLE_OBJECT[0])

_decode: Final[Callable[[bytes], Command]] = msgspec.json.Decoder(Command).decode
_decode_transaction = msgspec.json.Decoder(TransactionRecord).decode
encode_json = msgspec.json.Encoder().encode


def decode_command(value: bytes | None, schemas: AvroSchemas) -> Command | UnreadableRecord:
    if not value:
        return UnreadableRecord(Reason.MALFORMED, "the record has no value")
    if len(value) > field_types.MAX_COMMAND_BYTES:
        return _too_large(
            len(value), None if value[0] in _AVRO_FIRST else command_validation.scan_label(value)
        )
    if value[0] != _OPENING and value[0] in _AVRO_FIRST:
        return _decode_avro(value, schemas)
    try:
        command = _decode(value)
    except (ValueError, RecursionError):
        return command_validation.diagnose_json(value) or _UNDIAGNOSED
    if command.id is None and command.idempotency_key is None:
        return command_validation.diagnose_json(value) or _UNDIAGNOSED
    # JSON is never shorter than the text it encodes.
    if (
        len(value) > field_types.MAX_METADATA_BYTES
        and command_validation.metadata_bytes(command.metadata) > field_types.MAX_METADATA_BYTES
    ):
        return command_validation.diagnose_json(value) or _UNDIAGNOSED
    # A duplicate field leaves more colons in the input than there are in the command; only
    # an escaped colon could hide that.
    escapes = b"\\" in value
    if (escapes or value.count(b":") != encode_json(command).count(b":")) and (
        command_validation.has_duplicate_field(value)
        or (escapes and b"\\u0000" in value and _unfit(command))
    ):
        return command_validation.diagnose_json(value) or _UNDIAGNOSED
    return command


# Command validation explains every decoder failure; this is the fallback.
_UNDIAGNOSED: Final = UnreadableRecord(Reason.MALFORMED, "the command cannot be read")


def _too_large(size: int, label: str | None) -> UnreadableRecord:
    detail = f"{size} bytes exceed the limit of {field_types.MAX_COMMAND_BYTES}"
    return UnreadableRecord(Reason.TOO_LARGE, detail, label)


def _unfit(command: Command) -> bool:
    return command_validation.unfit_text(msgspec.to_builtins(command))


def _read_avro(value: bytes, schemas: AvroSchemas) -> dict[str, Any]:
    if value[0] == avro.CONFLUENT[0]:
        if len(value) < avro.CONFLUENT_HEADER_BYTES:
            raise avro.AvroUnreadable("truncated Avro header")
        schema = schemas.by_id(int.from_bytes(value[1:5], "big"))
        return schema.read(value[avro.CONFLUENT_HEADER_BYTES :])
    if value[:2] != avro.SINGLE_OBJECT:
        raise avro.AvroUnreadable("unknown encoding in the first bytes")
    if len(value) < avro.SINGLE_OBJECT_HEADER_BYTES:
        raise avro.AvroUnreadable("truncated Avro header")
    schema = schemas.by_fingerprint(value[2:10])
    return schema.read(value[avro.SINGLE_OBJECT_HEADER_BYTES :])


def _decode_avro(value: bytes, schemas: AvroSchemas) -> Command | UnreadableRecord:
    try:
        record = _read_avro(value, schemas)
    except SchemaUnknown as unknown:
        return UnreadableRecord(Reason.SCHEMA_UNKNOWN, str(unknown))
    except avro.AvroUnreadable as broken:
        return UnreadableRecord(Reason.MALFORMED, str(broken))
    given = _without_nulls(record)
    encoded = encode_json(given)
    if len(encoded) > field_types.MAX_COMMAND_BYTES:
        return _too_large(len(encoded), command_validation.label(given))
    try:
        command = _decode(encoded)
    except (ValueError, RecursionError):
        return command_validation.diagnose(given) or _UNDIAGNOSED
    if (
        (command.id is None and command.idempotency_key is None)
        or (
            len(encoded) > field_types.MAX_METADATA_BYTES
            and command_validation.metadata_bytes(command.metadata) > field_types.MAX_METADATA_BYTES
        )
        or (b"\\u0000" in encoded and command_validation.unfit_text(given))
    ):
        return command_validation.diagnose(given) or _UNDIAGNOSED
    return command


def _without_nulls(record: dict[str, Any]) -> dict[str, Any]:
    """In a flat record, null means that a field is absent."""
    given = {name: part for name, part in record.items() if part is not None}
    entries = given.get("entries")
    if isinstance(entries, list):
        given["entries"] = [_without_nulls(e) if isinstance(e, dict) else e for e in entries]
    return given


def decode_transaction(value: bytes, schemas: AvroSchemas) -> TransactionRecord | UnreadableRecord:
    try:
        if value[:1] in (avro.CONFLUENT, avro.SINGLE_OBJECT[:1]):
            return msgspec.convert(_read_avro(value, schemas), TransactionRecord)
        return _decode_transaction(value)
    except SchemaUnknown as unknown:
        return UnreadableRecord(Reason.SCHEMA_UNKNOWN, str(unknown))
    except (ValueError, RecursionError) as broken:
        return UnreadableRecord(Reason.MALFORMED, str(broken))


def encode_confluent(message: Message, schema_id: int) -> bytes:
    """Avro in the Confluent wire format, with the schema that has this id in the registry."""
    header = avro.CONFLUENT + schema_id.to_bytes(4, "big")
    return header + avro.schema_of(message).write(avro.record_of(message))


def encode_single_object(message: Message) -> bytes:
    schema = avro.schema_of(message)
    return avro.SINGLE_OBJECT + schema.fingerprint + schema.write(avro.record_of(message))


def transactions_as_single_objects() -> Callable[[TransactionRecord], bytes]:
    return _transactions_after(avro.SINGLE_OBJECT + avro.transaction_schema().fingerprint)


def transactions_as_confluent(schema_id: int) -> Callable[[TransactionRecord], bytes]:
    return _transactions_after(avro.CONFLUENT + schema_id.to_bytes(4, "big"))


def _transactions_after(header: bytes) -> Callable[[TransactionRecord], bytes]:
    """Faster than `encode_single_object`: an entry has no tuple to convert to a list."""
    write = avro.transaction_schema().write

    def encode(transaction: TransactionRecord) -> bytes:
        return header + write(msgspec.structs.asdict(transaction))

    return encode
