"""Identifies the caller of a request. Each token is looked up once, then cached.

Keeps the rule that revoked credentials are refused: Postgres notifies every ingress of revocations.
While notifications are not reliable, the cache is bypassed and each request makes a query. Invalid
credentials are a problem; they never make a caller anonymous.
"""

import time
from typing import Final, NamedTuple

from aiohttp import web
from msgspec import Struct

from ingress.auth import client_secrets, cookies
from ingress.auth.access_tokens import Access, AccessTokens
from ingress.auth.revocations import Revocations
from ingress.auth.signing_keys import SigningKeys
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import Scope, UserRole
from ingress.http.routes import Caller
from ingress.sql import queries
from plumbing.postgres.connection_pool import Pool

MAX_CACHED_CALLERS: Final = 20_000
# How long a cookie or an API key is accepted without a query.
CACHE_TTL_S: Final = 30.0
LAST_USED_INTERVAL_S: Final = 60.0


class _CachedCaller(NamedTuple):
    caller: Caller
    until: float


class Holder(Struct, frozen=True):
    """The holder of a token that is currently valid."""

    session_id: str
    kind: str
    user_id: str
    number: int
    role: str
    scopes: list[str]
    expires_in_s: float


class _IsCurrent(Struct, frozen=True):
    current: bool


class Authenticator:
    def __init__(
        self, pool: Pool, keys: SigningKeys, access: AccessTokens, revocations: Revocations
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._access = access
        self._revocations = revocations
        # Two caches: a cookie also needs a CSRF check, so it must not pass as a bearer token.
        self._bearer_cache: dict[str, _CachedCaller] = {}
        self._cookie_cache: dict[str, _CachedCaller] = {}
        revocations.subscribe(self._bearer_cache.clear)
        revocations.subscribe(self._cookie_cache.clear)

    async def caller(self, request: web.Request) -> Caller | None:
        header = request.headers.get("Authorization")
        if header is None:
            cookie = cookies.session_token(request)
            return None if cookie is None else await self._by_cookie(request, cookie)
        scheme, _, token = header.partition(" ")
        if scheme != "Bearer" and scheme.lower() != "bearer":
            raise unauthenticated("The scheme of `Authorization` must be `Bearer`.")
        cached = self._cached_caller(self._bearer_cache, token)
        if cached is not None:
            return cached
        if token.startswith(client_secrets.API_KEY):
            return await self._by_secret(token, client_secrets.API_KEY, self._bearer_cache)
        return await self._by_access_token(token)

    def _cached_caller(self, cache: dict[str, _CachedCaller], token: str) -> Caller | None:
        cached = cache.get(token)
        if cached is None or time.time() >= cached.until or not self._revocations.current:
            return None
        return cached.caller

    async def _by_access_token(self, token: str) -> Caller:
        access = self._access.read(token)
        if access is None or self._revocations.is_revoked(access):
            raise _access_token_invalid()
        if self._revocations.current:
            _store(self._bearer_cache, token, access.caller, access.expires_at)
        elif not await self._is_current(access):
            raise _access_token_invalid()
        return access.caller

    async def _is_current(self, access: Access) -> bool:
        async with self._pool.connection() as connection:
            row = await queries.one(
                connection,
                "access_is_current",
                _IsCurrent,
                session_id=access.caller.session_id,
                user_id=access.caller.id,
                counter=access.counter,
            )
        assert row is not None, "SELECT EXISTS returns a row"
        return row.current

    async def _by_cookie(self, request: web.Request, cookie: str) -> Caller:
        caller = self._cached_caller(self._cookie_cache, cookie)
        if caller is None:
            caller = await self._by_secret(cookie, client_secrets.COOKIE, self._cookie_cache)
        assert caller.session_id is not None, "every cookie belongs to a session"
        cookies.check_csrf(request, self._keys, caller.session_id)
        return caller

    async def _by_secret(self, token: str, kind: str, cache: dict[str, _CachedCaller]) -> Caller:
        if not client_secrets.is_well_formed(token, kind):
            raise unauthenticated()
        revocations_before = self._revocations.count
        async with self._pool.connection() as connection:
            holder = await queries.one(
                connection,
                "holder",
                Holder,
                hash=client_secrets.hashed(token),
                used_every_s=LAST_USED_INTERVAL_S,
            )
        if holder is None:
            raise unauthenticated()
        caller = _caller(holder)
        # A revocation during the query may concern this token: do not cache, so that the next
        # request queries again.
        if revocations_before == self._revocations.count:
            _store(cache, token, caller, time.time() + min(CACHE_TTL_S, holder.expires_in_s))
        return caller


def _store(cache: dict[str, _CachedCaller], token: str, caller: Caller, until: float) -> None:
    if len(cache) >= MAX_CACHED_CALLERS:
        cache.clear()
    cache[token] = _CachedCaller(caller, until)


def unauthenticated(detail: str | None = None) -> HttpProblem:
    return HttpProblem(Code.UNAUTHENTICATED, detail, headers={"WWW-Authenticate": "Bearer"})


def _access_token_invalid() -> HttpProblem:
    return unauthenticated("The access token is invalid or has expired.")


def _caller(holder: Holder) -> Caller:
    by_key = holder.kind == "api_key"
    return Caller(
        id=holder.user_id,
        number=holder.number,
        role=UserRole(holder.role),
        session_id=None if by_key else holder.session_id,
        key_id=holder.session_id if by_key else None,
        scopes=frozenset(map(Scope, holder.scopes)) if by_key else None,
        by_cookie=not by_key,
    )
