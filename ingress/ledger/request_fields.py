"""The fields that requests about money share: amounts, keys, conditions, and how long to wait.

An amount is minor units as an integer, or major units as text, never a JSON fraction. It decides
nothing about money.
"""

import re
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from ingress.http.problems import Code, FieldError, HttpProblem
from ingress.http.request_headers import KEY_HEADER, WaitHeaders
from ingress.http.roles import UserRole
from ingress.http.routes import Body, Call, Query
from schemas import field_types, money
from schemas.reasons import Reason
from schemas.validation import command_validation

_MAJOR_UNITS: Final = r"^(0|[1-9][0-9]{0,15})(\.[0-9]{1,4})?$"
_is_major_units = re.compile(_MAJOR_UNITS, re.ASCII).match
# The version of an ETag, whose digest may follow.
_match_version = re.compile(r'(?:W/)?"?([0-9]{1,15})(?:-[0-9a-f]{1,64})?"?\Z').match


def _amount(value: Any) -> Any:
    if type(value) is int and 0 < value <= money.MAX_AMOUNT:
        return value
    if type(value) is str and _is_major_units(value):
        return value
    raise PydanticCustomError(
        "amount_invalid",
        "must be minor units, an integer from 1 to 9007199254740991, or major units as text",
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
# This regex engine differs from the ledger's: it has no \Z, and $ matches only the end.
AccountId = Annotated[str, Field(pattern=r"^[A-Za-z0-9:_-]{1,64}$")]
TransactionId = Annotated[
    str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
Key = Annotated[str, Field(min_length=1, max_length=200)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
UserReference = Annotated[
    int | str, Field(description="A user's integer id or uuid.", union_mode="left_to_right")
]


class Conditions(Body):
    """Tested once, at the first decision."""

    expected_version: int | None = Field(default=None, ge=0, le=money.MAX_AMOUNT)
    min_available_after: int | None = Field(default=None, ge=-money.MAX_AMOUNT, le=money.MAX_AMOUNT)


class TransactionFields(Body):
    """Fields that any transaction may have."""

    trans_id: Key | None = Field(
        default=None,
        description="The idempotency key of this wallet; same as the header Idempotency-Key.",
    )
    reference: Key | None = None
    description: str | None = Field(default=None, max_length=1_000)
    metadata: dict[str, str] = Field(default={}, description="At most 4 KiB in all.")
    conditions: Conditions = Conditions()

    @field_validator("metadata")
    @classmethod
    def _fits(cls, value: dict[str, str]) -> dict[str, str]:
        if command_validation.metadata_bytes(value) > field_types.MAX_METADATA_BYTES:
            raise PydanticCustomError("too_large", "is larger than 4,096 bytes")
        return value


class ValidateOnly(Query):
    validate_only: bool = Field(
        default=False,
        description="A dry run for forms: answers 204 or the problem that the request would have"
        " now, without regard to the commission, and writes nothing.",
    )


class MoneyHeaders(WaitHeaders):
    idempotency_key: str | None = Field(
        default=None, alias=KEY_HEADER, description="Same as `trans_id`."
    )
    if_match: str | None = Field(
        default=None,
        alias="If-Match",
        description="The expected version of the wallet, or its ETag, whose version counts.",
    )


def sender_fields(call: Call[Any, Any], key: str) -> dict[str, Any]:
    """The fields that say who sends a command, and under which key. An account that was looked up
    here may have changed when the command is decided, so a user's command carries `wallets_only`.
    Its key is then in the users' key space, never in that of the operators."""
    return {
        "idempotency_key": key,
        "external_id": key,
        "actor": call.caller.id,
        "trace": call.trace,
        "wallets_only": None if call.caller.role == UserRole.OPERATOR else True,
    }


def transaction_fields(call: Call[Any, Any], body: TransactionFields, key: str) -> dict[str, Any]:
    """The fields that every command about money carries."""
    conditions = body.conditions
    return {
        **sender_fields(call, key),
        "reference": body.reference,
        "description": body.description,
        "metadata": body.metadata,
        "expected_version": expected_version(call.request, conditions.expected_version),
        "min_available_after": conditions.min_available_after,
    }


def idempotency_key(request: web.Request, trans_id: str | None, required: bool) -> str | None:
    """The idempotency key from the body or the header; None if the server has to generate one."""
    header = request.headers.get(KEY_HEADER)
    if header is None:
        if trans_id is None and required:
            raise HttpProblem(Code.TRANS_ID_REQUIRED)
        return trans_id
    if not 1 <= len(header) <= 200 or not header.isprintable() or not header.isascii():
        detail = "must be 1 to 200 printable ASCII characters"
        raise _bad_header(KEY_HEADER, detail)
    if trans_id is not None and trans_id != header:
        raise HttpProblem(Code.KEY_AND_TRANS_ID_DIFFER)
    return header


def expected_version(request: web.Request, condition: int | None) -> int | None:
    header = request.headers.get("If-Match")
    if header is None or header == "*":
        return condition
    match = _match_version(header.strip())
    if match is None:
        raise _bad_header("If-Match", "must be a version in quotes, or an ETag")
    version = int(match.group(1))
    if condition is not None and condition != version:
        raise _bad_header("If-Match", "differs from conditions.expected_version")
    return version


def minor_units(amount: int | str, currency: str, field: str = "amount") -> int:
    if isinstance(amount, int):
        return amount
    if currency not in money.EXPONENTS:
        raise bad_field(Reason.CURRENCY_UNKNOWN, "currency", "is not an ISO 4217 currency")
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
