"""Routes for admins: list and end the sessions and API keys of other users.

Ending all sessions of a user also revokes the user's access tokens.
"""

import uuid
from typing import Any

from ingress.admin.user_routes import TAG
from ingress.audit import entries
from ingress.auth import profile_routes, session_store
from ingress.auth.api_keys import KeyList, key_list
from ingress.auth.profile_routes import SessionList
from ingress.auth.revocations import KEY, SESSION
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import ADMINS, Scope
from ingress.http.routes import Answer, Call, Query, Route
from ingress.sql import queries
from ingress.users.directory import User, UserDirectory
from plumbing.postgres.connection_pool import Pool


class UserAndId(Query):
    user: str
    id: uuid.UUID


class SessionAdminRoutes:
    def __init__(self, pool: Pool, users: UserDirectory) -> None:
        self._pool = pool
        self._users = users

    def routes(self) -> list[Route]:
        common: dict[str, Any] = {
            "tag": TAG,
            "roles": ADMINS,
            "scope": Scope.USERS,
            "problems": (Code.NOT_FOUND,),
        }
        return [
            Route(
                method="GET",
                path="/users/{user}/sessions",
                handler=self.sessions,
                summary="A user's sessions",
                answers={200: SessionList},
                **common,
            ),
            Route(
                method="DELETE",
                path="/users/{user}/sessions",
                handler=self.end_sessions,
                summary="End all sessions of a user",
                description="Also revokes the access tokens. API keys stay valid.",
                answers={204: None},
                **common,
            ),
            Route(
                method="DELETE",
                path="/users/{user}/sessions/{id}",
                handler=self.end_session,
                summary="End a session of a user",
                params=UserAndId,
                answers={204: None},
                **common,
            ),
            Route(
                method="GET",
                path="/users/{user}/api-keys",
                handler=self.keys,
                summary="A user's API keys",
                answers={200: KeyList},
                **common,
            ),
            Route(
                method="DELETE",
                path="/users/{user}/api-keys",
                handler=self.revoke_keys,
                summary="Revoke all API keys of a user",
                answers={204: None},
                **common,
            ),
            Route(
                method="DELETE",
                path="/users/{user}/api-keys/{id}",
                handler=self.revoke_key,
                summary="Revoke an API key of a user",
                params=UserAndId,
                answers={204: None},
                **common,
            ),
        ]

    async def sessions(self, call: Call[None, None]) -> Answer:
        user = await self._user(call)
        async with self._pool.connection() as connection:
            sessions = await session_store.list_sessions(connection, user.id)
        return Answer(profile_routes.session_list(sessions, call.caller.session_id))

    async def keys(self, call: Call[None, None]) -> Answer:
        user = await self._user(call)
        async with self._pool.connection() as connection:
            return Answer(await key_list(connection, user.id))

    async def end_sessions(self, call: Call[None, None]) -> Answer:
        user = await self._user(call)
        async with self._pool.connection() as connection:
            # A concurrent sign-in either commits before this lock or starts after this commit.
            await queries.run(connection, "user_lock", id=user.id)
            await session_store.revoke(connection, user.id, SESSION)
            await entries.note(connection, call, "ended all sessions of a user", user.id)
        return Answer(status=204)

    async def revoke_keys(self, call: Call[None, None]) -> Answer:
        user = await self._user(call)
        async with self._pool.connection() as connection:
            await queries.run(connection, "user_lock", id=user.id)
            await session_store.end(connection, user.id, KEY)
            await entries.note(connection, call, "revoked all API keys of a user", user.id)
        return Answer(status=204)

    async def end_session(self, call: Call[None, None]) -> Answer:
        return await self._end_one(call, SESSION, "ended a session of a user")

    async def revoke_key(self, call: Call[None, None]) -> Answer:
        return await self._end_one(call, KEY, "revoked an API key of a user")

    async def _end_one(self, call: Call[None, None], kind: str, action: str) -> Answer:
        user = await self._user(call)
        id = str(uuid.UUID(call.path["id"]))
        async with self._pool.connection() as connection:
            if not await session_store.end(connection, user.id, kind, only=id):
                raise HttpProblem(Code.NOT_FOUND)
            await entries.note(connection, call, action, user.id, detail={kind: id})
        return Answer(status=204)

    async def _user(self, call: Call[None, None]) -> User:
        user = await self._users.by_reference(call.path["user"])
        if user is None:
            raise HttpProblem(Code.NOT_FOUND)
        return user
