"""The audit log, for who may read it: who did what over HTTP, the latest first."""

from datetime import datetime
from typing import Annotated, Any

from msgspec import Struct
from pydantic import Field

from ingress import queries
from ingress.people import People
from ingress.positions import Positions
from ingress.roles import ADMINS, AUDITORS, Scope
from ingress.routes import Answer, Call, Instant, Meta, Query, Route, Shown
from plumbing.postgres import Pool

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
FIRST = 2**63 - 1


class AuditQuery(Query):
    user: Annotated[str | None, Field(max_length=64, description="By integer id or uuid.")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: Annotated[
        str | None, Field(max_length=100, description="As `next_cursor` gave it.")
    ] = None


class AuditShown(Shown):
    id: int
    time: Instant
    user_uuid: str | None
    action: str
    subject: str | None
    address: str | None
    trace: str | None
    detail: dict[str, Any]


class AuditList(Shown):
    data: list[AuditShown]
    meta: Meta


class _Row(Struct, frozen=True, kw_only=True):
    id: int
    time: datetime
    user_id: str | None
    action: str
    subject: str | None
    address: str | None
    trace: str | None
    detail: dict[str, Any]


class AuditLog:
    def __init__(self, pool: Pool, people: People, positions: Positions) -> None:
        self._pool = pool
        self._positions = positions
        self._people = people

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/audit",
                handler=self.list,
                summary="Who did what",
                tag="Audit",
                roles=AUDITORS | ADMINS,
                scope=Scope.READ,
                query=AuditQuery,
                answers={200: AuditList},
            )
        ]

    async def list(self, call: Call[None, AuditQuery]) -> Answer:
        asked = call.query
        user_id = None
        if asked.user is not None:
            user = await self._people.by_reference(asked.user)
            user_id = user.id if user is not None else ""  # nobody's rows
        async with self._pool.connection() as connection:
            found = await queries.every(
                connection,
                "audit",
                _Row,
                user_id=user_id,
                before=self._positions.number(asked.cursor, FIRST),
                most=asked.limit + 1,
            )
        page = found[: asked.limit]
        more = str(page[-1].id) if len(found) > asked.limit else None
        shown = [
            AuditShown(
                id=each.id,
                time=each.time,
                user_uuid=each.user_id,
                action=each.action,
                subject=each.subject,
                address=each.address,
                trace=each.trace,
                detail=each.detail,
            )
            for each in page
        ]
        return Answer(
            AuditList(
                data=shown, meta=Meta(limit=asked.limit, next_cursor=self._positions.cursor(more))
            )
        )
