"""Every way in which the ingress says no: RFC 9457 documents with stable codes, each with its page.

The ledger's own reasons keep their names and their statuses; what the ingress adds stands beside
them here, once. A code is never renamed and never reused. A problem tells nothing that its asker
may not know.
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
    """The ingress's own; the ledger's are its reasons."""

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
        "A line or a header of it cannot be read. Nothing was done.",
    ),
    Code.MALFORMED_BODY: ProblemMeaning(
        400,
        "The body is not the JSON that is asked for.",
        "It is not UTF-8, not JSON, not an object, has a field twice, more than 1,000 fields in"
        " one object, is nested too deep, or has"
        " U+0000 or half of a surrogate pair in a text. Nothing was written.",
    ),
    Code.UNSUPPORTED_MEDIA_TYPE: ProblemMeaning(
        415,
        "The body's content type is not taken.",
        "Send `Content-Type: application/json`, without a `Content-Encoding`.",
    ),
    Code.BODY_TOO_LARGE: ProblemMeaning(
        413, "The body is too large.", "A body has at most 64 KiB. Nothing was written."
    ),
    Code.BODY_TOO_SLOW: ProblemMeaning(
        408,
        "The body did not arrive in time.",
        "The connection is closed and nothing was written. Send it again, with the same key.",
    ),
    Code.HEAD_TOO_SLOW: ProblemMeaning(
        408,
        "The request's headers did not arrive in time.",
        "They have 10 s from their first byte. The connection is closed and nothing was done.",
    ),
    Code.FIELDS_INVALID: ProblemMeaning(
        422,
        "Fields of the body are not allowed as they are.",
        "`errors` names each of them, all at once. Nothing was written.",
    ),
    Code.QUERY_INVALID: ProblemMeaning(
        422,
        "The address has something that is not allowed.",
        "`errors` names each bad part of the path and of the query, all at once.",
    ),
    Code.HEADERS_INVALID: ProblemMeaning(
        422, "Headers are not allowed as they are.", "`errors` names each of them, all at once."
    ),
    Code.NOT_FOUND: ProblemMeaning(
        404,
        "There is nothing here for you.",
        "The address is none of this API's, or what it names is not there, or is another's.",
    ),
    Code.METHOD_NOT_ALLOWED: ProblemMeaning(
        405, "The address does not take this method.", "The header `Allow` says which it takes."
    ),
    Code.UNAUTHENTICATED: ProblemMeaning(
        401,
        "Who is asking is not known.",
        "Send `Authorization: Bearer` with an access token or an API key, or a browser's session"
        " cookie. Tokens are short-lived: refresh, or sign in again.",
    ),
    Code.CREDENTIALS_WRONG: ProblemMeaning(
        401,
        "E-mail and password do not go together.",
        "There is no such account, its password is another, or it is disabled; which, is not told.",
    ),
    Code.TOO_MANY_ATTEMPTS: ProblemMeaning(
        429,
        "There were too many wrong passwords.",
        "For this e-mail address, or from where you are; nothing was checked now. Ask again after"
        " the seconds of the header `Retry-After`. Who is signed in stays so.",
    ),
    Code.TOO_MANY_REGISTRATIONS: ProblemMeaning(
        429,
        "There were too many registrations.",
        "From your network address; nobody was registered now. Try again after the seconds of the"
        " header `Retry-After`.",
    ),
    Code.TOO_MANY_WAITS: ProblemMeaning(
        429,
        "Too many of your requests are waiting.",
        "Nothing was written. Wait until one of them is answered, or poll with `wait=0`.",
    ),
    Code.REFRESH_INVALID: ProblemMeaning(
        401,
        "The refresh token is not valid.",
        "It has expired, was ended, or was used before. Each is used once: one that is used again"
        " may have been stolen, and ends its session, unless the same client repeats a request"
        " within 10 s. Sign in again.",
    ),
    Code.FORBIDDEN: ProblemMeaning(
        403,
        "This is not allowed to you.",
        "Your role, or the scope of your API key, does not reach so far.",
    ),
    Code.CSRF_FAILED: ProblemMeaning(
        403,
        "The request may come from another site.",
        "What changes something and is signed in by cookie needs the header `X-CSRF-Token`, as"
        " told at signing in, and comes from a page of this site.",
    ),
    Code.EMAIL_TAKEN: ProblemMeaning(
        409, "There is an account for this e-mail address.", "Sign in, or take another address."
    ),
    Code.WALLET_OPENING: ProblemMeaning(
        409,
        "The wallet is being opened.",
        "Nothing was written. Ask again after the seconds of the header `Retry-After`.",
    ),
    Code.NOT_DECIDED_OR_UNKNOWN: ProblemMeaning(
        404,
        "No decision under this id is known.",
        "There is no such command, or it is not decided yet: that a bare id does not tell. The"
        " `Location` that a submission was answered with does.",
    ),
    Code.PAGE_TOO_DEEP: ProblemMeaning(
        422,
        "The list is not read so deep in this way.",
        "By number, filtered lists are read up to page x limit = 10,000, less where more than ten"
        " wallets are read together; go on by `cursor`. What takes too long to find is given up:"
        " narrow the filter.",
    ),
    Code.POSITION_OF_ANOTHER_EPOCH: ProblemMeaning(
        410,
        "The position is of another epoch.",
        "The ledger was restored from a backup, or its partitions were changed, after this"
        " `Location` or `cursor` was given out. Read a list from its beginning; look a transaction"
        " up by its id alone, or repeat its request with the same key.",
    ),
    Code.POSITION_OF_ANOTHER_LEDGER: ProblemMeaning(
        422,
        "The position is of another ledger.",
        "This `Location` or `cursor` was given out by another ledger. Use it there.",
    ),
    Code.KEY_AND_TRANS_ID_DIFFER: ProblemMeaning(
        422,
        "`trans_id` and the header `Idempotency-Key` differ.",
        "They mean the same. Send one of them, or both alike. Nothing was written.",
    ),
    Code.TRANS_ID_REQUIRED: ProblemMeaning(
        422,
        "A `trans_id` is required here.",
        "Send `trans_id`, or the header `Idempotency-Key`. Nothing was written.",
    ),
    Code.REGISTRATION_CLOSED: ProblemMeaning(
        403,
        "Registration is closed.",
        "This installation takes no new users. Nothing was written.",
    ),
    Code.SELF_CREDIT_OFF: ProblemMeaning(
        403,
        "Users do not credit their own wallets here.",
        "This installation takes credits from operators only. Nothing was written.",
    ),
    Code.LAST_ADMIN: ProblemMeaning(
        409,
        "This is the last admin.",
        "Make another admin first: without one nobody could.",
    ),
    Code.TOO_MANY_WALLETS: ProblemMeaning(
        409, "There are too many wallets.", "You have 100, closed ones included."
    ),
    Code.BUSY: ProblemMeaning(
        503,
        "Too much is asked at once.",
        "Nothing was done. Ask again after the seconds of the header `Retry-After`.",
    ),
    Code.UNAVAILABLE: ProblemMeaning(
        503,
        "A part that is needed is out of reach.",
        "Nothing was written. Ask again after the seconds of the header `Retry-After`.",
    ),
    Code.INTERNAL_ERROR: ProblemMeaning(
        500,
        "Something went wrong here.",
        "It is a defect, and is in the log under the request id. Whether something was written is"
        " not known: ask again with the same key, which does it once at most.",
    ),
}

AnyCode = Code | Reason


def status(code: AnyCode) -> int:
    return CATALOGUE[code].status if isinstance(code, Code) else reasons.CATALOGUE[code].status


def title(code: AnyCode) -> str:
    return CATALOGUE[code].title if isinstance(code, Code) else reasons.CATALOGUE[code].sentence


class FieldError(BaseModel):
    """One bad field: where it stands, and what is wrong with it."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Its path, as `entries.0.amount`.")
    code: str
    detail: str


class ProblemDocument(BaseModel):
    """What every error is answered with (RFC 9457)."""

    type: str = Field(description="The page that explains the code.")
    title: str
    status: int
    code: str = Field(description="Stable: made to be tested for.")
    detail: str | None = None
    errors: list[FieldError] | None = Field(None, description="Every bad field, where there are.")
    request_id: str | None = None
    transaction_id: str | None = Field(
        None, description="Of a transaction that the ledger rejected: its id for life."
    )


class HttpProblem(Exception):
    """Raised wherever a request is refused; answered as a document. `more` are members of it
    beside the usual ones; `subject` is the user whom it is about, for the audit log alone."""

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
