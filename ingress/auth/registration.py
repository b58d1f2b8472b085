"""Registration: a user, a wallet and the command that opens it, in one Postgres transaction.

First the registration is counted against the limit of its network address. Then, in this order:
1. hash the password;
2. write user, wallet, outbox row and session;
3. commit.
Afterwards the relay sends the command, and the response waits a short time for the wallet to open.
A crash before 3 leaves nothing. A crash after 3 leaves everything, and the user can sign in.
"""

import uuid
from typing import Annotated, Any

import psycopg
from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ingress.audit import entries
from ingress.auth import client_secrets, demo_users, session_store
from ingress.auth.login_throttle import LoginThrottle
from ingress.auth.passwords import MAX_LENGTH, MIN_LENGTH, Passwords
from ingress.auth.sign_in import TAG, SignedInResponse, SignIn
from ingress.http.client_address import address_of
from ingress.http.problems import Code, HttpProblem
from ingress.http.request_headers import WaitHeaders, wait_s
from ingress.http.roles import PUBLIC, UserRole
from ingress.http.routes import Answer, Body, Call, Route
from ingress.settings import IngressSettings
from ingress.sql import queries
from ingress.users.directory import User
from ingress.users.emails import Email
from ingress.wallets.directory import WalletDirectory, add_wallet
from plumbing.postgres.connection_pool import Pool
from plumbing.worker.crash_points import CrashPoints

Name = Annotated[str, Field(min_length=1, max_length=100)]
NewPassword = Annotated[
    str,
    Field(min_length=MIN_LENGTH, max_length=MAX_LENGTH, json_schema_extra={"format": "password"}),
]


def _equals_password(confirmation: str | None, others: ValidationInfo) -> str | None:
    if confirmation is not None and confirmation != others.data.get("password", confirmation):
        raise PydanticCustomError("not_the_same", "differs from password")
    return confirmation


# Of the field `password` of the same body.
PasswordConfirmation = Annotated[
    str | None, Field(max_length=MAX_LENGTH), AfterValidator(_equals_password)
]


class Register(Body):
    first_name: Name | None = None
    last_name: Annotated[str, Field(max_length=100)] | None = None
    name: Annotated[
        Name | None,
        Field(
            validate_default=True,
            description="Instead of first_name and last_name; split at the first space.",
        ),
    ] = None
    email: Annotated[Email, Field(examples=["ada@example.com"])]
    password: NewPassword
    password_confirmation: Annotated[
        PasswordConfirmation, Field(description="If given, must equal password.")
    ] = None

    @field_validator("name")
    @classmethod
    def _one_name(cls, name: str | None, others: ValidationInfo) -> str | None:
        if "first_name" in others.data and (name is None) == (others.data["first_name"] is None):
            raise PydanticCustomError("name_required", "either first_name or name is required")
        return name

    @property
    def names(self) -> tuple[str, str]:
        if self.name is None:
            return self.first_name or "", self.last_name or ""
        first, _, last = self.name.strip().partition(" ")
        return first, last.strip()


class Registration:
    def __init__(
        self,
        settings: IngressSettings,
        pool: Pool,
        passwords: Passwords,
        attempts: LoginThrottle,
        wallets: WalletDirectory,
        sign_in: SignIn,
        crash: CrashPoints,
    ) -> None:
        self._is_open = settings.registration_open
        self._refuses_demo = demo_users.others_reach(settings)
        self._currency = settings.default_currency
        self._session_ttl_s = settings.session_ttl_s
        self._max_sessions = settings.sessions_per_user
        self._pool = pool
        self._passwords = passwords
        self._attempts = attempts
        self._wallets = wallets
        self._sign_in = sign_in
        self._crash = crash

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path=path,
                handler=self.register,
                summary="Register",
                description="Creates a user and a first wallet, and signs in. The wallet is open by"
                " then or soon after; requests that use it wait until it is.",
                tag=TAG,
                roles=PUBLIC,
                body=Register,
                headers=WaitHeaders,
                answers={201: SignedInResponse},
                problems=(
                    Code.REGISTRATION_CLOSED,
                    Code.TOO_MANY_REGISTRATIONS,
                    Code.EMAIL_TAKEN,
                    Code.TOO_MANY_WAITS,
                    Code.BUSY,
                ),
            )
            for path in ("/register", "/auth/signup")
        ]

    async def register(self, call: Call[Register, None]) -> Answer:
        if not self._is_open:
            raise HttpProblem(Code.REGISTRATION_CLOSED)
        new_user = call.body
        first, last = new_user.names
        if self._refuses_demo:
            demo_users.check_new_email(new_user.email)
            demo_users.check_new_password(new_user.password)
        # Take a place in the queue first, so that a full queue costs Postgres nothing.
        address = address_of(call.request)
        with self._passwords.place([self._attempts.network_key(address)]):
            async with self._pool.connection() as connection:
                await self._attempts.count_registration(connection, address)
            hashed = await self._passwords.hash_without_place(new_user.password)
        self._crash.reach("register.1-hashed")
        async with self._pool.connection() as connection:
            user = await add_user(connection, new_user.email, first, last, hashed, UserRole.USER)
            wallet = await add_wallet(
                connection, user.id, self._currency, is_default=True, trace=call.trace
            )
            session = await session_store.begin(
                connection,
                call.request,
                user.id,
                hashed,
                client_secrets.REFRESH,
                self._session_ttl_s,
                self._max_sessions,
            )
            assert session is not None, "the user was inserted with this hash"
            await entries.note(connection, call, "registered", user.id, user_id=user.id)
            self._crash.reach("register.2-written")
        self._crash.reach("register.3-committed")
        self._wallets.nudge()
        await self._wallets.is_open(wallet.id, wait_s(call.request))
        return Answer(await self._sign_in.signed_in(session), 201)


async def add_user(
    connection: queries.Connection,
    email: str,
    first_name: str,
    last_name: str,
    password_hash: str | None,
    role: UserRole,
) -> User:
    """Raises an HttpProblem if the address is taken."""
    row: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "email": email,
        "first_name": first_name,
        "last_name": last_name,
        "password_hash": password_hash,
        "role": role.value,
    }
    try:
        user = await queries.one(connection, "user_add", User, **row)
    except psycopg.errors.UniqueViolation:
        raise HttpProblem(Code.EMAIL_TAKEN) from None
    assert user is not None, "INSERT returns the row"
    return user
