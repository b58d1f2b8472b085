"""Routes for admins: list users, change their roles, disable them.

Keeps the rules that there is always an admin, and that a change of role, or disabling a user,
revokes the user's access tokens.
"""

from typing import Annotated

from msgspec import Struct
from pydantic import Field

from ingress.audit import entries
from ingress.auth import session_store
from ingress.auth.revocations import KEY, SESSION
from ingress.http.position_tokens import PositionTokens
from ingress.http.problems import Code, FieldError, HttpProblem
from ingress.http.roles import ADMINS, Scope, UserRole
from ingress.http.routes import Answer, Body, Call, Meta, Query, ResponseModel, Route
from ingress.sql import queries
from ingress.users import directory
from ingress.users.directory import User, UserDirectory, UserResponse
from ingress.users.emails import parse_email as read_email
from plumbing.postgres.connection_pool import Pool

TAG = "Users"
DEFAULT_LIMIT, MAX_LIMIT = 20, 100


class UserAdminResponse(UserResponse):
    disabled: bool


class UserList(ResponseModel):
    data: list[UserAdminResponse]
    meta: Meta


class UserQuery(Query):
    email: Annotated[str | None, Field(max_length=320)] = None
    role: UserRole | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    cursor: Annotated[
        str | None, Field(max_length=100, description="The `next_cursor` of the previous page.")
    ] = None


class UserChange(Body):
    role: Annotated[UserRole | None, Field(strict=False)] = None
    disabled: Annotated[
        bool | None,
        Field(description="Whether the user is locked out: sessions and API keys are refused."),
    ] = None


class _UserCount(Struct, frozen=True):
    admins: int


class UserAdminRoutes:
    def __init__(self, pool: Pool, users: UserDirectory, positions: PositionTokens) -> None:
        self._pool = pool
        self._positions = positions
        self._users = users

    def routes(self) -> list[Route]:
        readers = ADMINS | {UserRole.AUDITOR}
        return [
            Route(
                method="GET",
                path="/users",
                handler=self.list,
                summary="All users",
                tag=TAG,
                roles=readers,
                scope=Scope.READ,
                query=UserQuery,
                answers={200: UserList},
            ),
            Route(
                method="GET",
                path="/users/{user}",
                handler=self.show,
                summary="A user",
                description="By integer id or uuid.",
                tag=TAG,
                roles=readers,
                scope=Scope.READ,
                answers={200: UserAdminResponse},
                problems=(Code.NOT_FOUND,),
            ),
            Route(
                method="PATCH",
                path="/users/{user}",
                handler=self.change,
                summary="Change a user's role, or lock a user out",
                description="A change revokes the user's access tokens: they must be refreshed."
                " Disabling a user ends all sessions and API keys, too.",
                tag=TAG,
                roles=ADMINS,
                scope=Scope.USERS,
                body=UserChange,
                answers={200: UserAdminResponse},
                problems=(Code.NOT_FOUND, Code.LAST_ADMIN),
            ),
        ]

    async def list(self, call: Call[None, UserQuery]) -> Answer:
        listing = call.query
        email = None
        if listing.email is not None and (email := read_email(listing.email)) is None:
            error = FieldError(
                field="email", code="email_invalid", detail="is not a valid e-mail address"
            )
            raise HttpProblem(Code.QUERY_INVALID, errors=[error])
        async with self._pool.connection() as connection:
            users = await queries.every(
                connection,
                "users",
                User,
                email=email.lower() if email is not None else None,
                role=listing.role,
                after=self._positions.read_number(listing.cursor, 0),
                limit=listing.limit + 1,
            )
        page = users[: listing.limit]
        next_position = str(page[-1].number) if len(users) > listing.limit else None
        return Answer(
            UserList(
                data=[_admin_response(each) for each in page],
                meta=Meta(
                    limit=listing.limit, next_cursor=self._positions.write_cursor(next_position)
                ),
            )
        )

    async def show(self, call: Call[None, None]) -> Answer:
        return Answer(_admin_response(await self._find_user(call)))

    async def change(self, call: Call[UserChange, None]) -> Answer:
        user = await self._find_user(call)
        change = call.body
        async with self._pool.connection() as connection:
            # One change at a time: two concurrent ones could remove the last two admins.
            await queries.run(connection, "users_lock")
            changed = await queries.one(
                connection,
                "user_change",
                User,
                id=user.id,
                role=change.role,
                disabled=change.disabled,
            )
            if changed is None:
                return Answer(_admin_response(await self._read(connection, user.id)))
            count = await queries.one(connection, "admins", _UserCount)
            assert count is not None, "an aggregate returns a row"
            if count.admins == 0:
                raise HttpProblem(Code.LAST_ADMIN)
            ends = (SESSION, KEY) if changed.disabled else ()
            await session_store.revoke(connection, user.id, *ends)
            await entries.note(
                connection, call, "changed a user", user.id, detail=change.model_dump(mode="json")
            )
        self._users.forget()
        return Answer(_admin_response(changed))

    async def _find_user(self, call: Call[UserChange, None] | Call[None, None]) -> User:
        user = await self._users.by_reference(call.path["user"])
        if user is None:
            raise HttpProblem(Code.NOT_FOUND)
        # The cached user may be slightly stale.
        async with self._pool.connection() as connection:
            return await self._read(connection, user.id)

    async def _read(self, connection: queries.Connection, id: str) -> User:
        user = await queries.one(connection, "user_by_id", User, id=id)
        assert user is not None, "users are never deleted"
        return user


def _admin_response(user: User) -> UserAdminResponse:
    return UserAdminResponse(**directory.user_response(user).model_dump(), disabled=user.disabled)
