"""Sessions as rows: begun, refreshed, ended.

A refresh token is used once. One that comes again was copied, by whom is not known: its session
ends. The exception is a lost answer: within RETRY_S the same client gets the same answer. Every
ending is told to all ingresses in the transaction that makes it.
"""

import hmac
from datetime import datetime
from typing import Final, NamedTuple

from aiohttp import web
from msgspec import Struct

from ingress import audit, queries
from ingress.ledger.asking import KEY_HEADER
from ingress.sessions import tokens
from ingress.sessions.attempts import place_of
from ingress.sessions.endings import CHANNEL, KEY, SESSION, USER

MAX_AGENT_LENGTH = 300
# How long a lost answer to a refresh is given again.
RETRY_S: Final = 10.0


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


class _Rotated(Struct, frozen=True):
    session_id: str
    user_id: str
    hash: bytes
    salt: bytes


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
    connection: queries.Connection, request: web.Request, token: str, ttl_s: int
) -> tuple[Refreshed, str] | None:
    """The session and its next refresh token. None: not valid; if it was used before, its session
    has ended now."""
    if not tokens.is_one(token, tokens.REFRESH):
        return None
    client, salt = _client(request), tokens.salt()
    new, old = tokens.following(token, salt, client), tokens.hashed(token)
    found = await queries.one(
        connection,
        "session_refresh",
        Refreshed,
        old=old,
        new=tokens.hashed(new),
        salt=salt,
        ttl_s=ttl_s,
    )
    if found is not None:
        return found, new
    rotated = await queries.one(connection, "session_rotated", _Rotated, old=old, within_s=RETRY_S)
    if rotated is not None:
        same = tokens.following(token, rotated.salt, client)
        # The hash is another's if that token was used, or if the client is not the same.
        if hmac.compare_digest(tokens.hashed(same), rotated.hash):
            return Refreshed(rotated.session_id, rotated.user_id), same
    reused = await queries.one(connection, "spent_token", _Id, hash=old)
    if reused is not None:
        await end(connection, [reused.id])
    return None


def _client(request: web.Request) -> bytes:
    """What a client brings beside its token, and who has only copied that does not know."""
    place = place_of(audit.address(request)) or ""
    headers = (request.headers.get(name, "") for name in ("User-Agent", KEY_HEADER))
    return "\n".join((place, *headers)).encode(errors="surrogateescape")


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
