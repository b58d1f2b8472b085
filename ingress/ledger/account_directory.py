"""What never changes about accounts, remembered: so that a request for money asks no database.

Keeps the rule that what is not somebody's own looks to them as what is not there. Balances are not
known here.
"""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from ingress import queries
from ingress.http.problems import FieldError, HttpProblem
from ingress.http.roles import READERS, UserRole
from ingress.http.routes import Caller
from ingress.users.directory import People
from ingress.wallets import Openings, Wallet
from plumbing.postgres.connection_pool import Pool
from schemas import ids
from schemas.field_types import AccountType
from schemas.reasons import Reason
from sinks.reads import accounts

MAX_CACHED_ACCOUNTS: Final = 200_000


class KnownAccount(Struct, frozen=True):
    """`owner` is a user's uuid, `owner_number` the integer id; both None where no user has it.
    `wallet` is there where it was opened over HTTP, and then it may not be open yet."""

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
        self, pool: Pool, people: People, openings: Openings, remembered: int = MAX_CACHED_ACCOUNTS
    ) -> None:
        self._remembered = remembered
        self._pool = pool
        self._people = people
        self._openings = openings
        self._known: dict[str, KnownAccount] = {}

    async def find(self, id: str) -> KnownAccount | None:
        known = self._known.get(id)
        return known if known is not None else await self._look_up(id)

    async def find_receiver(self, caller: Caller, id: str) -> KnownAccount | None:
        """For users, another's account that is not a wallet does not exist. The answer takes the
        same queries as that for a missing account, so users cannot tell the two apart by time."""
        known = self._known.get(id)
        if known is None or not _may_pay(caller, known):
            known = await self._look_up(id)
        return known if known is not None and _may_pay(caller, known) else None

    async def _look_up(self, id: str) -> KnownAccount | None:
        wallet = await self._openings.wallet(id)
        if wallet is None and ids.is_system(id):
            return None
        if wallet is None:
            async with self._pool.connection() as connection:
                return (await self._read(connection, [id])).get(id)
        return await self.of_wallet(wallet)

    async def of_wallet(self, wallet: Wallet) -> KnownAccount:
        known = self._known.get(wallet.id)
        if known is None:
            user = await self._people.by_id(wallet.user_id)
            number = None if user is None else user.number
            known = KnownAccount(
                wallet.id, wallet.currency, "wallet", wallet.user_id, number, wallet
            )
            self._remember(known)
        return known

    async def all_of(
        self, wanted: Iterable[str | None], using: queries.Connection | None = None
    ) -> dict[str, KnownAccount]:
        """Of accounts in the books, at once; those that are not there are left out."""
        asked = {id for id in wanted if id is not None and not ids.is_system(id)}
        # Taken first: while others are read these may be forgotten.
        known = {id: self._known[id] for id in asked if id in self._known}
        missing = [id for id in asked if id not in known]
        if missing and using is not None:
            known |= await self._read(using, missing)
        elif missing:
            async with self._pool.connection() as connection:
                known |= await self._read(connection, missing)
        return known

    async def _read(
        self, connection: queries.Connection, missing: list[str]
    ) -> dict[str, KnownAccount]:
        found = await accounts.facts(connection, missing)
        owners = list({each.owner for each in found if each.owner is not None})
        people = await queries.every(connection, "users_numbers", UserNumber, ids=owners)
        numbers = {each.id: each.number for each in people}
        read = {
            each.id: KnownAccount(
                each.id, each.currency, each.type, each.owner, numbers.get(each.owner or "")
            )
            for each in found
        }
        for known in read.values():
            self._remember(known)
        return read

    async def may_use(self, caller: Caller, id: str, field: str) -> KnownAccount:
        """The caller's own; of all accounts for those who may read all."""
        known = await self.find(id)
        if known is None or not (known.owner == caller.id or caller.role in READERS):
            raise account_not_found(field)
        return known

    async def chosen(
        self, caller: Caller, id: str | None, field: str = "wallet_id"
    ) -> KnownAccount:
        """The one that is named, or else the caller's default one."""
        if id is None:
            return await self.default(caller, field)
        return await self.may_use(caller, id, field)

    async def default(self, caller: Caller, field: str = "wallet_id") -> KnownAccount:
        wallet = await self._openings.default(caller.id)
        if wallet is None:
            raise account_not_found(field)
        return await self.of_wallet(wallet)

    async def require_open(self, known: KnownAccount, wait_s: float) -> None:
        if known.wallet is not None:
            await self._openings.require_open(known.wallet, wait_s)

    def _remember(self, known: KnownAccount) -> None:
        if len(self._known) >= self._remembered:
            self._known.clear()
        self._known[known.id] = known


def _may_pay(caller: Caller, account: KnownAccount) -> bool:
    return (
        account.type == "wallet" or account.owner == caller.id or caller.role is not UserRole.USER
    )


def account_not_found(field: str, detail: str = "Account not found.") -> HttpProblem:
    error = FieldError(field=field, code=Reason.ACCOUNT_NOT_FOUND, detail=detail)
    return HttpProblem(Reason.ACCOUNT_NOT_FOUND, errors=[error])
