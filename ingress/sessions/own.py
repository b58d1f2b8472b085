"""What people see and change of themselves: who they are, where they are signed in, their password.

Another's session is as one that is not there.
"""

import uuid
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ingress import audit, people, queries
from ingress.people import People, UserShown
from ingress.problems import Code, Problem
from ingress.roles import SIGNED_IN, Scope
from ingress.routes import Answer, Body, Call, Instant, Meta, Query, Route, Shown
from ingress.sessions import store
from ingress.sessions.attempts import Attempts
from ingress.sessions.passwords import MAX_LENGTH, Passwords
from ingress.sessions.registration import NewPassword
from ingress.sessions.signing_in import TAG
from plumbing.postgres import Pool


class PasswordChange(Body):
    current_password: Annotated[str, Field(max_length=MAX_LENGTH)]
    password: NewPassword
    password_confirmation: Annotated[str | None, Field(max_length=MAX_LENGTH)] = None

    @field_validator("password_confirmation")
    @classmethod
    def _confirms(cls, again: str | None, others: ValidationInfo) -> str | None:
        if again is not None and "password" in others.data and again != others.data["password"]:
            raise PydanticCustomError("not_the_same", "is not the password")
        return again


class SessionShown(Shown):
    id: str
    current: bool = Field(description="Whether it is the one that asks.")
    created_at: Instant
    last_used_at: Instant | None
    expires_at: Instant
    user_agent: str
    address: str | None


class SessionList(Shown):
    data: list[SessionShown]
    meta: Meta


class SessionId(Query):
    id: uuid.UUID


class Own:
    def __init__(
        self, pool: Pool, passwords: Passwords, attempts: Attempts, people: People
    ) -> None:
        self._pool = pool
        self._passwords = passwords
        self._attempts = attempts
        self._people = people

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/me",
                handler=self.me,
                summary="Who you are",
                tag=TAG,
                roles=SIGNED_IN,
                scope=Scope.READ,
                answers={200: UserShown},
            ),
            Route(
                method="POST",
                path="/auth/password",
                handler=self.change_password,
                summary="Change the password",
                description="Ends all other sessions.",
                tag=TAG,
                roles=SIGNED_IN,
                body=PasswordChange,
                answers={204: None},
                problems=(Code.CREDENTIALS_WRONG, Code.TOO_MANY_ATTEMPTS, Code.BUSY),
            ),
            Route(
                method="GET",
                path="/sessions",
                handler=self.sessions,
                summary="Where you are signed in",
                tag=TAG,
                roles=SIGNED_IN,
                answers={200: SessionList},
            ),
            Route(
                method="DELETE",
                path="/sessions/{id}",
                handler=self.end,
                summary="End a session",
                tag=TAG,
                roles=SIGNED_IN,
                params=SessionId,
                answers={204: None},
                problems=(Code.NOT_FOUND,),
            ),
        ]

    async def me(self, call: Call[None, None]) -> Answer:
        user = await self._people.by_id(call.caller.id)
        assert user is not None, "who asks is somebody"
        return Answer(people.shown(user))

    async def sessions(self, call: Call[None, None]) -> Answer:
        async with self._pool.connection() as connection:
            found = await store.of(connection, call.caller.id)
        shown = [
            SessionShown(
                id=each.id,
                current=each.id == call.caller.session_id,
                created_at=each.created_at,
                last_used_at=each.last_used_at,
                expires_at=each.expires_at,
                user_agent=each.user_agent,
                address=each.address,
            )
            for each in found
        ]
        return Answer(SessionList(data=shown, meta=Meta(limit=len(shown))))

    async def end(self, call: Call[None, None]) -> Answer:
        asked = str(uuid.UUID(call.path["id"]))
        async with self._pool.connection() as connection:
            mine = {each.id for each in await store.of(connection, call.caller.id)}
            if asked not in mine:
                raise Problem(Code.NOT_FOUND)
            await store.end(connection, [asked])
            await audit.note(connection, call, "ended a session", asked)
        return Answer(status=204)

    async def change_password(self, call: Call[PasswordChange, None]) -> Answer:
        # Who holds a session, perhaps a stolen one, may not guess at will either.
        counts = self._attempts.of_the_signed_in(call.caller.id)
        async with self._pool.connection() as connection:
            found = await queries.one(
                connection, "password_of", store.PasswordOf, id=call.caller.id
            )
            await self._attempts.check(connection, counts)
        hashed = found.password_hash if found is not None else None
        if not await self._passwords.check(call.body.current_password, hashed):
            async with self._pool.connection() as connection:
                await self._attempts.failed(connection, counts)
            raise Problem(Code.CREDENTIALS_WRONG)
        new = await self._passwords.hash(call.body.password)
        async with self._pool.connection() as connection:
            await self._attempts.succeeded(connection, counts)
            # Of two changes at once the second finds its current password gone.
            done = await queries.run(
                connection, "password_rehash", id=call.caller.id, old=hashed, new=new
            )
            if not done:
                raise Problem(Code.CREDENTIALS_WRONG)
            await store.end_all(connection, call.caller.id, but=call.caller.session_id)
            await audit.note(connection, call, "changed the password", call.caller.id)
        return Answer(status=204)
