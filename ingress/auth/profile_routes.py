"""Routes for users about themselves: their profile, their sessions, their password.

Keeps the rule that another user's session is reported as missing.
"""

import uuid
from typing import Annotated

from pydantic import Field

from ingress.audit import entries
from ingress.auth import demo_users, session_store
from ingress.auth.current_password import CurrentPassword
from ingress.auth.login_throttle import LoginThrottle
from ingress.auth.passwords import MAX_LENGTH, Passwords
from ingress.auth.registration import NewPassword, PasswordConfirmation
from ingress.auth.revocations import KEY, SESSION
from ingress.auth.sign_in import PASSWORD_PROBLEMS, TAG
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import SIGNED_IN, Scope
from ingress.http.routes import Answer, Body, Call, Instant, Meta, Query, ResponseModel, Route
from ingress.settings import IngressSettings
from ingress.sql import queries
from ingress.users import directory
from ingress.users.directory import UserDirectory, UserResponse
from plumbing.postgres.connection_pool import Pool


class PasswordChange(Body):
    current_password: Annotated[str, Field(max_length=MAX_LENGTH)]
    password: NewPassword
    password_confirmation: PasswordConfirmation = None
    end_api_keys: Annotated[
        bool, Field(description="Whether all API keys end, like the other sessions.")
    ] = False


class SessionResponse(ResponseModel):
    id: str
    current: bool = Field(description="Whether it is the session of this request.")
    created_at: Instant
    last_used_at: Instant | None
    expires_at: Instant
    user_agent: str
    address: str | None


class SessionList(ResponseModel):
    data: list[SessionResponse]
    meta: Meta


class SessionId(Query):
    id: uuid.UUID


class ProfileRoutes:
    def __init__(
        self,
        settings: IngressSettings,
        pool: Pool,
        passwords: Passwords,
        attempts: LoginThrottle,
        users: UserDirectory,
    ) -> None:
        self._refuses_demo = demo_users.others_reach(settings)
        self._pool = pool
        self._passwords = passwords
        self._current_password = CurrentPassword(pool, passwords, attempts)
        self._users = users

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/me",
                handler=self.me,
                summary="Your user",
                tag=TAG,
                roles=SIGNED_IN,
                scope=Scope.READ,
                answers={200: UserResponse},
            ),
            Route(
                method="POST",
                path="/auth/password",
                handler=self.change_password,
                summary="Change the password",
                description="Ends all other sessions and, with `end_api_keys`, all API keys.",
                tag=TAG,
                roles=SIGNED_IN,
                body=PasswordChange,
                answers={204: None},
                problems=PASSWORD_PROBLEMS,
            ),
            Route(
                method="GET",
                path="/sessions",
                handler=self.sessions,
                summary="Your sessions",
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
        user = await self._users.by_id(call.caller.id)
        assert user is not None, "the caller is a user"
        return Answer(directory.user_response(user))

    async def sessions(self, call: Call[None, None]) -> Answer:
        async with self._pool.connection() as connection:
            sessions = await session_store.list_sessions(connection, call.caller.id)
        return Answer(session_list(sessions, call.caller.session_id))

    async def end(self, call: Call[None, None]) -> Answer:
        session_id = str(uuid.UUID(call.path["id"]))
        async with self._pool.connection() as connection:
            if not await session_store.end(connection, call.caller.id, SESSION, only=session_id):
                raise HttpProblem(Code.NOT_FOUND)
            await entries.note(connection, call, "ended a session", session_id)
        return Answer(status=204)

    async def change_password(self, call: Call[PasswordChange, None]) -> Answer:
        if self._refuses_demo:
            demo_users.check_new_password(call.body.password)
        verified = await self._current_password.verify(call, call.body.current_password)
        new = await self._passwords.hash(call.body.password, self._current_password.clients(call))
        async with self._pool.connection() as connection:
            done = await queries.run(
                connection, "password_change", id=call.caller.id, old=verified, new=new
            )
            if not done:
                raise HttpProblem(Code.CREDENTIALS_WRONG)
            await self._current_password.succeeded(connection, call.caller.id)
            await session_store.end(connection, call.caller.id, SESSION, but=call.caller.session_id)
            if call.body.end_api_keys:
                await session_store.end(connection, call.caller.id, KEY)
            await entries.note(
                connection,
                call,
                "changed the password",
                call.caller.id,
                detail={"end_api_keys": call.body.end_api_keys},
            )
        return Answer(status=204)


def session_list(sessions: list[session_store.Session], current: str | None) -> SessionList:
    """`current` is the session of the caller."""
    responses = [
        SessionResponse(
            id=each.id,
            current=each.id == current,
            created_at=each.created_at,
            last_used_at=each.last_used_at,
            expires_at=each.expires_at,
            user_agent=each.user_agent,
            address=each.address,
        )
        for each in sessions
    ]
    return SessionList(data=responses, meta=Meta(limit=len(responses)))
