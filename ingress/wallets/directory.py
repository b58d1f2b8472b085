"""The directory of wallets, which opens them and looks them up.

A wallet and the outbox row that opens it are written in one Postgres transaction. The wallet is
open when the read model has its account. Keeps the rule that no command for a wallet is sent before
it is open: earlier requests wait, and must be repeated if that takes too long. A wallet never
changes, so it is cached.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ingress.audit import entries
from ingress.http.problems import Code, HttpProblem
from ingress.sql import queries
from ingress.users import directory, emails
from plumbing.postgres.connection_pool import Pool
from schemas import commands
from schemas.commands import OpenAccount
from sinks.reads import accounts

MAX_CACHED_WALLETS: Final = 100_000
POLL_S: Final = 0.01
MAX_POLL_S: Final = 0.1
RETRY_AFTER_S: Final = "1"
# The idempotency key of the command that opens a wallet: each account has its own key space.
OPENING_KEY: Final = "open"
# For each user, because lists of wallets are not paged.
MAX_WALLETS: Final = 100


class Wallet(Struct, frozen=True, kw_only=True):
    id: str
    user_id: str
    currency: str
    is_default: bool
    created_at: datetime


class WalletDirectory:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._wallets: dict[str, Wallet] = {}
        self._defaults: dict[str, Wallet] = {}
        self._receiving: dict[tuple[str | int | None, str | None, str], Wallet] = {}
        self._open: set[str] = set()
        self.nudge: Callable[[], None] = lambda: None  # wakes the relay

    async def wallet(self, id: str) -> Wallet | None:
        return self._wallets.get(id) or await self._find("wallet", id=id)

    async def default(self, user_id: str) -> Wallet | None:
        """Returns None for a user without wallets, such as an admin from the command line."""
        return self._defaults.get(user_id) or await self._find("wallet_default", user_id=user_id)

    async def receiving(
        self, currency: str, *, reference: str | int | None = None, email: str | None = None
    ) -> Wallet | None:
        """The wallet that receives money for a user: one of the currency, or else the default one.
        Returns None for an unknown user and, after the same work, for staff without wallets."""
        user_reference = None if reference is None else directory.parse_reference(reference)
        address = None if email is None else emails.parse_email(email)
        receiver = (user_reference, None if address is None else address.lower())
        if receiver == (None, None):
            return None
        wallet = self._receiving.get((*receiver, currency))
        if wallet is not None:
            return wallet
        async with self._pool.connection() as connection:
            wallet = await queries.one(
                connection,
                "wallet_receiving",
                Wallet,
                id=user_reference if isinstance(user_reference, str) else None,
                number=user_reference if isinstance(user_reference, int) else None,
                email=receiver[1],
                currency=currency,
            )
        # Do not cache a wallet of another currency: one of this currency may be opened.
        if wallet is not None and wallet.currency == currency:
            self._remember(wallet)
            self._receiving[*receiver, currency] = wallet
        return wallet

    async def list_for_user(self, user_id: str) -> list[Wallet]:
        """The default one first."""
        async with self._pool.connection() as connection:
            return await queries.every(connection, "wallets", Wallet, user_id=user_id)

    async def open(
        self,
        user_id: str,
        currency: str,
        trace: str | None = None,
        event: entries.Event | None = None,
    ) -> Wallet:
        """Writes a wallet, its outbox row and `event`; the relay sends the command. A user's first
        wallet is the default one. Raises an HttpProblem if the user has too many."""
        async with self._pool.connection() as connection, connection.transaction():
            # Concurrent requests of a user must not pass the limit or open two default wallets.
            await queries.run(connection, "user_lock", id=user_id)
            existing = await queries.every(connection, "wallets", Wallet, user_id=user_id)
            if len(existing) >= MAX_WALLETS:
                raise HttpProblem(Code.TOO_MANY_WALLETS)
            wallet = await add_wallet(
                connection, user_id, currency, is_default=not existing, trace=trace
            )
            if event is not None:
                await entries.add(connection, [replace(event, subject=wallet.id)])
        self.nudge()
        return wallet

    async def is_open(self, id: str, wait_s: float) -> bool:
        """Whether the read model has the wallet's account, now or within `wait_s`."""
        if id in self._open:
            return True
        deadline = time.monotonic() + wait_s
        pause_s = POLL_S
        while not await self._has_account(id):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            await asyncio.sleep(min(pause_s, left_s))
            pause_s = min(1.5 * pause_s, MAX_POLL_S)
        self._open.add(id)
        return True

    async def require_open(self, wallet: Wallet, wait_s: float) -> None:
        if wallet.id not in self._open and not await self.is_open(wallet.id, wait_s):
            raise HttpProblem(Code.WALLET_OPENING, headers={"Retry-After": RETRY_AFTER_S})

    async def _has_account(self, id: str) -> bool:
        async with self._pool.connection() as connection:
            return await accounts.balance(connection, id) is not None

    async def _find(self, query: str, **parameters: str) -> Wallet | None:
        async with self._pool.connection() as connection:
            wallet = await queries.one(connection, query, Wallet, **parameters)
        if wallet is not None:
            self._remember(wallet)
        return wallet

    def _remember(self, wallet: Wallet) -> None:
        if len(self._wallets) >= MAX_CACHED_WALLETS:
            self._wallets.clear()
            self._defaults.clear()
            self._receiving.clear()
            self._open.clear()
        self._wallets[wallet.id] = wallet
        if wallet.is_default:
            self._defaults[wallet.user_id] = wallet


async def add_wallet(
    connection: queries.Connection,
    user_id: str,
    currency: str,
    *,
    is_default: bool,
    trace: str | None,
) -> Wallet:
    """Writes a wallet and the outbox row that opens it, in the caller's transaction. Nudge the
    relay after the commit."""
    id = str(uuid.uuid4())
    command = OpenAccount(
        account=id,
        type="wallet",
        currency=currency,
        owner=user_id,
        idempotency_key=OPENING_KEY,
        actor=user_id,
        trace=trace,
        wallets_only=True,
    )
    wallet = await queries.one(
        connection,
        "wallet_add",
        Wallet,
        id=id,
        user_id=user_id,
        currency=currency,
        is_default=is_default,
        transaction_id=commands.transaction_id(command),
        command=msgspec.json.encode(command).decode(),
    )
    assert wallet is not None, "INSERT returns the row"
    return wallet
