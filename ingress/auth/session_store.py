"""Sessions and API keys as rows: creates, refreshes and ends them.

A refresh token is used once. A second use means that it was copied, so its session ends. The
exception is a lost response: within RETRY_S the same client gets the same response. The transaction
that ends a session notifies all ingresses.
"""

import hmac
from datetime import datetime
from typing import Final

from aiohttp import web
from msgspec import Struct

from ingress.audit import entries
from ingress.auth import client_secrets
from ingress.auth.revocations import CHANNEL, KEY, SESSION
from ingress.http.client_address import address_of, network_of
from ingress.http.request_headers import KEY_HEADER
from ingress.sql import queries
from ingress.users.directory import User

MAX_AGENT_LENGTH: Final = 300
# How long a client may repeat a refresh whose response was lost.
RETRY_S: Final = 10.0


class _NewSessionRow(User, frozen=True, kw_only=True):
    session_id: str
    token_counter: int


class NewSession(Struct, frozen=True):
    """A new session, with the user's row at that time and the client's secret."""

    id: str
    token: str
    user: User
    counter: int


class Session(Struct, frozen=True, kw_only=True):
    id: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime
    user_agent: str
    address: str | None


class RefreshedSession(Struct, frozen=True, kw_only=True):
    """`id`, `number` and the fields after them are the user's."""

    session_id: str
    id: str
    number: int
    role: str
    token_counter: int


class _RotatedSession(RefreshedSession, frozen=True, kw_only=True):
    hash: bytes
    salt: bytes


class PasswordHash(Struct, frozen=True):
    password_hash: str | None


class _EndedTokens(Struct, frozen=True):
    """One batch of ended tokens. The same statement notified the ingresses of it."""

    ids: list[str]
    notified: str


class _SpentToken(Struct, frozen=True):
    """The session of a used refresh token, and the user of that session."""

    id: str
    user_id: str


async def begin(
    connection: queries.Connection,
    request: web.Request,
    user_id: str,
    verified: str,
    kind: str,
    ttl_s: int,
    limit: int,
) -> NewSession | None:
    """Returns None if `verified` is not the hash of the user's current password, or the user is
    disabled. Ends the oldest sessions beyond `limit`."""
    token = client_secrets.new_secret(kind)
    agent = request.headers.get("User-Agent", "").encode("ascii", "replace").decode()
    row = await queries.one(
        connection,
        "session_begin",
        _NewSessionRow,
        hash=client_secrets.hashed(token),
        user_id=user_id,
        verified=verified,
        ttl_s=ttl_s,
        user_agent=agent[:MAX_AGENT_LENGTH].replace("\0", ""),
        address=address_of(request),
    )
    if row is None:
        return None
    await end_oldest(connection, user_id, SESSION, row.session_id, limit)
    return NewSession(row.session_id, token, row, row.token_counter)


async def refresh(
    connection: queries.Connection, request: web.Request, token: str, ttl_s: int
) -> tuple[RefreshedSession, str] | None:
    """Returns the session and its next refresh token, or None for an invalid token. A token that
    was used before ends its session."""
    if not client_secrets.is_well_formed(token, client_secrets.REFRESH):
        return None
    client, salt = _client(request), client_secrets.salt()
    new, old = client_secrets.next_refresh_token(token, salt, client), client_secrets.hashed(token)
    session = await queries.one(
        connection,
        "session_refresh",
        RefreshedSession,
        old=old,
        new=client_secrets.hashed(new),
        salt=salt,
        ttl_s=ttl_s,
    )
    if session is not None:
        return session, new
    rotated = await queries.one(
        connection, "session_rotated", _RotatedSession, old=old, within_s=RETRY_S
    )
    # Without an idempotency key, several clients may share this address and browser.
    if rotated is not None and KEY_HEADER in request.headers:
        same = client_secrets.next_refresh_token(token, rotated.salt, client)
        # The hashes differ if the next token was used, too, or if this is another client.
        if hmac.compare_digest(client_secrets.hashed(same), rotated.hash):
            return rotated, same
    reused = await queries.one(connection, "spent_token", _SpentToken, hash=old)
    # Record only the first reuse, which ends the session: a thief could repeat it endlessly.
    if reused is not None and await end(connection, reused.user_id, SESSION, only=reused.id):
        event = entries.Event(
            action="refresh token reused",
            user_id=reused.user_id,
            subject=reused.id,
            address=address_of(request),
        )
        await entries.add(connection, [event])
    return None


def _client(request: web.Request) -> bytes:
    """What identifies a client beside its token; a thief of the token does not know it."""
    network = network_of(address_of(request)) or ""
    headers = (request.headers.get(name, "") for name in ("User-Agent", KEY_HEADER))
    return "\n".join((network, *headers)).encode(errors="surrogateescape")


async def list_sessions(connection: queries.Connection, user_id: str) -> list[Session]:
    return await queries.every(connection, "sessions", Session, user_id=user_id)


async def end(
    connection: queries.Connection,
    user_id: str,
    kind: str,
    *,
    only: str | None = None,
    but: str | None = None,
) -> list[str]:
    """Ends sessions or API keys of a user: all, all but one, or only one. Returns their ids. To end
    all, lock the user's row earlier in the transaction."""
    ended = await queries.every(
        connection,
        "tokens_end",
        _EndedTokens,
        channel=CHANNEL,
        user_id=user_id,
        kind=kind,
        only=only,
        but=but,
    )
    return [id for part in ended for id in part.ids]


async def end_oldest(
    connection: queries.Connection, user_id: str, kind: str, new: str, limit: int
) -> list[str]:
    """Ends the oldest beyond `limit`, which counts `new`, but never `new`. Returns their ids."""
    ended = await queries.every(
        connection,
        "tokens_cap",
        _EndedTokens,
        channel=CHANNEL,
        user_id=user_id,
        kind=kind,
        new=new,
        limit=limit,
    )
    return [id for part in ended for id in part.ids]


async def revoke(connection: queries.Connection, user_id: str, *kinds: str) -> None:
    """Revokes a user's access tokens and ends all tokens of the given kinds. Lock the user's row
    earlier in the transaction."""
    assert set(kinds) <= {SESSION, KEY}
    await queries.run(connection, "user_revoke", id=user_id, kinds=list(kinds), channel=CHANNEL)
