"""Transactions as they are read: one by its id, and page by page.

A user's list is the history of all their wallets together, or of one, what came in without their
asking included; who may read all has the list of all commands' transactions, or the history of any
account or user. Keeps the rule that what is another's is not there.
"""

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import Struct
from psycopg import errors
from pydantic import Field

from ingress.http import routes
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import READERS, UserRole
from ingress.http.routes import Answer, Call, Caller, Query, Route
from ingress.ledger import request_fields
from ingress.ledger.account_directory import AccountDirectory, KnownAccount
from ingress.ledger.client.outcome_lookup import OutcomeLookup, party_filter
from ingress.ledger.client.position_tokens import PositionTokens, bad_cursor
from ingress.ledger.request_fields import AccountId
from ingress.ledger.routes import submit
from ingress.ledger.routes.submit import CommandSubmitter
from ingress.ledger.views import responses, transaction_view
from ingress.ledger.views.responses import PageMeta, TransactionList, TransactionResponse
from ingress.ledger.views.transaction_view import TransactionView
from ingress.users.directory import People
from plumbing.postgres.connection_pool import Pool
from schemas.reasons import Reason
from sinks.reads import accounts, history, pages, transactions
from sinks.reads.history import EntryFilter, EntryView
from sinks.reads.pages import Page
from sinks.reads.transactions import LedgerTransaction, TransactionFilter

T = TypeVar("T")
LIST_ROLES: Final = frozenset({UserRole.USER, UserRole.OPERATOR, UserRole.AUDITOR})
MAX_LIMIT: Final = 100
QUERY_TIMED_OUT: Final = "It takes too long to find: narrow the filter, or ask for less at once."
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
Moment = Annotated[routes.Moment, Field(description="RFC 3339, with its offset.")]


class CursorQuery(Query):
    limit: int = Field(default=20, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(
        default=None, max_length=500, description="As `next_cursor` or `previous_cursor` gave it."
    )


class PageQuery(CursorQuery):
    page: int | None = Field(
        default=None, ge=1, le=10**9, description="By its number, in place of `cursor`."
    )


class TransactionQuery(PageQuery):
    wallet_id: AccountId | None = None
    account_id: AccountId | None = Field(default=None, description="The same as `wallet_id`.")
    user_id: str | None = Field(default=None, max_length=64, description="Integer id, or uuid.")
    kind: Kind | None = None
    status: Literal["pending", "posted", "rejected"] | None = None
    entry: Literal["debit", "credit"] | None = Field(
        default=None, description="Of a wallet's history alone."
    )
    reference: str | None = Field(default=None, min_length=1, max_length=200)
    min_amount: int | None = Field(default=None, ge=0, le=2**53 - 1)
    max_amount: int | None = Field(default=None, ge=0, le=2**53 - 1)
    since: Moment | None = None
    until: Moment | None = None


class TransactionPath(Query):
    id: request_fields.TransactionId


class OwnerScope(Struct, frozen=True):
    """A user, for all accounts that are theirs."""

    id: str


class TransactionLists:
    def __init__(
        self,
        pool: Pool,
        known: AccountDirectory,
        people: People,
        outcomes: OutcomeLookup,
        told: CommandSubmitter,
        positions: PositionTokens,
    ) -> None:
        self._positions = positions
        self._pool = pool
        self._known = known
        self._people = people
        self._outcomes = outcomes
        self._answers = told

    def routes(self) -> list[Route]:
        return [
            routes.reading(
                "/transactions",
                self.browse,
                "Transactions, the latest first",
                "Transactions",
                LIST_ROLES,
                TransactionList,
                query=TransactionQuery,
                problems=(Code.PAGE_TOO_DEEP, Reason.ACCOUNT_NOT_FOUND),
                description="A user's: the history of all their wallets, or of `wallet_id`; a"
                " transaction between their own is told once, from the side that sent it. With"
                " `status` pending or rejected: those that they asked for. Operators and auditors"
                " see all, and the same of any account or user.",
            ),
            routes.reading(
                "/transactions/{id}",
                self.show,
                "One transaction",
                "Transactions",
                LIST_ROLES,
                TransactionResponse,
                tagged=True,
                params=TransactionPath,
                problems=(Code.NOT_FOUND,),
            ),
        ]

    async def show(self, call: Call[None, None]) -> Answer:
        found = await self._outcomes.of(call.path["id"], party_filter(call.caller))
        if found is None:
            raise HttpProblem(Code.NOT_FOUND)
        of = submit.posted_view(found)
        view = await self._answers.view(call.caller, of)
        told = await self._answers.shown(of, call.caller, view)
        return submit.with_etag_or_304(call, told, of.version)

    async def browse(self, call: Call[None, TransactionQuery]) -> Answer:
        query, caller = call.query, call.caller
        whose = await self.whose(caller, query.wallet_id, query.account_id, query.user_id)
        # What has no entries is in no history.
        if whose is None or query.status in ("pending", "rejected"):
            return Answer(await self._asked_for(caller, query, whose))
        narrow = EntryFilter(
            direction=query.entry,
            kinds=None if query.kind is None else [query.kind],
            statuses=None if query.status is None else [query.status],
            reference=query.reference,
            # A reference finds for users only what they sent, as it is shown to them.
            actor=None if query.reference is None else party_filter(caller),
            least=query.min_amount,
            most=query.max_amount,
        )
        page = await self.history(whose, query, narrow, query.since, query.until)
        items = await self.items(caller, page)
        return Answer(TransactionList(data=items, meta=self.meta(query, page)))

    async def history(
        self,
        of: KnownAccount | OwnerScope,
        query: PageQuery,
        narrow: EntryFilter,
        since: datetime | None,
        until: datetime | None,
    ) -> Page[EntryView]:
        read: Any = history.entries if isinstance(of, KnownAccount) else history.entries_of_owner
        async with self._pool.connection() as connection:
            found: Page[EntryView] | None = await page_or_problem(
                read(
                    connection,
                    of.id,
                    narrow,
                    since=since,
                    until=until,
                    limit=query.limit,
                    page=query.page,
                    cursor=self.cursor(query),
                )
            )
        return found or Page(items=(), total=0)

    async def items(self, caller: Caller, page: Page[EntryView]) -> list[TransactionResponse]:
        """Each as it is seen from the account whose entry it is."""
        parties = {
            party
            for entry in page.items
            for party in (entry.account, entry.from_account, entry.counterparty)
        }
        known = await self._known.all_of(parties)
        return [
            responses.transaction_response(
                _entry_view(entry, known[entry.account].currency), entry.account, known, caller
            )
            for entry in page.items
        ]

    def cursor(self, query: CursorQuery) -> str | None:
        return self._positions.inner_cursor(query.cursor)

    def meta(self, query: CursorQuery, page: Page[Any]) -> PageMeta:
        return PageMeta(
            page=query.page if isinstance(query, PageQuery) else None,
            limit=query.limit,
            total=page.total,
            next_cursor=self._positions.cursor(page.next),
            previous_cursor=self._positions.cursor(page.previous),
        )

    async def whose(
        self, caller: Caller, wallet_id: str | None, account_id: str | None, user_id: str | None
    ) -> KnownAccount | OwnerScope | None:
        """What a list is asked of: an account, all of an owner's, or all that there is, for those
        who may."""
        if wallet_id and account_id and wallet_id != account_id:
            raise request_fields.bad_field(
                Code.QUERY_INVALID, "account_id", "differs from wallet_id"
            )
        if wallet_id or account_id:
            field = "wallet_id" if wallet_id else "account_id"
            return await self._known.may_use(caller, wallet_id or account_id or "", field)
        if user_id is not None:
            user = await self._people.visible(caller, user_id)
            if user is None:
                raise request_fields.bad_field(Reason.ACCOUNT_NOT_FOUND, "user_id", "has no wallet")
            return OwnerScope(user.id)
        return None if caller.role in READERS else OwnerScope(caller.id)

    async def _asked_for(
        self, caller: Caller, query: TransactionQuery, whose: KnownAccount | OwnerScope | None
    ) -> TransactionList:
        """Commands' transactions: all of them, or an account's or owner's own."""
        if query.entry is not None:
            detail = "is for what has entries of an account or a user"
            raise request_fields.bad_field(Code.QUERY_INVALID, "entry", detail)
        narrow = TransactionFilter(
            accounts=None if whose is None else await self._accounts(whose),
            kinds=None if query.kind is None else [query.kind],
            statuses=None if query.status is None else [query.status],
            reference=query.reference,
            actor=None if query.reference is None else party_filter(caller),
            least=query.min_amount,
            most=query.max_amount,
            since=query.since,
            until=query.until,
        )
        async with self._pool.connection() as connection:
            page = await page_or_problem(
                transactions.transactions(
                    connection,
                    narrow,
                    limit=query.limit,
                    page=query.page,
                    cursor=self.cursor(query),
                )
            )
        rows: tuple[LedgerTransaction, ...] = page.items
        known = await self._known.all_of(
            [p for row in rows for p in (row.account, row.counterparty)]
        )
        items = []
        for row in rows:
            account = known.get(row.account)
            of = transaction_view.from_rows(row, (), "" if account is None else account.currency)
            items.append(responses.transaction_response(of, None, known, caller))
        return TransactionList(data=items, meta=self.meta(query, page))

    async def _accounts(self, whose: KnownAccount | OwnerScope) -> list[str]:
        if isinstance(whose, KnownAccount):
            return [whose.id]
        async with self._pool.connection() as connection:
            return list(await accounts.versions_of(connection, whose.id))


async def page_or_problem(reading: Awaitable[T]) -> T:
    """What a page of a list may refuse, as problems."""
    try:
        return await reading
    except pages.PageTooDeep:
        raise HttpProblem(Code.PAGE_TOO_DEEP) from None
    except errors.QueryCanceled:
        # Again it would take as long: no "ask again" for it.
        raise HttpProblem(Code.PAGE_TOO_DEEP, QUERY_TIMED_OUT) from None
    except pages.BadCursor:
        raise bad_cursor() from None


def _entry_view(entry: EntryView, currency: str) -> TransactionView:
    kind = entry.kind or "unknown"
    asker = entry.from_account or entry.account
    fee = (entry.fee or 0) if kind == "transfer" else 0
    amount = entry.amount - (fee if asker == entry.account else 0)
    lines: tuple[transaction_view.EntryLine, ...] = (
        transaction_view.EntryLine(entry.account, entry.direction, entry.amount),
    )
    if kind in transaction_view.DERIVED_ENTRY_KINDS:
        lines = transaction_view.derived_entries(
            kind, asker, entry.counterparty, amount, fee, currency
        )
    return TransactionView(
        id=entry.transaction_id,
        kind=kind,
        status=entry.status or "posted",
        account=asker,
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
