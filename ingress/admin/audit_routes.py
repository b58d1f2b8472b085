"""The route that lists the audit log, latest first."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from msgspec import Struct
from pydantic import Field

from ingress.http.position_tokens import PositionTokens, bad_cursor
from ingress.http.roles import ADMINS, AUDITORS, Scope
from ingress.http.routes import Answer, Call, Instant, Meta, Moment, Query, ResponseModel, Route
from ingress.sql import queries
from ingress.users.directory import UserDirectory
from plumbing.postgres.connection_pool import Pool

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
LAST_ID: Final = 2**63 - 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_TIME: Final = datetime(2262, 1, 1, tzinfo=UTC)
_CURSOR: Final = re.compile(r"([0-9]{1,16})-([0-9]{1,18})\Z").match


class AuditQuery(Query):
    user: Annotated[str | None, Field(max_length=64, description="By integer id or uuid.")] = None
    action: Annotated[
        str | None,
        Field(max_length=100, description="Such as `signed in`, `freeze` or `forbidden`."),
    ] = None
    subject: Annotated[
        str | None,
        Field(
            max_length=200,
            description="An account, a session, an API key, a user or a route.",
        ),
    ] = None
    since: Annotated[Moment | None, Field(description="RFC 3339, with an offset.")] = None
    until: Annotated[Moment | None, Field(description="RFC 3339; excludes this time.")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: Annotated[
        str | None, Field(max_length=150, description="The `next_cursor` of the previous page.")
    ] = None


class AuditResponse(ResponseModel):
    id: int
    time: Instant
    user_uuid: str | None
    key_id: str | None = Field(description="The API key that was used.")
    action: str
    subject: str | None
    address: str | None
    trace: str | None
    detail: dict[str, Any]
    count: int = Field(description="How many such events this row counts.")


class AuditList(ResponseModel):
    data: list[AuditResponse]
    meta: Meta


class _AuditRow(Struct, frozen=True, kw_only=True):
    id: int
    time: datetime
    user_id: str | None
    key_id: str | None
    action: str
    subject: str | None
    address: str | None
    trace: str | None
    detail: dict[str, Any]
    count: int


class AuditLog:
    def __init__(self, pool: Pool, users: UserDirectory, positions: PositionTokens) -> None:
        self._pool = pool
        self._positions = positions
        self._users = users

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/audit",
                handler=self.list,
                summary="The audit log",
                description="Sign-ins, refused passwords, forbidden requests, changes of users,"
                " sessions and keys, and every command that an operator sends to the ledger, with"
                " its kind as `action` and its account as `subject`. All filters must match.",
                tag="Audit",
                roles=AUDITORS | ADMINS,
                scope=Scope.READ,
                query=AuditQuery,
                answers={200: AuditList},
            )
        ]

    async def list(self, call: Call[None, AuditQuery]) -> Answer:
        filters = call.query
        user_id = None
        if filters.user is not None:
            user = await self._users.by_reference(filters.user)
            user_id = user.id if user is not None else ""  # matches no row
        before, before_id = _page_start(self._positions.read_cursor(filters.cursor), filters.until)
        async with self._pool.connection() as connection:
            rows = await queries.every(
                connection,
                "audit",
                _AuditRow,
                user_id=user_id,
                action=filters.action,
                subject=filters.subject,
                since=filters.since,
                before=before,
                before_id=before_id,
                limit=filters.limit + 1,
            )
        page = rows[: filters.limit]
        more = _cursor(page[-1]) if len(rows) > filters.limit else None
        responses = [
            AuditResponse(
                id=each.id,
                time=each.time,
                user_uuid=each.user_id,
                key_id=each.key_id,
                action=each.action,
                subject=each.subject,
                address=each.address,
                trace=each.trace,
                detail=each.detail,
                count=each.count,
            )
            for each in page
        ]
        meta = Meta(limit=filters.limit, next_cursor=self._positions.write_cursor(more))
        return Answer(AuditList(data=responses, meta=meta))


def _cursor(row: _AuditRow) -> str:
    return f"{(row.time - EPOCH) // timedelta(microseconds=1)}-{row.id}"


def _page_start(cursor: str | None, until: datetime | None) -> tuple[datetime, int]:
    """Where a page starts: at the rows before this time and id."""
    if cursor is None:
        return until or END_OF_TIME, -1 if until is not None else LAST_ID
    match = _CURSOR(cursor)
    at = EPOCH + timedelta(microseconds=int(match[1])) if match else END_OF_TIME
    if match is None or at > END_OF_TIME:
        raise bad_cursor()
    return (at, int(match[2])) if until is None or at < until else (until, -1)
