"""What requests for money have in common: amounts, keys, conditions, and how long to wait.

Amounts are minor units as an integer, or major units as text, never a fraction of a number. It
decides nothing about money.
"""

import re
from typing import Annotated, Any, ClassVar, Final

from aiohttp import web
from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from ingress.http.problems import Code, FieldError, HttpProblem
from ingress.http.roles import UserRole
from ingress.http.routes import Body, Call, Query
from schemas import field_types, money
from schemas.reasons import Reason
from schemas.validation import command_validation

DEFAULT_WAIT_S: Final = 2.0
MAX_WAIT_S: Final = 30
KEY_HEADER: Final = "Idempotency-Key"
_MAJOR_UNITS: Final = r"^(0|[1-9][0-9]{0,15})(\.[0-9]{1,4})?$"
_is_major_units = re.compile(_MAJOR_UNITS, re.ASCII).match
# As `answers` makes it: a digest of what was told may follow.
_match_version = re.compile(r'(?:W/)?"?([0-9]{1,15})(?:-[0-9a-f]{1,64})?"?\Z').match
_match_wait = re.compile(r"wait=([0-9]{1,4})\Z").match


def _amount(value: Any) -> Any:
    if type(value) is int and 0 < value <= money.MAX_AMOUNT:
        return value
    if type(value) is str and _is_major_units(value):
        return value
    raise PydanticCustomError(
        "amount_invalid",
        "is minor units as an integer from 1 to 9007199254740991, or major units as decimal text",
    )


Amount = Annotated[
    int | str,
    BeforeValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": money.MAX_AMOUNT},
                {"type": "string", "pattern": _MAJOR_UNITS},
            ],
            "description": "An integer is minor units; text is major units in the currency's own"
            ' scale: "125.00" USD, "125" JPY, "1.250" KWD.',
        }
    ),
]
# Patterns are read by another engine here than in the ledger: it knows no \Z, and $ is the end.
AccountId = Annotated[str, Field(pattern=r"^[A-Za-z0-9:_-]{1,64}$")]
TransactionId = Annotated[
    str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
Key = Annotated[str, Field(min_length=1, max_length=200)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
UserReference = Annotated[
    int | str, Field(description="A user's integer id, or the uuid.", union_mode="left_to_right")
]


class Conditions(Body):
    """Tested once, when it is first decided."""

    expected_version: int | None = Field(default=None, ge=0, le=money.MAX_AMOUNT)
    min_available_after: int | None = Field(default=None, ge=-money.MAX_AMOUNT, le=money.MAX_AMOUNT)


class TransactionFields(Body):
    """What any transaction may carry."""

    trans_id: Key | None = Field(
        default=None, description="The idempotency key, as the header Idempotency-Key; per wallet."
    )
    reference: Key | None = None
    description: str | None = Field(default=None, max_length=1_000)
    metadata: dict[str, str] = Field(default={}, description="At most 4 KiB in all.")
    conditions: Conditions = Conditions()

    @field_validator("metadata")
    @classmethod
    def _fits(cls, value: dict[str, str]) -> dict[str, str]:
        if command_validation.metadata_bytes(value) > field_types.MAX_METADATA_BYTES:
            raise PydanticCustomError("too_large", "has more than 4,096 bytes")
        return value


class ValidateOnly(Query):
    validate_only: bool = Field(
        default=False,
        description="Answers 204 or the problem that there would be now, as far as it is known"
        " without the commission, and writes nothing: for forms.",
    )


class WaitHeaders(Query):
    """Documentation: they are read here."""

    waits: ClassVar[bool] = True

    prefer: str | None = Field(
        default=None,
        alias="Prefer",
        description="`wait=N`: how many seconds to wait for the outcome, 2 by default;"
        " `respond-async`: not at all.",
    )


class MoneyHeaders(WaitHeaders):
    idempotency_key: str | None = Field(
        default=None, alias=KEY_HEADER, description="Does what `trans_id` does."
    )
    if_match: str | None = Field(
        default=None,
        alias="If-Match",
        description="The wallet's version, as `expected_version`; of an ETag what stands before"
        " its `-`.",
    )


class WaitQuery(Query):
    waits: ClassVar[bool] = True

    wait: int = Field(
        default=0, ge=0, le=MAX_WAIT_S, description="Seconds to wait for the outcome."
    )


def wait_s(request: web.Request) -> float:
    """As `Prefer` says; what it does not understand, it ignores."""
    prefer = request.headers.get("Prefer")
    if prefer is None:
        return DEFAULT_WAIT_S
    wanted, at_once = None, False
    for part in prefer.lower().replace(" ", "").split(","):
        if part == "respond-async":
            at_once = True
        elif found := _match_wait(part):
            wanted = min(int(found.group(1)), MAX_WAIT_S)
    if wanted is None:
        return 0.0 if at_once else DEFAULT_WAIT_S
    return float(wanted)


def sender_fields(call: Call[Any, Any], key: str) -> dict[str, Any]:
    """Who sends a command, and by which key. Whatever was looked up here may have changed when the
    command is decided, so a user's command says that it may use wallets alone; its key is then one
    of the users' own, never one of the operators'."""
    return {
        "idempotency_key": key,
        "external_id": key,
        "actor": call.caller.id,
        "trace": call.trace,
        "wallets_only": None if call.caller.role == UserRole.OPERATOR else True,
    }


def transaction_fields(call: Call[Any, Any], body: TransactionFields, key: str) -> dict[str, Any]:
    """What every command about money carries."""
    conditions = body.conditions
    return {
        **sender_fields(call, key),
        "reference": body.reference,
        "description": body.description,
        "metadata": body.metadata,
        "expected_version": expected_version(call.request, conditions.expected_version),
        "min_available_after": conditions.min_available_after,
    }


def idempotency_key(request: web.Request, given: str | None, required: bool) -> str | None:
    """The idempotency key, from the body or the header; None: the server has to make one."""
    header = request.headers.get(KEY_HEADER)
    if header is None:
        if given is None and required:
            raise HttpProblem(Code.TRANS_ID_REQUIRED)
        return given
    if not 1 <= len(header) <= 200 or not header.isprintable() or not header.isascii():
        detail = "is 1 to 200 printable characters of ASCII"
        raise _bad_header(KEY_HEADER, detail)
    if given is not None and given != header:
        raise HttpProblem(Code.KEY_AND_TRANS_ID_DIFFER)
    return header


def expected_version(request: web.Request, given: int | None) -> int | None:
    header = request.headers.get("If-Match")
    if header is None or header == "*":
        return given
    found = _match_version(header.strip())
    if found is None:
        raise _bad_header("If-Match", "is a version in quotes, or an ETag")
    version = int(found.group(1))
    if given is not None and given != version:
        raise _bad_header("If-Match", "differs from conditions.expected_version")
    return version


def minor_units(amount: int | str, currency: str, field: str = "amount") -> int:
    if isinstance(amount, int):
        return amount
    if currency not in money.EXPONENTS:
        raise bad_field(Reason.CURRENCY_UNKNOWN, "currency", "is not one of ISO 4217")
    try:
        return money.from_major(amount, currency)
    except money.AmountInvalid as error:
        raise bad_field(Reason.AMOUNT_INVALID, field, str(error)) from None


def bad_field(code: Reason | Code, field: str, detail: str) -> HttpProblem:
    return HttpProblem(code, errors=[FieldError(field=field, code=code, detail=detail)])


def _bad_header(name: str, detail: str) -> HttpProblem:
    error = FieldError(field=name, code="invalid", detail=detail)
    return HttpProblem(Code.HEADERS_INVALID, errors=[error])


def is_transaction_id(text: str) -> bool:
    return _match_transaction_id(text) is not None


_match_transaction_id = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z").match
