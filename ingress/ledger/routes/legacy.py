"""The same money for the older app, in its own words: major units, its own pages, its own errors.

Only here a number is major units. It is read from the JSON text as a decimal, never through a
float.
"""

import re
import uuid
from decimal import Decimal
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web
from pydantic import ConfigDict, Field, WithJsonSchema

from ingress.http.problems import HttpProblem
from ingress.http.roles import USERS, Scope
from ingress.http.routes import Answer, Call, Instant, Query, ResponseModel, Route
from ingress.ledger import request_fields
from ingress.ledger.account_directory import AccountDirectory, KnownAccount
from ingress.ledger.client.outcome_lookup import Outcome
from ingress.ledger.routes import paged_lists, submit
from ingress.ledger.routes.paged_lists import TransactionLists
from ingress.ledger.routes.submit import CommandSubmitter
from ingress.ledger.views.responses import AcceptedResponse, TransactionResponse
from ingress.wallets import Openings
from plumbing.postgres.connection_pool import Pool
from schemas import commands, money
from schemas.reasons import Reason
from sinks.reads import accounts
from sinks.reads.history import NO_FILTER

PATH: Final = "/api/transactions"
_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]{0,15})(\.[0-9]{1,2})?", re.ASCII)

LegacyTransferRequest = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "required": ["receiver_id", "amount"],
            "properties": {
                "receiver_id": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "amount": {
                    "anyOf": [{"type": "number"}, {"type": "string"}],
                    "description": "Major units: 10, 10.5, and text alike; two decimals at most.",
                },
            },
        }
    ),
]


class LegacyTransaction(ResponseModel):
    id: str
    sender_id: int | None
    receiver_id: int | None
    amount: str
    commission_fee: str
    metadata: dict[str, str]
    created_at: Instant
    updated_at: Instant


class LegacyLinks(ResponseModel):
    first: str
    last: str
    prev: str | None
    next: str | None


class LegacyPageMeta(ResponseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    current_page: int
    from_: int | None = Field(serialization_alias="from")
    last_page: int
    path: str
    per_page: int
    to: int | None
    total: int


class LegacyTransactionPage(ResponseModel):
    data: list[LegacyTransaction]
    links: LegacyLinks
    meta: LegacyPageMeta


class LegacyOverviewData(ResponseModel):
    balance: str
    transactions: LegacyTransactionPage


class LegacyOverview(ResponseModel):
    data: LegacyOverviewData


class LegacyProblem(ResponseModel):
    message: str
    errors: dict[str, list[str]]


class LegacyPageQuery(Query):
    page: int = Field(default=1, ge=1, le=10**9)
    per_page: int = Field(default=20, ge=1, le=100)


class LegacyRoutes:
    def __init__(
        self,
        pool: Pool,
        known: AccountDirectory,
        openings: Openings,
        lists: TransactionLists,
        told: CommandSubmitter,
    ) -> None:
        self._pool = pool
        self._known = known
        self._openings = openings
        self._lists = lists
        self._answers = told

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path=PATH,
                handler=self.browse,
                summary="The balance and a page of transactions",
                tag="The older app",
                roles=USERS,
                scope=Scope.READ,
                query=LegacyPageQuery,
                answers={200: LegacyOverview},
                versioned=False,
            ),
            Route(
                method="POST",
                path=PATH,
                handler=self.send,
                summary="Send money to a user",
                tag="The older app",
                roles=USERS,
                scope=Scope.MONEY,
                body=LegacyTransferRequest,
                headers=request_fields.MoneyHeaders,
                answers={201: LegacyTransaction, 202: AcceptedResponse, 422: LegacyProblem},
                versioned=False,
            ),
        ]

    async def browse(self, call: Call[None, LegacyPageQuery]) -> Answer:
        query, caller = call.query, call.caller
        wallet = await self._known.default(caller)
        async with self._pool.connection() as connection:
            now = await accounts.balance(connection, wallet.id)
        asked = paged_lists.PageQuery(page=query.page, limit=query.per_page)
        page = await self._lists.history(wallet, asked, NO_FILTER, None, None)
        items = await self._lists.items(caller, page)
        balance = 0 if now is None else now.balance
        return Answer(
            LegacyOverview(
                data=LegacyOverviewData(
                    balance=money.to_major(balance, wallet.currency),
                    transactions=LegacyTransactionPage(
                        data=[_legacy_transaction(each) for each in items],
                        links=_links(query, page.total or 0),
                        meta=_meta(query, page.total or 0, len(items)),
                    ),
                )
            )
        )

    async def send(self, call: Call[dict[str, Any], None]) -> Answer | web.StreamResponse:
        caller, body = call.caller, call.body
        sender = await self._known.default(caller)
        errors: dict[str, list[str]] = {
            name: ["The field is not known."]
            for name in body
            if name not in ("receiver_id", "amount")
        }
        receiver = await self._receiver(body.get("receiver_id"), sender, errors)
        amount = _amount(body.get("amount"), sender.currency, errors)
        if errors or receiver is None:
            return invalid(errors)
        await self._known.require_open(sender, request_fields.DEFAULT_WAIT_S)
        await self._known.require_open(receiver, request_fields.DEFAULT_WAIT_S)
        key = request_fields.idempotency_key(call.request, None, False) or str(uuid.uuid4())
        command = commands.Transfer(
            account=sender.id,
            to=receiver.id,
            amount=amount,
            **request_fields.sender_fields(call, key),
        )

        async def show(found: Outcome) -> Answer:
            told = await self._answers.shown(submit.posted_view(found), caller, sender.id)
            return Answer(_legacy_transaction(told), 201, submit.replay_headers(found))

        try:
            return await self._answers.submitted(call, command, sender.currency, show)
        except HttpProblem as problem:
            if not isinstance(problem.code, Reason):
                raise
            words = submit.problem_text(problem)
            return invalid({"amount": [words]})

    async def _receiver(
        self, given: Any, sender: KnownAccount, errors: dict[str, list[str]]
    ) -> KnownAccount | None:
        if given is None or isinstance(given, bool) or not isinstance(given, int | str):
            errors["receiver_id"] = ["The receiver is required: a user's id."]
            return None
        wallet = await self._openings.receiving(sender.currency, reference=given)
        if wallet is None:
            errors["receiver_id"] = ["There is no such user."]
            return None
        if wallet.user_id == sender.owner:
            errors["receiver_id"] = ["Money cannot be sent to oneself."]
            return None
        return await self._known.of_wallet(wallet)


def invalid(errors: dict[str, list[str]]) -> web.Response:
    first = next(iter(errors.values()))[0]
    return web.Response(
        status=422,
        body=msgspec.json.encode({"message": first, "errors": errors}),
        content_type="application/json",
    )


def _amount(given: Any, currency: str, errors: dict[str, list[str]]) -> int:
    """Minor units; 0 beside an error."""
    text = ""
    if isinstance(given, str):
        text = given
    elif isinstance(given, Decimal):
        # More would have been written with an exponent, or is no number.
        text = f"{given:f}" if given.is_finite() and abs(given.adjusted()) < 20 else ""
    elif isinstance(given, int) and not isinstance(given, bool) and 0 < given <= money.MAX_AMOUNT:
        text = str(given)
    if _DECIMAL.fullmatch(text):
        try:
            return money.from_major(text, currency)
        except money.AmountInvalid:
            text = ""
    errors["amount"] = ["The amount is a positive number with at most two decimals."]
    return 0


def _legacy_transaction(told: TransactionResponse) -> LegacyTransaction:
    return LegacyTransaction(
        id=told.id,
        sender_id=told.sender_id,
        receiver_id=told.receiver_id,
        amount=told.amount_decimal or "0",
        commission_fee=told.fee_decimal,
        metadata=told.metadata,
        created_at=told.created_at,
        updated_at=told.created_at,
    )


def _last(query: LegacyPageQuery, total: int) -> int:
    return max(1, -(-total // query.per_page))


def _links(query: LegacyPageQuery, total: int) -> LegacyLinks:
    last = _last(query, total)

    def to(page: int) -> str:
        return f"{PATH}?page={page}&per_page={query.per_page}"

    return LegacyLinks(
        first=to(1),
        last=to(last),
        prev=to(query.page - 1) if query.page > 1 else None,
        next=to(query.page + 1) if query.page < last else None,
    )


def _meta(query: LegacyPageQuery, total: int, count: int) -> LegacyPageMeta:
    before = (query.page - 1) * query.per_page
    return LegacyPageMeta(
        current_page=query.page,
        from_=before + 1 if count else None,
        last_page=_last(query, total),
        path=PATH,
        per_page=query.per_page,
        to=before + count if count else None,
        total=total,
    )
