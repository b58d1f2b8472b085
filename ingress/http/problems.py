"""The catalogue of refusals: RFC 9457 documents with stable codes, each with a page of its own.

The ledger's reasons keep their names and statuses; the ingress's own codes are listed here, once.
Keeps the rules that a code is never renamed or reused, and that a problem reveals nothing that the
client may not know.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from ingress.http.roles import UserRole
from schemas import reasons
from schemas.reasons import Reason

CONTENT_TYPE: Final = "application/problem+json"
PAGES: Final = "/problems/"


class Code(StrEnum):
    """The ingress's own codes. The ledger's are its reasons."""

    MALFORMED_REQUEST = "malformed_request"
    MALFORMED_BODY = "malformed_body"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    HEAD_TOO_SLOW = "head_too_slow"
    FIELDS_INVALID = "fields_invalid"
    QUERY_INVALID = "query_invalid"
    HEADERS_INVALID = "headers_invalid"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    UNAUTHENTICATED = "unauthenticated"
    CREDENTIALS_WRONG = "credentials_wrong"
    TOO_MANY_ATTEMPTS = "too_many_attempts"
    TOO_MANY_REGISTRATIONS = "too_many_registrations"
    TOO_MANY_WAITS = "too_many_waits"
    REFRESH_INVALID = "refresh_invalid"
    FORBIDDEN = "forbidden"
    CSRF_FAILED = "csrf_failed"
    EMAIL_TAKEN = "email_taken"
    WALLET_OPENING = "wallet_opening"
    NOT_DECIDED_OR_UNKNOWN = "not_decided_or_unknown"
    PAGE_TOO_DEEP = "page_too_deep"
    POSITION_OF_ANOTHER_EPOCH = "position_of_another_epoch"
    POSITION_OF_ANOTHER_LEDGER = "position_of_another_ledger"
    KEY_AND_TRANS_ID_DIFFER = "key_and_trans_id_differ"
    TRANS_ID_REQUIRED = "trans_id_required"
    REGISTRATION_CLOSED = "registration_closed"
    SELF_CREDIT_OFF = "self_credit_off"
    LAST_ADMIN = "last_admin"
    TOO_MANY_WALLETS = "too_many_wallets"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    INTERNAL_ERROR = "internal_error"


class ProblemMeaning(NamedTuple):
    status: int
    title: str
    help: str


CATALOGUE: Final[dict[Code, ProblemMeaning]] = {
    Code.MALFORMED_REQUEST: ProblemMeaning(
        400,
        "The request is not well-formed HTTP.",
        "A line or a header cannot be parsed. Nothing was done.",
    ),
    Code.MALFORMED_BODY: ProblemMeaning(
        400,
        "The body is not valid JSON.",
        "It must be one JSON object in UTF-8, without duplicate fields, with at most 1,000 fields"
        " in an object and 16 levels of nesting. Strings must not contain U+0000 or half of a"
        " surrogate pair. Nothing was written.",
    ),
    Code.UNSUPPORTED_MEDIA_TYPE: ProblemMeaning(
        415,
        "Unsupported content type.",
        "Send `Content-Type: application/json`, without a `Content-Encoding`.",
    ),
    Code.BODY_TOO_LARGE: ProblemMeaning(
        413, "The body is too large.", "The limit is 64 KiB. Nothing was written."
    ),
    Code.BODY_TOO_SLOW: ProblemMeaning(
        408,
        "The body did not arrive in time.",
        "The connection is closed and nothing was written. Repeat the request with the same key.",
    ),
    Code.HEAD_TOO_SLOW: ProblemMeaning(
        408,
        "The request's headers did not arrive in time.",
        "They must arrive within 10 s of their first byte. The connection is closed and nothing was"
        " done.",
    ),
    Code.FIELDS_INVALID: ProblemMeaning(
        422,
        "Some fields are invalid.",
        "`errors` lists all of them. Nothing was written.",
    ),
    Code.QUERY_INVALID: ProblemMeaning(
        422,
        "The path or the query is invalid.",
        "`errors` lists all invalid parameters.",
    ),
    Code.HEADERS_INVALID: ProblemMeaning(
        422, "Some headers are invalid.", "`errors` lists all of them."
    ),
    Code.NOT_FOUND: ProblemMeaning(
        404,
        "Not found.",
        "No such route, or the resource does not exist, or it belongs to another user.",
    ),
    Code.METHOD_NOT_ALLOWED: ProblemMeaning(
        405, "Method not allowed.", "The header `Allow` lists the allowed methods."
    ),
    Code.UNAUTHENTICATED: ProblemMeaning(
        401,
        "Authentication is required.",
        "Send `Authorization: Bearer` with an access token or an API key, or a browser's session"
        " cookie. Access tokens are short-lived: refresh, or sign in again.",
    ),
    Code.CREDENTIALS_WRONG: ProblemMeaning(
        401,
        "Wrong e-mail or password.",
        "There is no such user, the password is wrong, or the user is disabled. The answer does not"
        " say which.",
    ),
    Code.TOO_MANY_ATTEMPTS: ProblemMeaning(
        429,
        "Too many wrong passwords.",
        "For this e-mail address, or from your network; this password was not checked. Retry after"
        " the seconds in `Retry-After`. Existing sessions stay valid.",
    ),
    Code.TOO_MANY_REGISTRATIONS: ProblemMeaning(
        429,
        "Too many registrations.",
        "From your network; nobody was registered. Retry after the seconds in `Retry-After`.",
    ),
    Code.TOO_MANY_WAITS: ProblemMeaning(
        429,
        "Too many of your requests are in progress.",
        "Nothing was written. Wait until one of them is answered, or poll with `wait=0`.",
    ),
    Code.REFRESH_INVALID: ProblemMeaning(
        401,
        "The refresh token is not valid.",
        "It has expired, was revoked, or was used before. Each is used once: a second use ends the"
        " session, because the token may have been stolen. Only a request with the same"
        " `Idempotency-Key` may be repeated within 10 s. Sign in again.",
    ),
    Code.FORBIDDEN: ProblemMeaning(
        403,
        "Not allowed.",
        "Your role, or the scope of your API key, does not permit this.",
    ),
    Code.CSRF_FAILED: ProblemMeaning(
        403,
        "The request may come from another site.",
        "A request that changes something and is authenticated by cookie needs the header"
        " `X-CSRF-Token` from the sign-in response, and must come from a page of this site.",
    ),
    Code.EMAIL_TAKEN: ProblemMeaning(
        409, "This e-mail address is already registered.", "Sign in, or use another address."
    ),
    Code.WALLET_OPENING: ProblemMeaning(
        409,
        "The wallet is being opened.",
        "Nothing was written. Retry after the seconds in `Retry-After`.",
    ),
    Code.NOT_DECIDED_OR_UNKNOWN: ProblemMeaning(
        404,
        "No outcome for this id.",
        "There is no such command, or it is not decided yet. An id alone cannot distinguish the"
        " two; the `Location` of the submission can.",
    ),
    Code.PAGE_TOO_DEEP: ProblemMeaning(
        422,
        "The page is too deep.",
        "Filtered lists are read by page number up to page x limit = 10,000, less with more than"
        " ten wallets; continue with `cursor`. A query that takes too long is abandoned: narrow the"
        " filter.",
    ),
    Code.POSITION_OF_ANOTHER_EPOCH: ProblemMeaning(
        410,
        "The position belongs to another epoch.",
        "The ledger was restored from a backup, or its partitions were changed, after this"
        " `Location` or `cursor` was issued. Read a list from its beginning; look a transaction up"
        " by its id alone, or repeat its request with the same key.",
    ),
    Code.POSITION_OF_ANOTHER_LEDGER: ProblemMeaning(
        422,
        "The position belongs to another ledger.",
        "Another ledger issued this `Location` or `cursor`. Use it there.",
    ),
    Code.KEY_AND_TRANS_ID_DIFFER: ProblemMeaning(
        422,
        "`trans_id` and the header `Idempotency-Key` differ.",
        "They mean the same. Send one of them, or the same value in both. Nothing was written.",
    ),
    Code.TRANS_ID_REQUIRED: ProblemMeaning(
        422,
        "A `trans_id` is required.",
        "Send `trans_id`, or the header `Idempotency-Key`. Nothing was written.",
    ),
    Code.REGISTRATION_CLOSED: ProblemMeaning(
        403,
        "Registration is closed.",
        "This installation accepts no new users. Nothing was written.",
    ),
    Code.SELF_CREDIT_OFF: ProblemMeaning(
        403,
        "Users cannot credit their own wallets.",
        "This installation accepts credits from operators only. Nothing was written.",
    ),
    Code.LAST_ADMIN: ProblemMeaning(
        409,
        "This is the last admin.",
        "Make another user an admin first.",
    ),
    Code.TOO_MANY_WALLETS: ProblemMeaning(
        409, "Too many wallets.", "A user may have 100, closed ones included."
    ),
    Code.BUSY: ProblemMeaning(
        503,
        "The server is busy.",
        "Nothing was done. Retry after the seconds in `Retry-After`.",
    ),
    Code.UNAVAILABLE: ProblemMeaning(
        503,
        "The service is temporarily unavailable.",
        "Kafka or Postgres cannot be reached. Nothing was written. Retry after the seconds in"
        " `Retry-After`.",
    ),
    Code.INTERNAL_ERROR: ProblemMeaning(
        500,
        "Internal error.",
        "This is a bug; the log has it under the request id. It is not known whether something was"
        " written: repeat the request with the same key, which is safe.",
    ),
}

AnyCode = Code | Reason


def status(code: AnyCode) -> int:
    return CATALOGUE[code].status if isinstance(code, Code) else reasons.CATALOGUE[code].status


def title(code: AnyCode) -> str:
    return CATALOGUE[code].title if isinstance(code, Code) else reasons.CATALOGUE[code].sentence


class FieldError(BaseModel):
    """An invalid field, and what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Its path, such as `entries.0.amount`.")
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """The answer to every failed request (RFC 9457)."""

    type: str = Field(description="The page that explains the code.")
    title: str
    status: int
    code: str = Field(description="Stable, for programs.")
    detail: str | None = None
    errors: list[FieldError] | None = Field(None, description="All invalid fields, if any.")
    request_id: str | None = None
    transaction_id: str | None = Field(
        None, description="The id of a transaction that the ledger rejected."
    )


class HttpProblem(Exception):
    """Raised to refuse a request; becomes a problem document. `more` has further members of the
    document. `subject` is the user concerned; only the audit log gets it."""

    def __init__(
        self,
        code: AnyCode,
        detail: str | None = None,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
        subject: str | None = None,
        subject_role: UserRole | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = headers
        self.more = more
        self.subject = subject
        self.subject_role = subject_role


def answer(problem: HttpProblem, request_id: str) -> web.Response:
    code = problem.code
    document: dict[str, Any] = {
        "type": f"{PAGES}{code}",
        "title": title(code),
        "status": status(code),
        "code": code,
    }
    if problem.detail is not None:
        document["detail"] = problem.detail
    if problem.errors:
        document["errors"] = [each.model_dump() for each in problem.errors]
    document["request_id"] = request_id
    if problem.more:
        document |= problem.more
    return web.Response(
        status=status(code),
        body=msgspec.json.encode(document),
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )
