"""Lists of transactions, and the history of an account or of all accounts of a user.

Keeps the rule that somebody else's account looks like a missing one.
"""

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import Struct
from psycopg import errors
from pydantic import Field

from ingress.http import routes
from ingress.http.position_tokens import PositionTokens, bad_cursor
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import READERS, UserRole
from ingress.http.routes import Answer, Call, Caller, Query, Route
from ingress.ledger import request_fields
from ingress.ledger.account_directory import AccountDirectory, KnownAccount
from ingress.ledger.client.outcome_lookup import OutcomeLookup, party_filter
from ingress.ledger.request_fields import AccountId
from ingress.ledger.routes import submit
from ingress.ledger.views import responses, transaction_view
from ingress.ledger.views.responses import (
    PageMeta,
    TransactionList,
    TransactionPresenter,
    TransactionResponse,
)
from ingress.ledger.views.transaction_view import TransactionView
from ingress.users.directory import UserDirectory
from plumbing.postgres.connection_pool import Pool
from schemas.reasons import Reason
from sinks.reads import accounts, history, pages, transactions
from sinks.reads.history import EntryFilter, EntryView
from sinks.reads.pages import Page
from sinks.reads.transactions import LedgerTransaction, TransactionFilter

T = TypeVar("T")
LIST_ROLES: Final = frozenset({UserRole.USER, UserRole.OPERATOR, UserRole.AUDITOR})
MAX_LIMIT: Final = 100
QUERY_TIMED_OUT: Final = "The search takes too long. Narrow the filter or lower the limit."
Kind = Literal[
    "open_account",
    "set_limit",
    "change_account",
    "credit",
    "debit",
    "transfer",
    "post",
    "hold",
    "capture",
    "void",
    "reverse",
    "freeze",
    "unfreeze",
    "close",
]
Moment = Annotated[routes.Moment, Field(description="RFC 3339, with an offset.")]


class CursorQuery(Query):
    limit: int = Field(default=20, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(
        default=None, max_length=500, description="From `next_cursor` or `previous_cursor`."
    )


class PageQuery(CursorQuery):
    page: int | None = Field(
        default=None, ge=1, le=10**9, description="The number of the page, instead of `cursor`."
    )


class TransactionQuery(PageQuery):
    wallet_id: AccountId | None = None
    account_id: AccountId | None = Field(default=None, description="Same as `wallet_id`.")
    user_id: str | None = Field(default=None, max_length=64, description="Integer id or uuid.")
    kind: Kind | None = None
    status: Literal["pending", "posted", "rejected"] | None = None
    entry: Literal["debit", "credit"] | None = Field(
        default=None, description="Only for the history of an account or user."
    )
    reference: str | None = Field(default=None, min_length=1, max_length=200)
    min_amount: int | None = Field(default=None, ge=0, le=2**53 - 1)
    max_amount: int | None = Field(default=None, ge=0, le=2**53 - 1)
    since: Moment | None = None
    until: Moment | None = None


class TransactionPath(Query):
    id: request_fields.TransactionId


class OwnerScope(Struct, frozen=True):
    """All accounts of one user."""

    id: str


class TransactionLists:
    def __init__(
        self,
        pool: Pool,
        directory: AccountDirectory,
        users: UserDirectory,
        outcomes: OutcomeLookup,
        presenter: TransactionPresenter,
        tokens: PositionTokens,
    ) -> None:
        self._tokens = tokens
        self._pool = pool
        self._directory = directory
        self._users = users
        self._outcomes = outcomes
        self._presenter = presenter

    def routes(self) -> list[Route]:
        return [
            routes.reading(
                "/transactions",
                self.browse,
                "List transactions, latest first",
                "Transactions",
                LIST_ROLES,
                TransactionList,
                query=TransactionQuery,
                problems=(Code.PAGE_TOO_DEEP, Reason.ACCOUNT_NOT_FOUND),
                description="Users see the history of all their wallets, or of `wallet_id`. A"
                " transaction between two of their wallets is listed once, from the sender's side."
                " `status` pending or rejected lists the transactions of commands on their wallets."
                " Operators and auditors see all transactions, or those of any account or user.",
            ),
            routes.reading(
                "/transactions/{id}",
                self.show,
                "Get a transaction",
                "Transactions",
                LIST_ROLES,
                TransactionResponse,
                tagged=True,
                params=TransactionPath,
                problems=(Code.NOT_FOUND,),
            ),
        ]

    async def show(self, call: Call[None, None]) -> Answer:
        party = party_filter(call.caller)
        outcome = await self._outcomes.by_transaction(call.path["id"], party)
        if outcome is None:
            raise HttpProblem(Code.NOT_FOUND)
        view = submit.posted_view(outcome)
        side = await self._presenter.side_of(call.caller, view)
        response = await self._presenter.present(view, call.caller, side)
        return responses.with_etag_or_304(call, response, view.version)

    async def browse(self, call: Call[None, TransactionQuery]) -> Answer:
        query, caller = call.query, call.caller
        scope = await self.scope(caller, query.wallet_id, query.account_id, query.user_id)
        # A transaction without entries is in no history.
        if scope is None or query.status in ("pending", "rejected"):
            return Answer(await self._by_command(caller, query, scope))
        filter = EntryFilter(
            direction=query.entry,
            kinds=None if query.kind is None else [query.kind],
            statuses=None if query.status is None else [query.status],
            reference=query.reference,
            # Users find by reference only what they sent, because only then they see it.
            actor=None if query.reference is None else party_filter(caller),
            min_amount=query.min_amount,
            max_amount=query.max_amount,
        )
        page = await self.history(scope, query, filter, query.since, query.until)
        items = await self.items(caller, page)
        return Answer(TransactionList(data=items, meta=self.meta(query, page)))

    async def history(
        self,
        scope: KnownAccount | OwnerScope,
        query: PageQuery,
        filter: EntryFilter,
        since: datetime | None,
        until: datetime | None,
    ) -> Page[EntryView]:
        of_account = isinstance(scope, KnownAccount)
        read: Any = history.entries if of_account else history.entries_of_owner
        async with self._pool.connection() as connection:
            entries: Page[EntryView] | None = await page_or_problem(
                read(
                    connection,
                    scope.id,
                    filter,
                    since=since,
                    until=until,
                    limit=query.limit,
                    page=query.page,
                    cursor=self.cursor(query),
                )
            )
        return entries or Page(items=(), total=0)

    async def items(self, caller: Caller, page: Page[EntryView]) -> list[TransactionResponse]:
        """Each transaction from the side of the account whose entry it is."""
        wanted = {
            id
            for entry in page.items
            for id in (entry.account, entry.from_account, entry.counterparty)
        }
        parties = await self._directory.by_ids(wanted)
        return [
            responses.transaction_response(
                _entry_view(entry, parties[entry.account].currency), entry.account, parties, caller
            )
            for entry in page.items
        ]

    def cursor(self, query: CursorQuery) -> str | None:
        return self._tokens.read_cursor(query.cursor)

    def meta(self, query: CursorQuery, page: Page[Any]) -> PageMeta:
        return PageMeta(
            page=query.page if isinstance(query, PageQuery) else None,
            limit=query.limit,
            total=page.total,
            next_cursor=self._tokens.write_cursor(page.next),
            previous_cursor=self._tokens.write_cursor(page.previous),
        )

    async def scope(
        self, caller: Caller, wallet_id: str | None, account_id: str | None, user_id: str | None
    ) -> KnownAccount | OwnerScope | None:
        """The scope of a list: one account, all accounts of an owner, or None for everything, if
        the caller may read all."""
        if wallet_id and account_id and wallet_id != account_id:
            raise request_fields.bad_field(
                Code.QUERY_INVALID, "account_id", "differs from wallet_id"
            )
        if wallet_id or account_id:
            field = "wallet_id" if wallet_id else "account_id"
            return await self._directory.accessible(caller, wallet_id or account_id or "", field)
        if user_id is not None:
            user = await self._users.visible(caller, user_id)
            if user is None:
                raise request_fields.bad_field(Reason.ACCOUNT_NOT_FOUND, "user_id", "has no wallet")
            return OwnerScope(user.id)
        return None if caller.role in READERS else OwnerScope(caller.id)

    async def _by_command(
        self, caller: Caller, query: TransactionQuery, scope: KnownAccount | OwnerScope | None
    ) -> TransactionList:
        """Transactions by the account of their command: all, or those of an account or owner."""
        if query.entry is not None:
            detail = "needs wallet_id, account_id or user_id, and no status without entries"
            raise request_fields.bad_field(Code.QUERY_INVALID, "entry", detail)
        filter = TransactionFilter(
            accounts=None if scope is None else await self._account_ids(scope),
            kinds=None if query.kind is None else [query.kind],
            statuses=None if query.status is None else [query.status],
            reference=query.reference,
            actor=None if query.reference is None else party_filter(caller),
            min_amount=query.min_amount,
            max_amount=query.max_amount,
            since=query.since,
            until=query.until,
        )
        async with self._pool.connection() as connection:
            page = await page_or_problem(
                transactions.transactions(
                    connection,
                    filter,
                    limit=query.limit,
                    page=query.page,
                    cursor=self.cursor(query),
                )
            )
        rows: tuple[LedgerTransaction, ...] = page.items
        parties = await self._directory.by_ids(
            [id for row in rows for id in (row.account, row.counterparty)]
        )
        items = []
        for row in rows:
            account = parties.get(row.account)
            view = transaction_view.from_rows(row, (), "" if account is None else account.currency)
            items.append(responses.transaction_response(view, None, parties, caller))
        return TransactionList(data=items, meta=self.meta(query, page))

    async def _account_ids(self, scope: KnownAccount | OwnerScope) -> list[str]:
        if isinstance(scope, KnownAccount):
            return [scope.id]
        async with self._pool.connection() as connection:
            return list(await accounts.owner_versions(connection, scope.id))


async def page_or_problem(page: Awaitable[T]) -> T:
    """Raises the Problem of a page that cannot be read."""
    try:
        return await page
    except pages.PageTooDeep:
        raise HttpProblem(Code.PAGE_TOO_DEEP) from None
    except errors.QueryCanceled:
        # A retry would take as long, so the answer does not suggest one.
        raise HttpProblem(Code.PAGE_TOO_DEEP, QUERY_TIMED_OUT) from None
    except pages.BadCursor:
        raise bad_cursor() from None


def _entry_view(entry: EntryView, currency: str) -> TransactionView:
    kind = entry.kind or "unknown"
    sender = entry.from_account or entry.account
    fee = (entry.fee or 0) if kind == "transfer" else 0
    amount = entry.amount - (fee if sender == entry.account else 0)
    lines: tuple[transaction_view.EntryLine, ...] = (
        transaction_view.EntryLine(entry.account, entry.direction, entry.amount),
    )
    if kind in transaction_view.DERIVED_ENTRY_KINDS:
        lines = transaction_view.derived_entries(
            kind, sender, entry.counterparty, amount, fee, currency
        )
    return TransactionView(
        id=entry.transaction_id,
        kind=kind,
        status=entry.status or "posted",
        account=sender,
        currency=currency,
        at=entry.time,
        amount=amount,
        fee=fee,
        counterparty=entry.counterparty,
        trans_id=entry.external_id,
        actor=entry.actor,
        reference=entry.reference,
        description=entry.description,
        metadata=entry.metadata or {},
        reverses=entry.reverses,
        reversed_by=entry.reversed_by,
        entries=lines,
        balances={entry.account: entry.balance},
        version=entry.version,
    )
