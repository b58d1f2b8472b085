"""Transactions as they are read: one by its id, and page by page.

A user's list is the history of one wallet, what came in without their asking included; who may read
all has the list of all commands' transactions, or the history of any account. Keeps the rule that
what is another's is not there.
"""

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import AwareDatetime, Field

from ingress.ledger import answers, asking, facts, shown
from ingress.ledger.answers import Answers
from ingress.ledger.asking import AccountId
from ingress.ledger.facts import Facts
from ingress.ledger.known import Accounts, Known
from ingress.ledger.outcomes import Outcomes
from ingress.ledger.shown import PageMeta, TransactionList, TransactionShown
from ingress.openings import Openings
from ingress.people import People
from ingress.problems import Code, FieldError, Problem
from ingress.roles import READERS, Role, Scope
from ingress.routes import Answer, Call, Caller, Query, Route
from plumbing.postgres import Pool
from schemas.reasons import Reason
from sinks.reads import history, pages, transactions
from sinks.reads.history import Entry, EntryFilter
from sinks.reads.pages import Page
from sinks.reads.transactions import Transaction, TransactionFilter

T = TypeVar("T")
LOOKERS: Final = frozenset({Role.USER, Role.OPERATOR, Role.AUDITOR})
MAX_LIMIT: Final = 100
Kind = Literal[
    "open_account",
    "set_limit",
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
Moment = Annotated[AwareDatetime, Field(description="RFC 3339, with its offset.")]


class Paged(Query):
    page: int | None = Field(default=None, ge=1, le=10**9)
    limit: int = Field(default=20, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(default=None, max_length=500, description="Instead of `page`.")


class Filters(Paged):
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


class Id(Query):
    id: asking.TransactionId


class Listing:
    def __init__(
        self,
        pool: Pool,
        known: Accounts,
        people: People,
        openings: Openings,
        outcomes: Outcomes,
        told: Answers,
    ) -> None:
        self._pool = pool
        self._known = known
        self._people = people
        self._openings = openings
        self._outcomes = outcomes
        self._answers = told

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/transactions",
                handler=self.browse,
                summary="Transactions, the latest first",
                tag="Transactions",
                roles=LOOKERS,
                scope=Scope.READ,
                query=Filters,
                answers={200: TransactionList},
                problems=(Code.PAGE_TOO_DEEP, Reason.ACCOUNT_NOT_FOUND),
                description="A user's: the history of the default wallet, or of `wallet_id`."
                " Operators and auditors see all, and any account's history.",
            ),
            Route(
                method="GET",
                path="/transactions/{id}",
                handler=self.show,
                summary="One transaction",
                tag="Transactions",
                roles=LOOKERS,
                scope=Scope.READ,
                params=Id,
                answers={200: TransactionShown, 304: None},
                problems=(Code.NOT_FOUND,),
            ),
        ]

    async def show(self, call: Call[None, None]) -> Answer:
        found = await self._outcomes.of(call.path["id"])
        if found is None or not await self._answers.may_see(call.caller, found):
            raise Problem(Code.NOT_FOUND)
        of = answers.posted(found)
        tag = answers.etag(of)
        if not_modified(call, tag):
            return Answer(None, 304, {"ETag": tag})
        view = await self._answers.view(call.caller, of)
        return Answer(await self._answers.shown(of, call.caller, view), 200, {"ETag": tag})

    async def browse(self, call: Call[None, Filters]) -> Answer:
        query, caller = call.query, call.caller
        on = await self._account(caller, query)
        if on is None:
            return Answer(await self._all(caller, query))
        narrow = EntryFilter(
            direction=query.entry,
            kinds=None if query.kind is None else [query.kind],
            statuses=None if query.status is None else [query.status],
            reference=query.reference,
            least=query.min_amount,
            most=query.max_amount,
        )
        page = await self.history(on, query, narrow, query.since, query.until)
        items = await self.items(caller, on, page)
        return Answer(TransactionList(data=items, meta=meta(query, page)))

    async def history(
        self,
        on: Known,
        query: Paged,
        narrow: EntryFilter,
        since: datetime | None,
        until: datetime | None,
    ) -> Page[Entry]:
        async with self._pool.connection() as connection:
            found = await paged(
                history.entries(
                    connection,
                    on.id,
                    narrow,
                    since=since,
                    until=until,
                    limit=query.limit,
                    page=query.page,
                    cursor=query.cursor,
                )
            )
        return found or Page(items=(), total=0)

    async def items(self, caller: Caller, on: Known, page: Page[Entry]) -> list[TransactionShown]:
        of = [_facts(entry, on.currency) for entry in page.items]
        known = await self._known.all_of(_parties(of))
        whole = caller.role in READERS
        return [shown.transaction(each, on.id, known, whole=whole) for each in of]

    async def _account(self, caller: Caller, query: Filters) -> Known | None:
        """Whose history is asked for; None: all that there is, for those who may."""
        named = query.wallet_id or query.account_id
        field = "wallet_id" if query.wallet_id else "account_id"
        if query.wallet_id and query.account_id and query.wallet_id != query.account_id:
            raise asking.bad_field(Code.QUERY_INVALID, "account_id", "differs from wallet_id")
        if named is not None:
            return await self._known.may_use(caller, named, field)
        if query.user_id is not None:
            user = await self._people.by_reference(query.user_id)
            wallet = None if user is None else await self._openings.default(user.id)
            if wallet is None:
                raise asking.bad_field(Reason.ACCOUNT_NOT_FOUND, "user_id", "has no wallet")
            return await self._known.may_use(caller, wallet.id, "user_id")
        return None if caller.role in READERS else await self._known.default(caller)

    async def _all(self, caller: Caller, query: Filters) -> TransactionList:
        narrow = TransactionFilter(
            kinds=None if query.kind is None else [query.kind],
            statuses=None if query.status is None else [query.status],
            reference=query.reference,
            least=query.min_amount,
            most=query.max_amount,
            since=query.since,
            until=query.until,
        )
        async with self._pool.connection() as connection:
            page = await paged(
                transactions.transactions(
                    connection, narrow, limit=query.limit, page=query.page, cursor=query.cursor
                )
            )
        rows: tuple[Transaction, ...] = page.items
        known = await self._known.all_of(
            [p for row in rows for p in (row.account, row.counterparty)]
        )
        items = []
        for row in rows:
            account = known.get(row.account)
            of = facts.of_rows(row, (), "" if account is None else account.currency)
            items.append(shown.transaction(of, None, known, whole=True))
        return TransactionList(data=items, meta=meta(query, page))


async def paged(reading: Awaitable[T]) -> T:
    """What a page of a list may refuse, as problems."""
    try:
        return await reading
    except pages.PageTooDeep:
        raise Problem(Code.PAGE_TOO_DEEP) from None
    except pages.BadCursor:
        error = FieldError(field="cursor", code="invalid", detail="is none of this list")
        raise Problem(Code.QUERY_INVALID, errors=[error]) from None


def meta(query: Paged, page: Page[Any]) -> PageMeta:
    return PageMeta(
        page=query.page,
        limit=query.limit,
        total=page.total,
        next_cursor=page.next,
        previous_cursor=page.previous,
    )


def not_modified(call: Call[Any, Any], tag: str) -> bool:
    given = call.request.headers.get("If-None-Match", "")
    return given == "*" or tag in (each.strip().removeprefix("W/") for each in given.split(","))


def _facts(entry: Entry, currency: str) -> Facts:
    kind = entry.kind or "unknown"
    asker = entry.from_account or entry.account
    fee = (entry.fee or 0) if kind == "transfer" else 0
    amount = entry.amount - (fee if asker == entry.account else 0)
    lines: tuple[facts.Line, ...] = (facts.Line(entry.account, entry.direction, entry.amount),)
    if kind in facts.USUAL:
        lines = facts.usual(kind, asker, entry.counterparty, amount, fee, currency)
    return Facts(
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
        reference=entry.reference,
        description=entry.description,
        metadata=entry.metadata or {},
        reverses=entry.reverses,
        reversed_by=entry.reversed_by,
        entries=lines,
        balances={entry.account: entry.balance},
        version=entry.version,
    )


def _parties(of: list[Facts]) -> list[str | None]:
    named: Mapping[str | None, None] = dict.fromkeys(
        party for each in of for party in (each.account, each.counterparty)
    )
    return list(named)
