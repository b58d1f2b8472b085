"""Routes that sign in, by password, for tokens or a browser cookie, refresh tokens, and sign out.

Keeps the rule that a response never distinguishes an unknown address from a wrong password: same
text, same work, same counting. It does not know what a session may be used for.
"""

from typing import Annotated

from aiohttp import web
from msgspec import Struct
from pydantic import Field

from ingress.audit import entries
from ingress.auth import client_secrets, cookies, demo_users, session_store
from ingress.auth.access_tokens import AccessTokens
from ingress.auth.login_throttle import LoginThrottle
from ingress.auth.passwords import MAX_LENGTH, Passwords
from ingress.auth.revocations import SESSION
from ingress.auth.signing_keys import SigningKeys
from ingress.http import request_headers
from ingress.http.client_address import address_of, network_of
from ingress.http.problems import Code, HttpProblem
from ingress.http.request_headers import KEY_HEADER
from ingress.http.roles import PUBLIC, SIGNED_IN, UserRole
from ingress.http.routes import Answer, Body, Call, Caller, Query, ResponseModel, Route
from ingress.http.server import response
from ingress.settings import IngressSettings
from ingress.sql import queries
from ingress.users import directory, emails
from ingress.users.directory import User, UserDirectory, UserResponse
from ingress.wallets import wallet_view
from ingress.wallets.directory import WalletDirectory
from ingress.wallets.wallet_view import WalletResponse
from plumbing.postgres.connection_pool import Pool

TAG = "Sessions"
# The problems of every route that checks a password.
PASSWORD_PROBLEMS = (
    Code.CREDENTIALS_WRONG,
    Code.TOO_MANY_ATTEMPTS,
    Code.TOO_MANY_WAITS,
    Code.BUSY,
)
# A concurrent sign-in may rehash the password between its check and the new session.
TRIES = 3


class Login(Body):
    email: Annotated[str, Field(max_length=320, examples=["ada@example.com"])]
    password: Annotated[str, Field(max_length=MAX_LENGTH, json_schema_extra={"format": "password"})]


class Refresh(Body):
    refresh_token: Annotated[str, Field(max_length=100)]


class RefreshHeaders(Query):
    idempotency_key: str | None = Field(
        default=None,
        alias=KEY_HEADER,
        description="A random text chosen by the client. A repeated request sends the same one."
        " Without it, a lost response cannot be repeated.",
    )


class TokensResponse(ResponseModel):
    access_token: str
    token_type: str = "Bearer"
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str = Field(description="To be used once, with `/auth/refresh`.")


class SignedInResponse(TokensResponse):
    user: UserResponse
    wallet: WalletResponse | None = Field(description="The default wallet.")
    token: str = Field(description="The same as `access_token`.")


class BrowserResponse(ResponseModel):
    user: UserResponse
    wallet: WalletResponse | None
    csrf_token: str = Field(
        description=f"For the header `{request_headers.CSRF_HEADER}` of requests that change"
        " something."
    )
    expires_in: int


class Credentials(Struct, frozen=True):
    id: str
    password_hash: str | None
    disabled: bool
    role: str
    known_network: bool  # has signed in from this network before


class SignIn:
    def __init__(
        self,
        settings: IngressSettings,
        pool: Pool,
        keys: SigningKeys,
        access: AccessTokens,
        passwords: Passwords,
        attempts: LoginThrottle,
        users: UserDirectory,
        wallets: WalletDirectory,
    ) -> None:
        self._session_ttl_s = settings.session_ttl_s
        self._cookie_ttl_s = settings.cookie_ttl_s
        self._max_sessions = settings.sessions_per_user
        self._refuses_demo = demo_users.others_reach(settings)
        self._pool = pool
        self._keys = keys
        self._access = access
        self._passwords = passwords
        self._attempts = attempts
        self._users = users
        self._wallets = wallets

    def routes(self) -> list[Route]:
        return [
            *(
                Route(
                    method="POST",
                    path=path,
                    handler=self.login,
                    summary="Sign in",
                    tag=TAG,
                    roles=PUBLIC,
                    body=Login,
                    answers={200: SignedInResponse},
                    problems=PASSWORD_PROBLEMS,
                )
                for path in ("/login", "/auth/login")
            ),
            Route(
                method="POST",
                path="/auth/cookie",
                handler=self.login_by_cookie,
                summary="Sign in a browser",
                description="Sets a cookie that scripts cannot read. Requests that change something"
                f" also need the header `{request_headers.CSRF_HEADER}`.",
                tag=TAG,
                roles=PUBLIC,
                body=Login,
                answers={200: BrowserResponse},
                problems=PASSWORD_PROBLEMS,
            ),
            Route(
                method="GET",
                path="/auth/cookie",
                handler=self.browser,
                summary="The user of this browser",
                tag=TAG,
                roles=SIGNED_IN,
                answers={200: BrowserResponse},
                problems=(Code.NOT_FOUND,),
            ),
            Route(
                method="POST",
                path="/auth/refresh",
                handler=self.refresh,
                summary="Refresh the tokens",
                description="A refresh token is used once. Used again, it ends its session. If the"
                f" answer was lost, repeat the request within 10 s with the same `{KEY_HEADER}`,"
                " network address and `User-Agent`: the answer has the same refresh token.",
                tag=TAG,
                roles=PUBLIC,
                body=Refresh,
                headers=RefreshHeaders,
                answers={200: TokensResponse},
                problems=(Code.REFRESH_INVALID,),
            ),
            *(
                Route(
                    method="POST",
                    path=path,
                    handler=self.logout,
                    summary="Sign out",
                    description="Ends this session. Its tokens become invalid.",
                    tag=TAG,
                    roles=SIGNED_IN,
                    answers={204: None},
                )
                for path in ("/logout", "/auth/logout")
            ),
        ]

    async def login(self, call: Call[Login, None]) -> Answer:
        session = await self._begin(call, client_secrets.REFRESH, self._session_ttl_s)
        return Answer(await self.signed_in(session))

    async def login_by_cookie(self, call: Call[Login, None]) -> web.Response:
        session = await self._begin(call, client_secrets.COOKIE, self._cookie_ttl_s)
        browser_response = await self._browser(session.user, session.id)
        http_response = response(Answer(browser_response))
        cookies.set_session(http_response, session.token, self._cookie_ttl_s)
        return http_response

    async def browser(self, call: Call[None, None]) -> Answer:
        caller = call.caller
        if not caller.by_cookie or caller.session_id is None:
            raise HttpProblem(Code.NOT_FOUND, "You are not signed in by cookie.")
        user = await self._users.by_id(caller.id)
        assert user is not None, "every session belongs to a user"
        return Answer(await self._browser(user, caller.session_id))

    async def refresh(self, call: Call[Refresh, None]) -> Answer:
        async with self._pool.connection() as connection:
            refreshed = await session_store.refresh(
                connection, call.request, call.body.refresh_token, self._session_ttl_s
            )
        if refreshed is None:
            raise HttpProblem(Code.REFRESH_INVALID)
        session, token = refreshed
        caller = Caller(session.id, session.number, UserRole(session.role), session.session_id)
        return Answer(
            TokensResponse(
                access_token=self._access.make(caller, session.token_counter),
                expires_in=self._access.ttl_s,
                refresh_token=token,
            )
        )

    async def logout(self, call: Call[None, None]) -> web.Response:
        assert call.caller.session_id is not None, "API keys have no scope for this route"
        async with self._pool.connection() as connection:
            await session_store.end(
                connection, call.caller.id, SESSION, only=call.caller.session_id
            )
            await entries.note(connection, call, "signed out", call.caller.session_id)
        http_response = web.Response(status=204)
        if call.caller.by_cookie:
            cookies.end_session(http_response)
        return http_response

    async def signed_in(self, session: session_store.NewSession) -> SignedInResponse:
        user = session.user
        caller = Caller(user.id, user.number, UserRole(user.role), session.id)
        access = self._access.make(caller, session.counter)
        return SignedInResponse(
            user=directory.user_response(user),
            wallet=await self._wallet(user),
            access_token=access,
            token=access,
            expires_in=self._access.ttl_s,
            refresh_token=session.token,
        )

    async def _begin(
        self, call: Call[Login, None], kind: str, ttl_s: int
    ) -> session_store.NewSession:
        """Checks the password and creates a session."""
        for _ in range(TRIES):
            session = await self._try(call, kind, ttl_s)
            if session is not None:
                return session
        raise HttpProblem(Code.CREDENTIALS_WRONG)

    async def _try(
        self, call: Call[Login, None], kind: str, ttl_s: int
    ) -> session_store.NewSession | None:
        """Returns None if the password changed after it was verified."""
        email = emails.parse_email(call.body.email)
        address = address_of(call.request)
        user = None
        async with self._pool.connection() as connection:
            if email is not None:
                network = network_of(address)
                user = await queries.one(
                    connection, "credentials", Credentials, email=email.lower(), network=network
                )
            known_network = user is not None and user.known_network
            counts = self._attempts.counts_for_sign_in(
                email or call.body.email, address, known_network
            )
            try:
                await self._attempts.check(connection, counts)
            except HttpProblem as problem:
                problem.subject = user.id if user is not None else None
                raise
        hashed = user.password_hash if user is not None else None
        clients = [count.key for count in counts]
        fits = await self._passwords.check(call.body.password, hashed, clients)
        if self._refuses_demo and demo_users.is_known(email or "", call.body.password):
            fits = False
        if not fits or user is None or user.disabled or hashed is None:
            async with self._pool.connection() as connection:
                await self._attempts.failed(connection, counts)
            raise HttpProblem(
                Code.CREDENTIALS_WRONG,
                subject=user.id if user is not None else None,
                subject_role=UserRole(user.role) if user is not None else None,
            )
        async with self._pool.connection() as connection:
            session = await session_store.begin(
                connection, call.request, user.id, hashed, kind, ttl_s, self._max_sessions
            )
            if session is None:
                return None
            await self._attempts.succeeded(connection, counts)
            await entries.note(connection, call, "signed in", session.id, user_id=user.id)
        if self._passwords.needs_rehash(hashed):
            await self._hash_again(user.id, hashed, call.body.password)
        return session

    async def _hash_again(self, user_id: str, old: str, password: str) -> None:
        new = await self._passwords.hash_without_place(password)
        async with self._pool.connection() as connection:
            await queries.run(connection, "password_rehash", id=user_id, old=old, new=new)

    async def _browser(self, user: User, session_id: str) -> BrowserResponse:
        return BrowserResponse(
            user=directory.user_response(user),
            wallet=await self._wallet(user),
            csrf_token=cookies.csrf_token(self._keys, session_id),
            expires_in=self._cookie_ttl_s,
        )

    async def _wallet(self, user: User) -> WalletResponse | None:
        wallet = await self._wallets.default(user.id)
        if wallet is None:
            return None
        async with self._pool.connection() as connection:
            return await wallet_view.read(connection, wallet, user)
