"""Command validation: why a record is not a valid command, in the order of docs/rules.md.

This is the slow path. It runs only after the decoder has failed or a cheap test is inconclusive. It
decodes loosely and finds the reason itself, whatever the decoder reported. It checks form alone and
must not know keys, partitions or state.
"""

import json
import re
from collections import Counter
from functools import cache
from itertools import accumulate, chain, repeat
from typing import Annotated, Any, Final, NamedTuple, NoReturn, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct, inspect

from schemas import field_types, ids, money
from schemas.commands import Command, PostEntry
from schemas.reasons import Reason

# A command is at most three levels deep; deeper input is not followed.
MAX_DEPTH: Final = 32

_TIMES: Final = frozenset({"expires_at_ms", "effective_at_ms"})
_PATTERNS: Final = {
    ids.ACCOUNT_ID_PATTERN: "1 to 64 of A-Z a-z 0-9 : _ -",
    r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z": "a UUID in lower case",
}
# Longer integers exceed every bound; Python refuses to parse some of them.
_MAX_DIGITS: Final = 20
_STRINGS = re.compile(r'"(?:[^"\\]+|\\.)*+"?', re.DOTALL)
_NO_BRACKETS = re.compile(r"[^{}\[\]]+")
# An opening bracket adds 2 - 1 to the depth, a closing one 0 - 1.
_STEPS = bytes.maketrans(b"{[}]", b"\2\2\0\0")
_TOKENS = re.compile(r'"(?:[^"\\]+|\\.)*+"?|[{}\[\]:,]|[^\s"{}\[\]:,]+', re.DOTALL)
_UNFIT = re.compile("[\x00\ud800-\udfff]")


class UnreadableRecord(NamedTuple):
    """A record that is not a valid command: the reason, a detail text, and the label if any."""

    reason: Reason
    detail: str
    id: str | None = None


class _Invalid(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason = reason
        self.detail = detail


def _malformed(detail: str) -> NoReturn:
    raise _Invalid(Reason.MALFORMED, detail)


def diagnose_json(value: bytes) -> UnreadableRecord | None:
    """Why the value is not a valid command; None if it is valid."""
    try:
        command = _loads(value)
    except _Invalid as invalid:
        return UnreadableRecord(invalid.reason, invalid.detail, scan_label(value))
    return diagnose(command)


def diagnose(command: object) -> UnreadableRecord | None:
    """Why a loosely decoded value is not a valid command; None if it is valid."""
    try:
        _check(command)
    except _Invalid as invalid:
        return UnreadableRecord(invalid.reason, invalid.detail, label(command))
    return None


def label(command: object) -> str | None:
    """The producer's own name for the command, if it is usable."""
    id = command.get("id") if isinstance(command, dict) else None
    if isinstance(id, str) and 1 <= len(id) <= 200 and not _UNFIT.search(id):
        return id
    return None


def scan_label(value: bytes) -> str | None:
    """The label of an undecodable value: the object's first `id`, if it can be found."""
    text = value[: field_types.MAX_REFUSED_BYTES].decode("utf-8", "surrogateescape")
    depth, key, before = 0, "", ""
    for match in _TOKENS.finditer(text):
        token = match.group()
        if token in "{[":
            if depth == 0 and token == "[":
                return None
            depth += 1
        elif token in "}]":
            depth -= 1
        elif depth == 1 and token == ":":
            key = before
        elif depth == 1 and key == '"id"' and before == ":":
            try:
                return label({"id": json.loads(token)})
            except ValueError:
                return None
        before = token
    return None


def has_duplicate_field(value: bytes) -> bool:
    """Whether an object in this well-formed JSON has duplicate field names."""
    try:
        json.loads(value, object_pairs_hook=_object, parse_int=_integer)
    except _Invalid:
        return True
    return False


def unfit_text(value: object) -> bool:
    """Whether a text in the value has U+0000 or an unpaired surrogate, which Postgres rejects."""
    if isinstance(value, str):
        return _UNFIT.search(value) is not None
    if isinstance(value, dict):
        return any(unfit_text(k) or unfit_text(v) for k, v in value.items())
    return isinstance(value, (list, tuple)) and any(map(unfit_text, value))


def metadata_bytes(metadata: dict[str, str]) -> int:
    # An unpaired surrogate is refused elsewhere; here it is only counted.
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in chain(*metadata.items()))


def _loads(value: bytes) -> object:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        _malformed(f"invalid UTF-8 at byte {error.start}")
    brackets = value.count(b"[") + value.count(b"{")
    if brackets > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        _malformed(f"nested deeper than {MAX_DEPTH} levels")
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant
        )
    except json.JSONDecodeError as error:
        _malformed(f"invalid JSON near character {error.pos}")


def _depth(text: str) -> int:
    brackets = _NO_BRACKETS.sub("", _STRINGS.sub("", text)).encode().translate(_STEPS)
    return max(accumulate(map(int.__sub__, brackets, repeat(1))), default=0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        duplicate = next(name for name, count in counts.items() if count > 1)
        _malformed(f"duplicate field {_quoted(duplicate)}")
    return fields


def _integer(digits: str) -> int:
    if len(digits) <= _MAX_DIGITS:
        return int(digits)
    return -(10**_MAX_DIGITS) if digits[0] == "-" else 10**_MAX_DIGITS


def _constant(name: str) -> NoReturn:
    _malformed(f"invalid JSON: {name} is not a number")


def _quoted(name: str) -> str:
    """A name from outside, shortened and escaped."""
    return repr(name if len(name) <= 64 else name[:61] + "...")


# The checks, in order.


def _check(command: object) -> None:
    if not isinstance(command, dict):
        _malformed("not an object")
    kind = command.get("kind")
    forms = _forms()
    if not isinstance(kind, str) or kind not in forms:
        _malformed(f"kind must be one of {', '.join(forms)}")
    form = {"kind": _KIND, **forms[kind]}
    entries = [(f"entries[{i}].", e) for i, e in enumerate(_entries(command, form))]
    _check_form("", command, form)
    for place, entry in entries:
        if not isinstance(entry, dict):
            _malformed(f"{place[:-1]} is not an object")
        _check_form(place, entry, _entry_form())
    if command.get("id") is None and command.get("idempotency_key") is None:
        _malformed("id or idempotency_key is required")
    if metadata_bytes(command.get("metadata", {})) > field_types.MAX_METADATA_BYTES:
        _malformed(f"metadata exceeds {field_types.MAX_METADATA_BYTES} bytes in keys and values")
    if unfit_text(command):
        _malformed("a text contains U+0000 or an unpaired surrogate")
    for place, part, fields in [("", command, form), *((p, e, _entry_form()) for p, e in entries)]:
        for name in part:
            if name not in fields:
                detail = f"unknown field {_quoted(name)} for {kind}"
                raise _Invalid(Reason.UNKNOWN_FIELD, f"{place[:-1]}: {detail}" if place else detail)
    for place, part in [("", command), *entries]:
        amount = part.get("amount")
        if amount is not None and not _is_integer(amount, 1, money.MAX_AMOUNT):
            raise _Invalid(
                Reason.AMOUNT_INVALID,
                f"{place}amount must be an integer from 1 to {money.MAX_AMOUNT} minor units",
            )
    for name in sorted(_TIMES):
        time = command.get(name)
        if time is not None and not _is_integer(
            time, field_types.EARLIEST_MS, field_types.LATEST_MS
        ):
            raise _Invalid(
                Reason.TIME_OUT_OF_RANGE,
                f"{name} must be from {field_types.EARLIEST_MS} to {field_types.LATEST_MS} "
                "milliseconds",
            )


def _is_integer(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


class _Field(NamedTuple):
    type: Any
    required: bool
    allowed: str


def _entries(command: dict[str, Any], form: dict[str, _Field]) -> list[Any]:
    """The entries of a post, each checked separately; their number is checked with the command."""
    entries = command.get("entries")
    return entries if "entries" in form and isinstance(entries, list) else []


def _check_form(place: str, part: dict[str, Any], form: dict[str, _Field]) -> None:
    """Required fields are present and fields have their type; amounts and times come later."""
    for name, field in form.items():
        value = part.get(name)
        if value is None and field.required:
            _malformed(f"{place}{name} is required: {field.allowed}")
        if name not in part or name == "amount" or (name in _TIMES and _is_any_integer(value)):
            continue
        try:
            msgspec.convert(value, field.type)
        except (ValueError, RecursionError):
            _malformed(f"{place}{name} must be {field.allowed}")


def _is_any_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_KIND = _Field(str, True, "text")


@cache
def _forms() -> dict[str, dict[str, _Field]]:
    return {str(kind.__struct_config__.tag): _form(kind) for kind in get_args(Command)}


@cache
def _entry_form() -> dict[str, _Field]:
    return _form(PostEntry)


def _form(type: type[Struct]) -> dict[str, _Field]:
    hints = get_type_hints(type, include_extras=True)
    form = {}
    for field in msgspec.structs.fields(type):
        hint = hints[field.name]
        info = inspect.type_info(hint)
        if isinstance(info, inspect.VarTupleType):
            # Only their number is checked here. `_check` checks each, so that the error names it.
            hint = Annotated[list[Any], Meta(max_length=info.max_length)]
        form[field.name] = _Field(hint, field.required, describe(info))
    return form


def describe(type: inspect.Type) -> str:
    """The values that a field accepts, as text."""
    match type:
        case inspect.Metadata():
            return describe(type.type)
        case inspect.StrType(pattern=str(pattern)):
            return _PATTERNS[pattern]
        case inspect.StrType(max_length=int(most)):
            return f"text of {type.min_length or 0} to {most} characters"
        case inspect.StrType():
            return "text"
        case inspect.BytesType():
            return "bytes"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType(ge=int(least), le=int(most)):
            return f"an integer from {least} to {most}"
        case inspect.IntType(ge=int(least)):
            return f"an integer of at least {least}"
        case inspect.IntType():
            return "an integer"
        case inspect.LiteralType():
            return "one of " + ", ".join(map(str, type.values))
        case inspect.EnumType():
            return "a reason" if type.cls is Reason else f"a {type.cls.__name__}"
        case inspect.DictType():
            return "a flat map of text to text"
        case inspect.VarTupleType():
            bound = "" if type.max_length is None else f" of at most {type.max_length}"
            return f"a list{bound}, each {describe(type.item_type)}"
        case inspect.StructType():
            return f"`{type.cls.__name__}`"
        case inspect.UnionType(types=(inspect.StructType(tag_field=str(tag)), *_)):
            return f"an object, distinguished by `{tag}`"
        case inspect.UnionType():
            parts = [describe(t) for t in type.types if not isinstance(t, inspect.NoneType)]
            return " or ".join(parts)
    raise TypeError(f"no description for {type}")
