"""API keys: what a service signs in with. Shown once, kept as a hash, revocable, and for no more
than its scopes within its owner's role.
"""

import uuid
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Struct
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from ingress import audit, queries
from ingress.problems import Code, Problem
from ingress.roles import SIGNED_IN, Scope
from ingress.routes import Answer, Body, Call, Instant, Meta, Moment, Query, Route, Shown
from ingress.sessions import store, tokens
from ingress.sessions.endings import KEY
from plumbing.postgres import Pool

TAG = "API keys"
MAX_KEYS = 100


class NewKey(Body):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[
        list[Annotated[Scope, Field(strict=False)]], Field(min_length=1, max_length=len(Scope))
    ]
    expires_at: Annotated[Moment | None, Field(description="RFC 3339; none: until revoked.")] = None

    @field_validator("expires_at")
    @classmethod
    def _ahead(cls, time: datetime | None) -> datetime | None:
        if time is not None and not datetime.now(UTC) < time.astimezone(UTC) < LATEST:
            raise PydanticCustomError("not_ahead", "is not ahead, or is after the year 2200")
        return time


LATEST = datetime(2200, 12, 31, tzinfo=UTC)


class KeyShown(Shown):
    id: str
    name: str
    scopes: list[Scope]
    created_at: Instant
    last_used_at: Instant | None
    expires_at: Instant | None


class NewKeyShown(KeyShown):
    key: str = Field(description="For `Authorization: Bearer`. Shown this once only.")


class KeyList(Shown):
    data: list[KeyShown]
    meta: Meta


class KeyId(Query):
    id: uuid.UUID


class _Key(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None


class ApiKeys:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

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
                handler=self.make,
                summary="Make an API key",
                tag=TAG,
                roles=SIGNED_IN,
                body=NewKey,
                answers={201: NewKeyShown},
                problems=(Code.TOO_MANY_KEYS,),
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
            found = await queries.every(connection, "keys_of", _Key, user_id=call.caller.id)
        return Answer(KeyList(data=list(map(_shown, found)), meta=Meta(limit=MAX_KEYS)))

    async def make(self, call: Call[NewKey, None]) -> Answer:
        token = tokens.make(tokens.API_KEY)
        async with self._pool.connection() as connection:
            made = await queries.one(
                connection,
                "key_add",
                _Key,
                hash=tokens.hashed(token),
                user_id=call.caller.id,
                name=call.body.name,
                scopes=sorted(set(call.body.scopes)),
                expires_at=call.body.expires_at,
                most=MAX_KEYS,
            )
            if made is None:
                raise Problem(Code.TOO_MANY_KEYS)
            await audit.note(connection, call, "made an API key", made.id)
        return Answer(NewKeyShown(**_shown(made).model_dump(), key=token), 201)

    async def revoke(self, call: Call[None, None]) -> Answer:
        id = str(uuid.UUID(call.path["id"]))
        async with self._pool.connection() as connection:
            done = await queries.run(connection, "key_revoke", id=id, user_id=call.caller.id)
            if not done:
                raise Problem(Code.NOT_FOUND)
            # Whoever remembers the key forgets it.
            await store.tell(connection, KEY, id)
            await audit.note(connection, call, "revoked an API key", id)
        return Answer(status=204)


def _shown(key: _Key) -> KeyShown:
    return KeyShown(
        id=key.id,
        name=key.name,
        scopes=[Scope(each) for each in key.scopes],
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
    )
