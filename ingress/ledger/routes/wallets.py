"""The wallets of users: opened, read, and their balances and statements.

Wallets are opened the same way as at registration. Balances come from the books.
"""

from datetime import datetime

from pydantic import Field

from ingress.audit import entries
from ingress.http import request_headers, routes
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import SIGNED_IN, USERS, Scope
from ingress.http.routes import (
    Answer,
    Body,
    Call,
    Caller,
    Instant,
    Meta,
    Query,
    ResponseModel,
    Route,
)
from ingress.ledger import request_fields
from ingress.ledger.account_directory import AccountDirectory, KnownAccount
from ingress.ledger.request_fields import Currency
from ingress.ledger.routes import paged_lists
from ingress.ledger.routes.paged_lists import LIST_ROLES, PageQuery, TransactionLists
from ingress.ledger.views import responses
from ingress.ledger.views.responses import PageMeta, TransactionResponse
from ingress.users.directory import User, UserDirectory, UserResponse
from ingress.users.directory import user_response as person_shown
from ingress.wallets import wallet_view
from ingress.wallets.directory import Wallet, WalletDirectory
from ingress.wallets.wallet_view import WalletResponse
from plumbing.postgres.connection_pool import Pool
from schemas import money
from schemas.reasons import Reason
from sinks.reads import accounts, history
from sinks.reads.history import NO_FILTER

TAG = "Wallets"


class OwnWallet(ResponseModel):
    user: UserResponse
    wallet: WalletResponse


class WalletList(ResponseModel):
    data: list[WalletResponse]
    meta: Meta


class NewWallet(Body):
    currency: Currency | None = Field(default=None, description="The default currency if omitted.")


class WalletPath(Query):
    id: request_fields.AccountId


class WalletQuery(Query):
    user_id: str | None = Field(default=None, max_length=64, description="Integer id or uuid.")


class BalanceQuery(Query):
    at: paged_lists.Moment | None = Field(default=None, description="Now, if omitted.")


class StatementQuery(PageQuery):
    since: paged_lists.Moment | None = None
    until: paged_lists.Moment | None = None


class BalanceResponse(ResponseModel):
    wallet_id: str
    currency: str
    balance: int
    balance_decimal: str
    version: int
    at: Instant | None


class StatementResponse(ResponseModel):
    """`data` has the entries between the two balances, latest first."""

    wallet_id: str
    currency: str
    opening_balance: int
    opening_balance_decimal: str
    closing_balance: int
    closing_balance_decimal: str
    data: list[TransactionResponse]
    meta: PageMeta


class WalletRoutes:
    def __init__(
        self,
        default_currency: str,
        pool: Pool,
        directory: AccountDirectory,
        users: UserDirectory,
        wallets: WalletDirectory,
        lists: TransactionLists,
    ) -> None:
        self._default_currency = default_currency
        self._pool = pool
        self._directory = directory
        self._users = users
        self._wallets = wallets
        self._lists = lists

    def routes(self) -> list[Route]:
        not_found = (Reason.ACCOUNT_NOT_FOUND,)
        return [
            routes.reading(
                "/wallet",
                self.own,
                "Get the caller and the default wallet",
                TAG,
                SIGNED_IN,
                OwnWallet,
                tagged=True,
                problems=not_found,
            ),
            routes.reading(
                "/wallets",
                self.browse,
                "List the caller's wallets, the default one first",
                TAG,
                LIST_ROLES,
                WalletList,
                query=WalletQuery,
                problems=(Code.NOT_FOUND,),
                description="Operators and auditors may name another user.",
            ),
            Route(
                method="POST",
                path="/wallets",
                handler=self.open,
                summary="Open another wallet",
                tag=TAG,
                roles=USERS,
                scope=Scope.ACCOUNTS,
                body=NewWallet,
                headers=request_headers.WaitHeaders,
                answers={201: WalletResponse},
                problems=(Reason.CURRENCY_UNKNOWN, Code.TOO_MANY_WALLETS),
                description="The wallet's status is `opening` until the ledger has opened it.",
            ),
            routes.reading(
                "/wallets/{id}",
                self.show,
                "Get a wallet",
                TAG,
                LIST_ROLES,
                WalletResponse,
                tagged=True,
                params=WalletPath,
                problems=not_found,
            ),
            routes.reading(
                "/wallets/{id}/balance",
                self.balance,
                "Get a wallet's balance, now or at a time",
                TAG,
                LIST_ROLES,
                BalanceResponse,
                params=WalletPath,
                query=BalanceQuery,
                problems=not_found,
            ),
            routes.reading(
                "/wallets/{id}/statement",
                self.statement,
                "Get a statement: two balances and the entries between them",
                TAG,
                LIST_ROLES,
                StatementResponse,
                params=WalletPath,
                query=StatementQuery,
                problems=(*not_found, Code.PAGE_TOO_DEEP),
            ),
        ]

    async def own(self, call: Call[None, None]) -> Answer:
        user = await self._users.by_id(call.caller.id)
        wallet = await self._wallets.default(call.caller.id)
        if user is None or wallet is None:
            raise HttpProblem(Reason.ACCOUNT_NOT_FOUND)
        response = await self._response(wallet, user)
        both = OwnWallet(user=person_shown(user), wallet=response)
        return responses.with_etag_or_304(call, both, response.version)

    async def browse(self, call: Call[None, WalletQuery]) -> Answer:
        id, number = call.caller.id, call.caller.number
        if call.query.user_id is not None:
            user = await self._user(call.caller, call.query.user_id)
            id, number = user.id, user.number
        async with self._pool.connection() as connection:
            wallets = await wallet_view.read_all(connection, id, number)
        return Answer(WalletList(data=wallets, meta=Meta(limit=max(1, len(wallets)))))

    async def _user(self, caller: Caller, reference: str | None) -> User:
        user = await self._users.visible(caller, reference or caller.id)
        if user is None:
            raise HttpProblem(Code.NOT_FOUND)
        return user

    async def open(self, call: Call[NewWallet, None]) -> Answer:
        currency = call.body.currency or self._default_currency
        if currency not in money.EXPONENTS:
            raise request_fields.bad_field(
                Reason.CURRENCY_UNKNOWN, "currency", "is not an ISO 4217 currency"
            )
        user = await self._user(call.caller, None)
        event = entries.event(call, "open_account", detail={"currency": currency})
        wallet = await self._wallets.open(user.id, currency, call.trace, event)
        await self._wallets.is_open(wallet.id, request_headers.wait_s(call.request))
        response = await self._response(wallet, user)
        return responses.with_etag(response, response.version, 201)

    async def show(self, call: Call[None, None]) -> Answer:
        account = await self._directory.accessible(call.caller, call.path["id"], "id")
        wallet, user = account.wallet or await self._wallets.wallet(account.id), None
        if wallet is not None:
            user = await self._users.by_id(wallet.user_id)
        if wallet is None or user is None:
            raise HttpProblem(Reason.ACCOUNT_NOT_FOUND)
        response = await self._response(wallet, user)
        return responses.with_etag_or_304(call, response, response.version)

    async def _response(self, wallet: Wallet, user: User) -> WalletResponse:
        async with self._pool.connection() as connection:
            return await wallet_view.read(connection, wallet, user)

    async def balance(self, call: Call[None, BalanceQuery]) -> Answer:
        account = await self._directory.accessible(call.caller, call.path["id"], "id")
        at = call.query.at
        async with self._pool.connection() as connection:
            if at is None:
                now = await accounts.balance(connection, account.id)
                balance, version, time = (now.balance, now.version, None) if now else (0, 0, None)
            else:
                past = await accounts.balance_at(connection, account.id, at)
                balance, version, time = (
                    (past.balance, past.version, past.time) if past else (0, 0, None)
                )
        return Answer(
            BalanceResponse(
                wallet_id=account.id,
                currency=account.currency,
                balance=balance,
                balance_decimal=money.to_major(balance, account.currency),
                version=version,
                at=time,
            )
        )

    async def statement(self, call: Call[None, StatementQuery]) -> Answer:
        account = await self._directory.accessible(call.caller, call.path["id"], "id")
        query = call.query
        since = query.since or EARLIEST_TIME
        until = query.until or LATEST_TIME
        async with self._pool.connection() as connection:
            statement = await history.statement(connection, account.id, since, until)
        page = await self._lists.history(account, query, NO_FILTER, since, until)
        items = await self._lists.items(call.caller, page)
        return Answer(_statement(account, statement, items, self._lists.meta(query, page)))


EARLIEST_TIME = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
LATEST_TIME = datetime.fromisoformat("2200-01-01T00:00:00+00:00")


def _statement(
    account: KnownAccount,
    statement: history.Statement | None,
    items: list[TransactionResponse],
    meta: PageMeta,
) -> StatementResponse:
    opening = 0 if statement is None else statement.opening.balance
    closing = 0 if statement is None else statement.closing.balance
    return StatementResponse(
        wallet_id=account.id,
        currency=account.currency,
        opening_balance=opening,
        opening_balance_decimal=money.to_major(opening, account.currency),
        closing_balance=closing,
        closing_balance_decimal=money.to_major(closing, account.currency),
        data=items,
        meta=meta,
    )
