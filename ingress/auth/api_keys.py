"""API keys: credentials of services. Each is shown once, stored as a hash, and revocable.

A key permits its scopes, within its owner's role. Keeps the rules that a stolen session cannot
create a key, and that every key expires.
"""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Struct
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from ingress.audit import entries
from ingress.auth import client_secrets, session_store
from ingress.auth.current_password import CurrentPassword
from ingress.auth.login_throttle import LoginThrottle
from ingress.auth.passwords import MAX_LENGTH, Passwords
from ingress.auth.revocations import KEY
from ingress.auth.sign_in import PASSWORD_PROBLEMS
from ingress.http.problems import Code, FieldError, HttpProblem
from ingress.http.roles import SIGNED_IN, Scope
from ingress.http.routes import (
    Answer,
    Body,
    Call,
    Instant,
    Meta,
    Moment,
    Query,
    ResponseModel,
    Route,
)
from ingress.settings import IngressSettings
from ingress.sql import queries
from plumbing.postgres.connection_pool import Pool

TAG = "API keys"


class NewKey(Body):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[
        list[Annotated[Scope, Field(strict=False)]], Field(min_length=1, max_length=len(Scope))
    ]
    current_password: Annotated[
        str, Field(max_length=MAX_LENGTH, json_schema_extra={"format": "password"})
    ]
    expires_at: Annotated[
        Moment | None,
        Field(
            description="RFC 3339, at most API_KEY_MAX_TTL_S ahead. Without it the key expires"
            " after API_KEY_TTL_S."
        ),
    ] = None

    @field_validator("expires_at")
    @classmethod
    def _ahead(cls, time: datetime | None) -> datetime | None:
        if time is not None and not datetime.now(UTC) < time.astimezone(UTC):
            raise PydanticCustomError("not_ahead", "must be in the future")
        return time


class KeyResponse(ResponseModel):
    id: str
    name: str
    scopes: list[Scope]
    created_at: Instant
    last_used_at: Instant | None
    expires_at: Instant


class NewKeyResponse(KeyResponse):
    key: str = Field(description="For `Authorization: Bearer`. It is shown only once.")
    ended: list[str] = Field(description="The ids of older keys that ended because of the limit.")


class KeyList(ResponseModel):
    data: list[KeyResponse]
    meta: Meta


class KeyId(Query):
    id: uuid.UUID


class _Key(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime


class ApiKeys:
    def __init__(
        self, settings: IngressSettings, pool: Pool, passwords: Passwords, attempts: LoginThrottle
    ) -> None:
        self._ttl_s = settings.api_key_ttl_s
        self._max_ttl = timedelta(seconds=settings.api_key_max_ttl_s)
        self._max_keys = settings.api_keys_per_user
        self._pool = pool
        self._current_password = CurrentPassword(pool, passwords, attempts)

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api-keys",
                handler=self.list,
                summary="Your API keys",
                tag=TAG,
                roles=SIGNED_IN,
                answers={200: KeyList},
            ),
            Route(
                method="POST",
                path="/api-keys",
                handler=self.create,
                summary="Create an API key",
                description="Needs the current password. A user has at most API_KEYS_PER_USER: one"
                " more ends the oldest.",
                tag=TAG,
                roles=SIGNED_IN,
                body=NewKey,
                answers={201: NewKeyResponse},
                problems=PASSWORD_PROBLEMS,
            ),
            Route(
                method="DELETE",
                path="/api-keys/{id}",
                handler=self.revoke,
                summary="Revoke an API key",
                tag=TAG,
                roles=SIGNED_IN,
                params=KeyId,
                answers={204: None},
                problems=(Code.NOT_FOUND,),
            ),
        ]

    async def list(self, call: Call[None, None]) -> Answer:
        async with self._pool.connection() as connection:
            return Answer(await key_list(connection, call.caller.id))

    async def create(self, call: Call[NewKey, None]) -> Answer:
        body, user_id = call.body, call.caller.id
        if body.expires_at is not None and body.expires_at > datetime.now(UTC) + self._max_ttl:
            days = self._max_ttl / timedelta(days=1)
            error = FieldError(
                field="expires_at", code="too_late", detail=f"is more than {days:g} days ahead"
            )
            raise HttpProblem(Code.FIELDS_INVALID, errors=[error])
        verified = await self._current_password.verify(call, body.current_password)
        token = client_secrets.new_secret(client_secrets.API_KEY)
        async with self._pool.connection() as connection:
            key = await queries.one(
                connection,
                "key_add",
                _Key,
                hash=client_secrets.hashed(token),
                user_id=user_id,
                verified=verified,
                name=body.name,
                scopes=sorted(set(body.scopes)),
                expires_at=body.expires_at,
                ttl_s=self._ttl_s,
            )
            if key is None:
                raise HttpProblem(Code.CREDENTIALS_WRONG)
            await self._current_password.succeeded(connection, user_id)
            ended = await session_store.end_oldest(connection, user_id, KEY, key.id, self._max_keys)
            await entries.note(connection, call, "made an API key", key.id, detail={"ended": ended})
        return Answer(
            NewKeyResponse(**_key_response(key).model_dump(), key=token, ended=ended), 201
        )

    async def revoke(self, call: Call[None, None]) -> Answer:
        id = str(uuid.UUID(call.path["id"]))
        async with self._pool.connection() as connection:
            if not await session_store.end(connection, call.caller.id, KEY, only=id):
                raise HttpProblem(Code.NOT_FOUND)
            await entries.note(connection, call, "revoked an API key", id)
        return Answer(status=204)


async def key_list(connection: queries.Connection, user_id: str) -> KeyList:
    keys = await queries.every(connection, "api_keys", _Key, user_id=user_id)
    return KeyList(data=[_key_response(each) for each in keys], meta=Meta(limit=len(keys)))


def _key_response(key: _Key) -> KeyResponse:
    return KeyResponse(
        id=key.id,
        name=key.name,
        scopes=[Scope(each) for each in key.scopes],
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
    )
