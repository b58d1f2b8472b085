"""Parses requests strictly: the result is unambiguous, or a problem that lists everything wrong.

A JSON body must have no duplicate field, no non-JSON constant, no excessive depth and no text that
Postgres cannot store. Fractions are parsed as decimals, never through a float.
"""

import asyncio
import itertools
import json
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, NoReturn

from aiohttp import web
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ingress.http.problems import Code, FieldError, HttpProblem
from schemas.reasons import PRECEDENCE, Reason
from schemas.validation import command_validation

MAX_BODY_BYTES: Final = 64 * 1024
MAX_DEPTH: Final = 16
MAX_MEMBERS: Final = 1_000
BODY_TIMEOUT_S: Final = 10.0
MAX_ERRORS: Final = 100


async def json_body(request: web.Request) -> Any:
    if not is_json(request):
        raise HttpProblem(Code.UNSUPPORTED_MEDIA_TYPE)
    return parse(await body(request))


def is_json(request: web.Request) -> bool:
    # aiohttp's parser takes time quadratic in the number of parameters.
    media_type, _, _ = request.headers.get("Content-Type", "").partition(";")
    return media_type.strip().lower() == "application/json"


async def body(request: web.Request) -> bytes:
    """The raw body, within the limits of size and time."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        words = "`Content-Encoding` is not supported."
        headers = {"Accept-Encoding": "identity"}
        raise HttpProblem(Code.UNSUPPORTED_MEDIA_TYPE, words, headers=headers)
    length = request.content_length
    if length is not None and length > MAX_BODY_BYTES:
        raise HttpProblem(Code.BODY_TOO_LARGE)
    if request.content.is_eof():
        return await request.read()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        raise HttpProblem(Code.BODY_TOO_SLOW, headers={"Connection": "close"}) from None
    except web.RequestPayloadError:  # malformed chunks
        raise HttpProblem(Code.MALFORMED_REQUEST, headers={"Connection": "close"}) from None


def parse(data: bytes) -> Any:
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        _check_depth(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise HttpProblem(Code.MALFORMED_BODY, "It is not valid UTF-8.") from None
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise HttpProblem(
            Code.MALFORMED_BODY, f"It is not valid JSON: {error.msg} at {where}."
        ) from None
    except ValueError:  # an integer of thousands of digits
        raise HttpProblem(Code.MALFORMED_BODY, "A number has too many digits.") from None
    if "\\u" in text and command_validation.unfit_text(value):
        raise HttpProblem(
            Code.MALFORMED_BODY, "A string contains U+0000 or half of a surrogate pair."
        )
    return value


def _check_depth(data: bytes) -> None:
    steps = map(_STEPS.__getitem__, _TEXT.sub(b"", data).translate(None, _NO_BRACKETS))
    if max(itertools.accumulate(steps), default=0) > MAX_DEPTH:
        raise HttpProblem(Code.MALFORMED_BODY, f"It is nested more than {MAX_DEPTH} levels deep.")


# Also matches an unterminated string, so that each character is scanned once.
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_STEPS: Final = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}
_NO_BRACKETS: Final = bytes(each for each in range(256) if each not in _STEPS)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise HttpProblem(Code.MALFORMED_BODY, f"An object has more than {MAX_MEMBERS} fields.")
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            words = f"Duplicate field {name[:64]!r}."
            raise HttpProblem(Code.MALFORMED_BODY, words)
        members[name] = value
    return members


def _constant(name: str) -> NoReturn:
    raise HttpProblem(Code.MALFORMED_BODY, f"{name} is not JSON.")


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=Decimal, parse_constant=_constant
).decode


def validated(adapter: TypeAdapter[Any], value: Any, fallback: Code) -> Any:
    """Returns the value as its model. Raises an HttpProblem that lists every invalid field."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_context=False), fallback) from None


def query(request: web.Request, adapter: TypeAdapter[Any]) -> Any:
    parameters = request.query
    values = dict(parameters)
    if command_validation.unfit_text(values):
        raise HttpProblem(Code.QUERY_INVALID, "A parameter contains U+0000.")
    if len(values) != len(parameters):
        twice = sorted({name for name in parameters if len(parameters.getall(name)) > 1})
        raise HttpProblem(
            Code.QUERY_INVALID,
            errors=[
                FieldError(field=n[:64], code="twice", detail="is given more than once")
                for n in twice[:MAX_ERRORS]
            ],
        )
    return validated(adapter, values, Code.QUERY_INVALID)


def invalid(details: Sequence[ErrorDetails], fallback: Code) -> HttpProblem:
    """The code is the ledger's reason of highest precedence if a field has one."""
    errors = [_field_error(each) for each in details[:MAX_ERRORS]]
    reasons = [Reason(each.code) for each in errors if each.code in PRECEDENCE]
    code = min(reasons, key=PRECEDENCE.__getitem__) if reasons else fallback
    return HttpProblem(code, errors=errors)


# Parts of an error's path that are not fields: wrappers, and the shape chosen for a body.
_INTERNAL_STEPS = ("function-after", "shape:")
_CODES = {"extra_forbidden": "unknown_field", "missing": "required"}
_WORDS = {"extra_forbidden": "unknown field", "missing": "is required"}


def _field_error(error: ErrorDetails) -> FieldError:
    kind = error["type"]
    place = ".".join(
        each for each in map(str, error["loc"]) if not each.startswith(_INTERNAL_STEPS)
    )
    return FieldError(
        field=place[:200],
        code=_CODES.get(kind, kind),
        detail=_WORDS.get(kind, error["msg"]),
    )
