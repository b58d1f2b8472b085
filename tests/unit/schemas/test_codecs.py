"""Reading commands: three encodings of one value, and a reason for everything that is none."""

import json
import struct
from collections.abc import Iterator
from typing import Any, get_args

import fastavro
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas import commands, field_types
from schemas.commands import Command, Credit
from schemas.encoding import avro, codecs
from schemas.encoding.avro_schema_cache import AvroSchemas
from schemas.encoding.codecs import UnreadableRecord, decode_command
from schemas.publishing import examples
from schemas.reasons import Reason
from schemas.validation import command_validation

SCHEMA_ID = 7
KINDS = [kind.__struct_config__.tag for kind in get_args(Command)]
UNDIAGNOSED = codecs._UNDIAGNOSED


class FakeRegistry:
    """Knows one schema, and the times that it was asked."""

    def __init__(self, schemas: dict[int, str]) -> None:
        self.schemas = schemas

    def schema(self, id: int) -> str | None:
        return self.schemas.get(id)

    def versions(self, subject: str) -> dict[int, str]:
        return self.schemas

    def register(self, subject: str, schema: str) -> int:
        raise AssertionError("nothing is registered here")


@pytest.fixture(scope="module")
def schemas() -> AvroSchemas:
    return AvroSchemas(registry=FakeRegistry({SCHEMA_ID: avro.command_schema().text}))


SCHEMAS = AvroSchemas(registry=FakeRegistry({SCHEMA_ID: avro.command_schema().text}))


def as_json(**changes: Any) -> bytes:
    command = {"kind": "credit", "account": "w1", "id": "a", "amount": 5} | changes
    return json.dumps({k: v for k, v in command.items() if v is not ...}).encode()


def and_(field: bytes, **changes: Any) -> bytes:
    """The command with one more field, as the bytes say it."""
    return as_json(**changes)[:-1] + b"," + field + b"}"


def as_avro(**changes: Any) -> bytes:
    """As a producer would send it that checks nothing itself."""
    record = {"kind": "credit", "account": "w1", "id": "a", "amount": 5} | changes
    schema = avro.command_schema()
    return avro.SINGLE_OBJECT + schema.fingerprint + schema.write(record)


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_is_the_same_in_every_encoding(schemas: AvroSchemas, kind: str) -> None:
    command = examples.COMMANDS[kind]
    assert decode_command(codecs.encode_json(command), schemas) == command
    assert decode_command(codecs.encode_single_object(command), schemas) == command
    assert decode_command(codecs.encode_confluent(command, SCHEMA_ID), schemas) == command


def test_a_transaction_is_the_same_in_every_encoding() -> None:
    text = avro.transaction_schema().text
    schemas = AvroSchemas(registry=FakeRegistry({SCHEMA_ID: text}))
    record = examples.TRANSACTION
    assert codecs.decode_transaction(codecs.encode_json(record), schemas) == record
    assert codecs.decode_transaction(codecs.encode_single_object(record), schemas) == record
    assert codecs.decode_transaction(codecs.encode_confluent(record, SCHEMA_ID), schemas) == record


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"{}", Reason.MALFORMED),
        (b"[]", Reason.MALFORMED),
        (b"\xc3\x01" + b"\0" * 8, Reason.SCHEMA_UNKNOWN),
        (b"\0\0\0\0\x09", Reason.SCHEMA_UNKNOWN),
        (b"\0\0\0\0\x07\xff", Reason.MALFORMED),
    ],
)
def test_a_transaction_that_cannot_be_read_has_a_reason(value: bytes, reason: Reason) -> None:
    read = codecs.decode_transaction(value, SCHEMAS)
    assert isinstance(read, UnreadableRecord)
    assert read.reason is reason


def test_white_space_defaults_and_escapes_are_the_same_command(schemas: AvroSchemas) -> None:
    plain = as_json()
    expected = decode_command(plain, schemas)
    assert isinstance(expected, Credit)
    for same in (
        b" \r\n\t" + plain,
        plain + b"\n",
        as_json(metadata={}, reference=None, expected_version=None),
        plain.replace(b'"account"', rb'"\u0061ccount"'),
        plain.replace(b": ", b" :\n "),
    ):
        assert decode_command(same, schemas) == expected


def test_a_backslash_before_u0000_is_a_text_like_others(schemas: AvroSchemas) -> None:
    command = decode_command(as_json(description=r"a \u0000 b: c"), schemas)
    assert isinstance(command, Credit)
    assert command.description == r"a \u0000 b: c"


def zigzag(number: int) -> bytes:
    number = (number << 1 ^ number >> 63) & (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


WHOLE = as_avro(currency="NGN", metadata={"a": "b"})
# The header, then "credit", "w1", and the union index of id.
BEFORE_ID = 10 + 7 + 3
BEFORE_METADATA = BEFORE_ID + 3 + 3

HOSTILE: list[tuple[str, bytes | None, Reason, str | None]] = [
    ("no value", None, Reason.MALFORMED, None),
    ("no bytes", b"", Reason.MALFORMED, None),
    ("white space alone", b" \n", Reason.MALFORMED, None),
    ("not JSON", b"hello", Reason.MALFORMED, None),
    ("cut off", b'{"id":"x","kind":"cred', Reason.MALFORMED, "x"),
    ("two objects", as_json() + as_json(), Reason.MALFORMED, "a"),
    ("a trailing comma", as_json()[:-1] + b",}", Reason.MALFORMED, "a"),
    ("a comment", as_json() + b"//", Reason.MALFORMED, "a"),
    ("an array", b"[" + as_json() + b"]", Reason.MALFORMED, None),
    ("a text", b'"credit"', Reason.MALFORMED, None),
    ("null", b"null", Reason.MALFORMED, None),
    ("5 MB of metadata", as_json(metadata={"a": "b" * 5_000_000}), Reason.TOO_LARGE, "a"),
    ("5 MB of nothing", b" " * 5_000_000, Reason.TOO_LARGE, None),
    ("5 MB of Avro", WHOLE + b"\0" * 5_000_000, Reason.TOO_LARGE, None),
    ("a byte too many", as_json() + b" " * 65_536, Reason.TOO_LARGE, "a"),
    ("4,097 bytes of metadata", as_json(metadata={"a": "b" * 4_096}), Reason.MALFORMED, "a"),
    (
        "metadata 1,000 deep",
        b'{"id":"x","metadata":' + b'{"a":' * 1_000 + b"1" + b"}" * 1_001,
        Reason.MALFORMED,
        "x",
    ),
    ("[ x 60,000", b"[" * 60_000, Reason.MALFORMED, None),
    ("[ x 100,000", b"[" * 100_000, Reason.TOO_LARGE, None),
    ('{"a": x 10,000', b'{"a":' * 10_000, Reason.MALFORMED, None),
    ("quotes and backslashes", b'"\\' * 30_000, Reason.MALFORMED, None),
    (
        "an amount of 10,000 digits",
        and_(b'"amount":' + b"9" * 10_000, amount=...),
        Reason.AMOUNT_INVALID,
        "a",
    ),
    (
        "a balance of 10,000 digits",
        and_(b'"min_available_after":-' + b"9" * 10_000),
        Reason.MALFORMED,
        "a",
    ),
    (
        "a time of 10,000 digits",
        and_(b'"effective_at_ms":' + b"9" * 10_000),
        Reason.TIME_OUT_OF_RANGE,
        "a",
    ),
    (
        "an unknown number of 10,000 digits",
        and_(b'"x":' + b"9" * 10_000),
        Reason.UNKNOWN_FIELD,
        "a",
    ),
    ("NaN", as_json(amount=float("nan")), Reason.MALFORMED, "a"),
    ("Infinity", as_json(amount=float("inf")), Reason.MALFORMED, "a"),
    ("an amount beyond floats", and_(b'"amount":1e400', amount=...), Reason.AMOUNT_INVALID, "a"),
    ("two amounts", and_(b'"amount":6'), Reason.MALFORMED, "a"),
    ("two amounts, one escaped", and_(rb'"\u0061mount":6'), Reason.MALFORMED, "a"),
    ("two equal amounts", and_(b'"amount":5'), Reason.MALFORMED, "a"),
    ("two kinds", and_(b'"kind":"credit"'), Reason.MALFORMED, "a"),
    ("two ids", and_(b'"id":"b"'), Reason.MALFORMED, "a"),
    ("two of a name in metadata", and_(b'"metadata":{"a":"b","a":"c"}'), Reason.MALFORMED, "a"),
    (
        "two names, colons escaped",
        and_(rb'"amount":6,"description":"\u003a"'),
        Reason.MALFORMED,
        "a",
    ),
    ("a byte-order mark", b"\xef\xbb\xbf" + as_json(), Reason.MALFORMED, "a"),
    ("UTF-16", as_json().decode().encode("utf-16"), Reason.MALFORMED, None),
    ("UTF-16 without mark", as_json().decode().encode("utf-16-le"), Reason.MALFORMED, None),
    ("UTF-32", as_json().decode().encode("utf-32"), Reason.MALFORMED, None),
    ("half a surrogate pair", as_json(description="\ud800"), Reason.MALFORMED, "a"),
    ("the other half", as_json(description="\udc00x"), Reason.MALFORMED, "a"),
    ("half a pair in a name", as_json(metadata={"\ud800": ""}), Reason.MALFORMED, "a"),
    ("half a pair in the id", as_json(id="\ud800"), Reason.MALFORMED, None),
    ("half a pair in raw bytes", and_(b'"description":"\xed\xa0\x80"'), Reason.MALFORMED, "a"),
    ("not UTF-8", and_(b'"description":"\xff"'), Reason.MALFORMED, "a"),
    ("Latin-1", and_('"description":"é"'.encode("latin-1")), Reason.MALFORMED, "a"),
    ("an overlong NUL", and_(b'"description":"\xc0\x80"'), Reason.MALFORMED, "a"),
    ("U+0000", as_json(description="a\0b"), Reason.MALFORMED, "a"),
    ("U+0000 in metadata", as_json(metadata={"a\0": "b"}), Reason.MALFORMED, "a"),
    ("U+0000 in the id", as_json(id="a\0"), Reason.MALFORMED, None),
    ("a raw NUL", as_json(description="a~b").replace(b"~", b"\0"), Reason.MALFORMED, "a"),
    ("a raw line feed", as_json(description="a~b").replace(b"~", b"\n"), Reason.MALFORMED, "a"),
    ("Avro, one byte of header", b"\0", Reason.MALFORMED, None),
    ("Avro, header cut short", b"\0\0\0\0", Reason.MALFORMED, None),
    ("Avro, an unknown id", b"\0\0\0\0\x63" + WHOLE[10:], Reason.SCHEMA_UNKNOWN, None),
    ("Avro, the largest id", b"\0\xff\xff\xff\xff", Reason.SCHEMA_UNKNOWN, None),
    (
        "Avro, an unknown fingerprint",
        b"\xc3\x01" + b"\x11" * 8 + WHOLE[10:],
        Reason.SCHEMA_UNKNOWN,
        None,
    ),
    ("Avro, fingerprint cut short", b"\xc3\x01\x11", Reason.MALFORMED, None),
    ("half of the Avro mark", b"\xc3", Reason.MALFORMED, None),
    ("another mark", b"\xc3\x02" + WHOLE[2:], Reason.MALFORMED, None),
    ("an Avro file", b"Obj\x01" + WHOLE, Reason.MALFORMED, None),
    ("Avro without a record", WHOLE[:10], Reason.MALFORMED, None),
    ("Avro and a byte more", WHOLE + b"\0", Reason.MALFORMED, None),
    (
        "Avro, a union's third branch",
        WHOLE[:BEFORE_ID] + zigzag(2) + WHOLE[BEFORE_ID + 1 :],
        Reason.MALFORMED,
        None,
    ),
    ("Avro, a union's branch 2^40", WHOLE[:BEFORE_ID] + zigzag(1 << 40), Reason.MALFORMED, None),
    (
        "Avro, a text of 2^60 bytes",
        WHOLE[:10] + zigzag(1 << 60) + b"credit",
        Reason.MALFORMED,
        None,
    ),
    ("Avro, a text of -5 bytes", WHOLE[:10] + zigzag(-5) + b"credit", Reason.MALFORMED, None),
    (
        "Avro, a map of 2^60",
        WHOLE[:BEFORE_METADATA] + zigzag(1 << 60) + b"\x02a\x02b",
        Reason.MALFORMED,
        None,
    ),
    (
        "Avro, a map of -2^63",
        WHOLE[:BEFORE_METADATA] + zigzag(-(1 << 63)) + b"\x02a\x02b",
        Reason.MALFORMED,
        None,
    ),
    ("Avro, an integer without end", WHOLE[:10] + b"\xff" * 60_000, Reason.MALFORMED, None),
    ("Avro, not UTF-8", WHOLE.replace(b"\x0ccredit", b"\x0ccre\xffit"), Reason.MALFORMED, None),
    ("Avro, a kind that is none", as_avro(kind="pay"), Reason.MALFORMED, "a"),
    ("Avro, a field of another kind", as_avro(to="w2"), Reason.UNKNOWN_FIELD, "a"),
    ("Avro, no amount", as_avro(amount=None), Reason.MALFORMED, "a"),
    ("Avro, amount 0", as_avro(amount=0), Reason.AMOUNT_INVALID, "a"),
    ("Avro, neither id nor key", as_avro(id=None), Reason.MALFORMED, None),
    ("Avro, U+0000", as_avro(description="a\0b"), Reason.MALFORMED, "a"),
    ("Avro, too much metadata", as_avro(metadata={"a": "b" * 4_096}), Reason.MALFORMED, "a"),
    ("Avro, a time in 1999", as_avro(effective_at_ms=1), Reason.TIME_OUT_OF_RANGE, "a"),
    (
        "Avro, 64 KiB only as JSON",
        as_avro(
            kind="post",
            amount=None,
            currency="NGN",
            entries=[{"account": "a", "direction": "debit", "amount": 1}] * 2_000,
        ),
        Reason.TOO_LARGE,
        "a",
    ),
]


@pytest.mark.parametrize(
    ("value", "reason", "label"),
    [pytest.param(*case, id=name) for name, *case in HOSTILE],
)
def test_what_is_no_command_has_a_reason(
    schemas: AvroSchemas, value: bytes | None, reason: Reason, label: str | None
) -> None:
    read = decode_command(value, schemas)
    assert isinstance(read, UnreadableRecord)
    assert (read.reason, read.id) == (reason, label)
    assert read != UNDIAGNOSED
    assert 0 < len(read.detail) <= 300
    assert read.detail.encode().isascii() or read.detail.isprintable()


def test_every_truncation_of_an_avro_record_is_malformed(schemas: AvroSchemas) -> None:
    for end in range(10, len(WHOLE)):
        read = decode_command(WHOLE[:end], schemas)
        assert isinstance(read, UnreadableRecord)
        assert read.reason is Reason.MALFORMED


def test_every_truncation_of_a_json_command_is_malformed(schemas: AvroSchemas) -> None:
    whole = codecs.encode_json(examples.COMMANDS["transfer"])
    for end in range(len(whole)):
        read = decode_command(whole[:end], schemas)
        assert isinstance(read, UnreadableRecord)
        assert read.reason is Reason.MALFORMED


def test_the_sizes_at_the_edge_are_commands(schemas: AvroSchemas) -> None:
    assert isinstance(decode_command(as_json(metadata={"a": "b" * 4_095}), schemas), Credit)
    assert isinstance(decode_command(as_avro(metadata={"a": "b" * 4_095}), schemas), Credit)
    # Characters are counted as UTF-8, however they were escaped.
    assert isinstance(decode_command(as_json(metadata={"ab": "é" * 2_047}), schemas), Credit)
    assert isinstance(
        decode_command(as_json(metadata={"ab": "é" * 2_048}), schemas), UnreadableRecord
    )
    padded = as_json().ljust(field_types.MAX_COMMAND_BYTES)
    assert isinstance(decode_command(padded, schemas), Credit)
    assert isinstance(decode_command(padded + b" ", schemas), UnreadableRecord)


def test_a_producers_own_schema_is_read_by_its_own_fields() -> None:
    own = {
        "type": "record",
        "name": "Payment",
        "fields": [
            {"name": "amount", "type": "int"},
            {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["credit", "debit"]}},
            {"name": "account", "type": "string"},
            {"name": "idempotency_key", "type": "string"},
            {
                "name": "effective_at_ms",
                "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
            },
            {"name": "colour", "type": ["null", "string"]},
        ],
    }
    schemas = AvroSchemas(registry=FakeRegistry({3: json.dumps(own)}))
    schema = avro.parse(json.dumps(own))

    def send(**changes: Any) -> Command | UnreadableRecord:
        record = {"kind": "credit", "account": "w1", "idempotency_key": "k", "amount": 5} | changes
        return decode_command(b"\0" + struct.pack(">I", 3) + schema.write(record), schemas)

    at = 1_767_225_600_000
    assert send(effective_at_ms=at) == Credit(
        account="w1", idempotency_key="k", amount=5, effective_at_ms=at
    )
    refused = send(colour="red")
    assert isinstance(refused, UnreadableRecord)
    assert refused.reason is Reason.UNKNOWN_FIELD


@pytest.mark.parametrize(
    "schema",
    [
        "not JSON",
        "[" * 100_000,
        '"string',
        '{"type": "nothing"}',
        '{"type": "record", "name": "C", "fields": 5}',
        '{"type": "record", "name": "C", "fields": [{"name": "a", "type": "Other"}]}',
        '{"type": "record", "name": "C", "fields": [{"name": "c", "type": ["null", "C"]}]}',
        '{"type": "array", "items": "null"}',
        '{"type": "array", "items": {"type": "record", "name": "E", "fields": []}}',
        '{"type": "record", "name": "C", "fields": [{"name": "a", "type": "bytes"}]}',
        '{"type": "record", "name": "C", "fields": [{"name": "a", "type": "double"}]}',
        '{"type": "fixed", "name": "F", "size": 1152921504606846976}',
        json.dumps(
            {
                "type": "record",
                "name": "C",
                "fields": [{"name": f"f{i}", "type": "null"} for i in range(1_000)],
            }
        ),
        " " * 1_000_000,
    ],
)
def test_a_schema_that_could_do_harm_is_not_used(schema: str) -> None:
    schemas = AvroSchemas(registry=FakeRegistry({3: schema}))
    read = decode_command(b"\0\0\0\0\x03" + b"\x02" * 60_000, schemas)
    assert isinstance(read, UnreadableRecord)
    assert read.reason is Reason.SCHEMA_UNKNOWN
    assert "is unusable" in read.detail


def test_a_schema_that_doubles_itself_is_not_used() -> None:
    part: Any = "null"
    for depth in range(40):
        fields_ = [{"name": "a", "type": part}, {"name": "b", "type": f"R{depth - 1}"}]
        part = {"type": "record", "name": f"R{depth}", "fields": fields_[: 2 if depth else 1]}
    with pytest.raises(avro.Unusable):
        avro.parse(json.dumps(part))


def test_an_avro_value_that_is_no_record_is_malformed() -> None:
    schemas = AvroSchemas(registry=FakeRegistry({3: '"string"'}))
    read = decode_command(b"\0\0\0\0\x03\x02a", schemas)
    assert isinstance(read, UnreadableRecord)
    assert read.reason is Reason.MALFORMED


def crc64(data: bytes) -> int:
    """CRC-64-AVRO, bit by bit from its definition."""
    empty = 0xC15D213AA4D7A795
    value = empty
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (empty if value & 1 else 0)
    return value


def test_fingerprints_are_crc_64_avro_in_the_byte_order_of_the_wire() -> None:
    assert crc64(b'"int"') == 0x7275D51A3F395C8F
    for schema in (avro.command_schema(), avro.transaction_schema(), avro.result_schema()):
        canonical = fastavro.schema.to_parsing_canonical_form(schema.parsed)
        assert schema.fingerprint == crc64(canonical.encode()).to_bytes(8, "little")
    assert avro.parse('"int"').fingerprint == crc64(b'"int"').to_bytes(8, "little")


# Fuzz: nothing raises, both paths agree, both encodings agree.

TEXTS = st.sampled_from(
    ["w1", "a", "", "x" * 65, "x" * 201, "x" * 1_001, "NGN", "w 1", "a\0", "\ud800", "é", ":", "\\"]
) | st.text(max_size=8)
UUIDS = st.sampled_from(["5d0c5a2e-91b7-5b0e-8f43-6a1f0f0c7d11", "5D0C5A2E", "x"])
INTEGERS = st.sampled_from([0, 1, 5, -1, 2**53 - 1, 2**53, -(2**53), 10**30, 946_684_800_000])
ODD = st.sampled_from([None, True, 1.0, 1.5, 1e300, [], {}, [1], {"a": "b"}, {"a": 1}, "5"])
METADATA = st.dictionaries(TEXTS, TEXTS, max_size=3) | st.just({"a": "b" * 5_000})
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "account": st.just("w1") | TEXTS | ODD,
        "direction": st.sampled_from(["debit", "credit", "up", None]),
        "amount": INTEGERS | ODD,
        "x": ODD,
    },
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "account": st.just("w1"),
    "id": st.just("a"),
    "amount": st.just(5),
    "currency": st.just("NGN"),
    "to": st.just("w2"),
    "type": st.just("wallet"),
    "hold_id": st.just("5d0c5a2e-91b7-5b0e-8f43-6a1f0f0c7d11"),
    "transaction_id": st.just("5d0c5a2e-91b7-5b0e-8f43-6a1f0f0c7d11"),
    "entries": st.just([{"account": "w1", "direction": "debit", "amount": 1}]),
}
ANY: dict[str, st.SearchStrategy[Any]] = {
    "account": TEXTS | ODD,
    "id": TEXTS | ODD,
    "idempotency_key": TEXTS | ODD,
    "reference": TEXTS | ODD,
    "description": TEXTS | ODD,
    "metadata": METADATA | ODD,
    "expected_version": INTEGERS | ODD,
    "min_available_after": INTEGERS | ODD,
    "effective_at_ms": INTEGERS | ODD,
    "expires_at_ms": INTEGERS | ODD,
    "amount": INTEGERS | ODD,
    "currency": TEXTS | ODD,
    "min_balance": INTEGERS | ODD,
    "type": TEXTS | ODD,
    "owner": TEXTS | ODD,
    "to": TEXTS | ODD,
    "hold_id": UUIDS | ODD,
    "transaction_id": UUIDS | ODD,
    "entries": st.lists(ENTRY, max_size=3) | st.just([{}] * 1_001) | ODD,
    "colour": ODD,
}


@st.composite
def near_commands(draw: st.DrawFn) -> dict[str, Any]:
    """Commands of a kind with what they need, and then a few changes for better or worse."""
    type = draw(st.sampled_from(get_args(Command)))
    command: dict[str, Any] = {"kind": type.__struct_config__.tag}
    for field in msgspec.structs.fields(type):
        if field.name in GOOD and (field.required or field.name == "id"):
            command[field.name] = draw(GOOD[field.name])
    changes = draw(st.lists(st.sampled_from(sorted(ANY)), max_size=3, unique=True))
    command |= {name: draw(ANY[name]) for name in changes}
    for gone in draw(st.lists(st.sampled_from(sorted(command)), max_size=1)):
        del command[gone]
    return command


def agree(value: bytes) -> Command | UnreadableRecord:
    """What is read; the slow path finds a fault exactly where the fast path does."""
    read = decode_command(value, SCHEMAS)
    if isinstance(read, UnreadableRecord):
        assert read != UNDIAGNOSED
        assert isinstance(read.detail.encode(), bytes)
        assert "\0" not in read.detail
        assert read.id is None or isinstance(read.id.encode(), bytes)
    if len(value) <= field_types.MAX_COMMAND_BYTES and value[:1] not in (b"\0", b"\xc3", b""):
        assert (command_validation.diagnose_json(value) is None) == (
            not isinstance(read, UnreadableRecord)
        )
    if not isinstance(read, UnreadableRecord):
        again = codecs.encode_json(read)
        assert decode_command(again, SCHEMAS) == read
        assert commands.key(read)
        assert commands.body(read)
    return read


@settings(max_examples=600, deadline=None)
@given(near_commands(), st.booleans())
def test_the_paths_agree_on_near_commands(command: dict[str, Any], escaped: bool) -> None:
    if escaped:
        value = json.dumps(command).encode()
    else:
        value = json.dumps(command, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "surrogatepass"
        )
    agree(value)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300))
@example(b'{"kind":"freeze","account":"a","id":"b"}\x00')
@example(b"\xc3\x01")
def test_any_bytes_have_an_outcome(value: bytes) -> None:
    agree(value)


def written(value: object, twice: str, escape: bool, gap: str) -> str:
    """JSON in which the field at this path stands twice."""
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(written(v, twice, escape, gap) for v in value) + "]"
    if not isinstance(value, dict):
        return json.dumps(value)
    pairs = []
    for name, part in value.items():
        escaped = f'"\\u{ord(name[0]):04x}{name[1:]}"' if escape else json.dumps(name)
        pairs.append(f"{json.dumps(name)}{gap}:{written(part, twice, escape, gap)}")
        if name == twice:
            pairs.append(f"{escaped}:{gap}{written(part, twice, escape, gap)}")
    return "{" + ",".join(pairs) + "}"


@given(
    st.sampled_from(KINDS),
    st.sampled_from(["", " ", "\n\t"]),
    st.booleans(),
    st.sampled_from(["a", "a:b", "\\:", "é"]),
    st.data(),
)
def test_a_field_that_stands_twice_is_malformed(
    kind: str, gap: str, escape: bool, text: str, data: st.DataObject
) -> None:
    command = msgspec.to_builtins(examples.COMMANDS[kind]) | {"metadata": {"tag": text}}
    names = [*command, "tag", *(["direction"] if kind == "post" else [])]
    twice = data.draw(st.sampled_from(names))
    assert not isinstance(agree(written(command, "", escape, gap).encode()), UnreadableRecord)
    read = agree(written(command, twice, escape, gap).encode())
    assert isinstance(read, UnreadableRecord)
    assert (read.reason, read.detail) == (Reason.MALFORMED, f"duplicate field {twice!r}")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    command = draw(st.sampled_from(sorted(examples.COMMANDS)))
    encode = draw(st.sampled_from([codecs.encode_json, codecs.encode_single_object]))
    value = bytearray(encode(examples.COMMANDS[command]))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(value)))
        cut = draw(st.integers(0, 4))
        value[place : place + cut] = draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"\\", b"{", b"[", b",", b":", b"null"])
        )
    return bytes(value)


@settings(max_examples=1_000, deadline=None)
@given(damaged())
def test_damaged_commands_have_an_outcome(value: bytes) -> None:
    agree(value)


def _fits_avro(command: dict[str, Any]) -> Iterator[bool]:
    types = {"metadata": dict, "entries": list} | dict.fromkeys(
        ("amount", "min_balance", "expected_version", "min_available_after"), int
    )
    types |= dict.fromkeys(("effective_at_ms", "expires_at_ms"), int)
    yield "kind" in command and command.get("account") is not None and "colour" not in command
    yield command.get("metadata", {}) is not None
    for name, value in command.items():
        wanted = types.get(name, str)
        yield value is None or (isinstance(value, wanted) and not isinstance(value, bool))
        yield not isinstance(value, int) or abs(value) < 2**63
    yield all(
        isinstance(k, str) and isinstance(v, str)
        for k, v in (command.get("metadata") or {}).items()
    )
    for entry in command.get("entries") or []:
        yield isinstance(entry, dict)
        yield set(entry) == {"account", "direction", "amount"}
        yield isinstance(entry.get("account"), str) and isinstance(entry.get("direction"), str)
        amount = entry.get("amount")
        yield isinstance(amount, int) and not isinstance(amount, bool) and abs(amount) < 2**63
    yield "\ud800" not in repr(command) and "\\ud800" not in repr(command)


@settings(max_examples=600, deadline=None)
@given(near_commands())
def test_avro_and_json_of_one_command_have_one_outcome(command: dict[str, Any]) -> None:
    if not all(_fits_avro(command)):
        return
    given_ = {name: value for name, value in command.items() if value is not None}
    in_json = agree(json.dumps(given_).encode())
    in_avro = agree(as_avro(**({"id": None, "amount": None} | command)))
    if isinstance(in_json, UnreadableRecord) and isinstance(in_avro, UnreadableRecord):
        assert (in_json.reason, in_json.id) == (in_avro.reason, in_avro.id)
    else:
        assert in_json == in_avro
