"""The one directory of accounts, in front of users, wallets and the books.

It caches what never changes about an account, so that a request for money needs no database query.
Keeps the rule that an account of somebody else looks like a missing one. It knows no balances.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from ingress.http.problems import FieldError, HttpProblem
from ingress.http.roles import READERS, UserRole
from ingress.http.routes import Caller
from ingress.sql import queries
from ingress.users.directory import UserDirectory
from ingress.wallets.directory import Wallet, WalletDirectory
from plumbing.postgres.connection_pool import Pool
from schemas import ids
from schemas.field_types import AccountType
from schemas.reasons import Reason
from sinks.reads import accounts

MAX_CACHED_ACCOUNTS: Final = 200_000
OPENING_TIMEOUT_S: Final = 2.0


class KnownAccount(Struct, frozen=True):
    """`owner` is a user's uuid, `owner_number` the integer id; both are None without an owner.
    `wallet` is set if it was opened over HTTP, and then it may not be open yet."""

    id: str
    currency: str
    type: AccountType
    owner: str | None = None
    owner_number: int | None = None
    wallet: Wallet | None = None


class UserNumber(Struct, frozen=True):
    id: str
    number: int


class AccountDirectory:
    def __init__(
        self,
        pool: Pool,
        users: UserDirectory,
        wallets: WalletDirectory,
        max_cached: int = MAX_CACHED_ACCOUNTS,
    ) -> None:
        self._max_cached = max_cached
        self._pool = pool
        self._users = users
        self._wallets = wallets
        self._cache: dict[str, KnownAccount] = {}

    async def find(self, id: str) -> KnownAccount | None:
        account = self._cache.get(id)
        return account if account is not None else await self._look_up(id)

    async def by_ids(
        self, wanted: Iterable[str | None], connection: queries.Connection | None = None
    ) -> dict[str, KnownAccount]:
        """Accounts in the books, in one query; missing ones are left out."""
        requested = {id for id in wanted if id is not None and not ids.is_system(id)}
        # Copied first: the cache may be cleared while the others are read.
        found = {id: self._cache[id] for id in requested if id in self._cache}
        missing = [id for id in requested if id not in found]
        if missing and connection is not None:
            found |= await self._read(connection, missing)
        elif missing:
            async with self._pool.connection() as own_connection:
                found |= await self._read(own_connection, missing)
        return found

    async def accessible(self, caller: Caller, id: str, field: str) -> KnownAccount:
        """An account that the caller owns, or any account for staff who may read all."""
        account = await self.find(id)
        if account is None or not (account.owner == caller.id or caller.role in READERS):
            raise account_not_found(field)
        return account

    async def source(self, caller: Caller, id: str | None) -> KnownAccount:
        """The account that money is taken from or added to; by default the caller's wallet."""
        if id is None:
            return await self.default_wallet(caller)
        return await self.accessible(caller, id, "wallet_id")

    async def default_wallet(self, caller: Caller) -> KnownAccount:
        wallet = await self._wallets.default(caller.id)
        if wallet is None:
            raise account_not_found("wallet_id")
        return await self._of_wallet(wallet)

    async def find_receiver(self, caller: Caller, id: str) -> KnownAccount | None:
        """For users, another's account that is not a wallet does not exist. The answer takes the
        same queries as that for a missing account, so users cannot tell the two apart by time."""
        account = self._cache.get(id)
        if account is None or not _may_pay(caller, account):
            account = await self._look_up(id)
        return account if account is not None and _may_pay(caller, account) else None

    async def find_receiver_wallet(
        self, currency: str, *, reference: str | int | None = None, email: str | None = None
    ) -> KnownAccount | None:
        """The wallet to which money for a user goes."""
        wallet = await self._wallets.receiving(currency, reference=reference, email=email)
        return None if wallet is None else await self._of_wallet(wallet)

    async def require_open(self, *parties: KnownAccount) -> None:
        for account in parties:
            if account.wallet is not None:
                await self._wallets.require_open(account.wallet, OPENING_TIMEOUT_S)

    async def _look_up(self, id: str) -> KnownAccount | None:
        wallet = await self._wallets.wallet(id)
        if wallet is not None:
            return await self._of_wallet(wallet)
        if ids.is_system(id):
            return None
        async with self._pool.connection() as connection:
            return (await self._read(connection, [id])).get(id)

    async def _of_wallet(self, wallet: Wallet) -> KnownAccount:
        account = self._cache.get(wallet.id)
        if account is None:
            user = await self._users.by_id(wallet.user_id)
            number = None if user is None else user.number
            account = KnownAccount(
                wallet.id, wallet.currency, "wallet", wallet.user_id, number, wallet
            )
            self._add(account)
        return account

    async def _read(
        self, connection: queries.Connection, missing: list[str]
    ) -> dict[str, KnownAccount]:
        identities = await accounts.identities(connection, missing)
        owners = list({row.owner for row in identities if row.owner is not None})
        users = await queries.every(connection, "users_numbers", UserNumber, ids=owners)
        numbers = {user.id: user.number for user in users}
        found = {
            row.id: KnownAccount(
                row.id, row.currency, row.type, row.owner, numbers.get(row.owner or "")
            )
            for row in identities
        }
        for account in found.values():
            self._add(account)
        return found

    def _add(self, account: KnownAccount) -> None:
        if len(self._cache) >= self._max_cached:
            self._cache.clear()
        self._cache[account.id] = account


def _may_pay(caller: Caller, account: KnownAccount) -> bool:
    return (
        account.type == "wallet" or account.owner == caller.id or caller.role is not UserRole.USER
    )


def account_not_found(field: str, detail: str = "Account not found.") -> HttpProblem:
    error = FieldError(field=field, code=Reason.ACCOUNT_NOT_FOUND, detail=detail)
    return HttpProblem(Reason.ACCOUNT_NOT_FOUND, errors=[error])
