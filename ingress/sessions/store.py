"""Sessions as rows: begun, refreshed, ended.

A refresh token is used once. One that comes again was copied, by whom is not known: its session
ends. Every ending is told to all ingresses in the transaction that makes it.
"""

from datetime import datetime
from typing import NamedTuple

from aiohttp import web
from msgspec import Struct

from ingress import audit, queries
from ingress.sessions import tokens
from ingress.sessions.endings import CHANNEL, KEY, SESSION, USER

MAX_AGENT_LENGTH = 300


class Begun(NamedTuple):
    id: str
    token: str


class Session(Struct, frozen=True, kw_only=True):
    id: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime
    user_agent: str
    address: str | None


class Refreshed(Struct, frozen=True):
    session_id: str
    user_id: str


class PasswordOf(Struct, frozen=True):
    password_hash: str | None


class _Id(Struct, frozen=True):
    id: str


async def begin(
    connection: queries.Connection, request: web.Request, user_id: str, kind: str, ttl_s: int
) -> Begun:
    token = tokens.make(kind)
    agent = request.headers.get("User-Agent", "").encode("ascii", "replace").decode()
    made = await queries.one(
        connection,
        "session_begin",
        _Id,
        hash=tokens.hashed(token),
        user_id=user_id,
        ttl_s=ttl_s,
        user_agent=agent[:MAX_AGENT_LENGTH].replace("\0", ""),
        address=audit.address(request),
    )
    assert made is not None, "it was inserted"
    return Begun(made.id, token)


async def refresh(
    connection: queries.Connection, token: str, ttl_s: int
) -> tuple[Refreshed, str] | None:
    """The session and its next refresh token. None: not valid; if it was used before, its session
    has ended now."""
    if not tokens.is_one(token, tokens.REFRESH):
        return None
    new = tokens.make(tokens.REFRESH)
    old = tokens.hashed(token)
    found = await queries.one(
        connection, "session_refresh", Refreshed, old=old, new=tokens.hashed(new), ttl_s=ttl_s
    )
    if found is not None:
        return found, new
    reused = await queries.one(connection, "spent_token", _Id, hash=old)
    if reused is not None:
        await end(connection, [reused.id])
    return None


async def of(connection: queries.Connection, user_id: str) -> list[Session]:
    return await queries.every(connection, "sessions_of", Session, user_id=user_id)


async def end(connection: queries.Connection, session_ids: list[str]) -> None:
    for each in await queries.every(connection, "sessions_end", _Id, ids=session_ids):
        await tell(connection, SESSION, each.id)


async def end_all(connection: queries.Connection, user_id: str, but: str | None = None) -> None:
    """But one, where that goes on."""
    mine = [each.id for each in await of(connection, user_id)]
    await end(connection, [id for id in mine if id != but])


async def tell(connection: queries.Connection, kind: str, id: str) -> None:
    assert kind in (SESSION, USER, KEY)
    await queries.run(connection, "ending_tell", channel=CHANNEL, kind=kind, id=id)
