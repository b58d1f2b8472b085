"""The routes of the older app, with its own units, pages and errors.

Only here is a JSON number in major units. It is parsed as a decimal, never as a float.
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
from ingress.ledger.views.responses import (
    AcceptedResponse,
    TransactionPresenter,
    TransactionResponse,
)
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
                    "description": "Major units, as a number or text; two decimals at most.",
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
        directory: AccountDirectory,
        lists: TransactionLists,
        submitter: CommandSubmitter,
        presenter: TransactionPresenter,
    ) -> None:
        self._pool = pool
        self._directory = directory
        self._lists = lists
        self._submitter = submitter
        self._presenter = presenter

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
        wallet = await self._directory.default_wallet(caller)
        async with self._pool.connection() as connection:
            now = await accounts.balance(connection, wallet.id)
        page_query = paged_lists.PageQuery(page=query.page, limit=query.per_page)
        page = await self._lists.history(wallet, page_query, NO_FILTER, None, None)
        items = await self._lists.items(caller, page)
        balance = 0 if now is None else now.balance
        return Answer(
            LegacyOverview(
                data=LegacyOverviewData(
                    balance=money.to_major(balance, wallet.currency),
                    transactions=LegacyTransactionPage(
                        data=[_legacy_transaction(item) for item in items],
                        links=_links(query, page.total or 0),
                        meta=_page_meta(query, page.total or 0, len(items)),
                    ),
                )
            )
        )

    async def send(self, call: Call[dict[str, Any], None]) -> Answer | web.StreamResponse:
        caller, body = call.caller, call.body
        sender = await self._directory.default_wallet(caller)
        errors: dict[str, list[str]] = {
            name: ["Unknown field."] for name in body if name not in ("receiver_id", "amount")
        }
        receiver = await self._receiver(body.get("receiver_id"), sender, errors)
        amount = _amount(body.get("amount"), sender.currency, errors)
        if errors or receiver is None:
            return invalid(errors)
        await self._directory.require_open(sender, receiver)
        key = request_fields.idempotency_key(call.request, None, False) or str(uuid.uuid4())
        command = commands.Transfer(
            account=sender.id,
            to=receiver.id,
            amount=amount,
            **request_fields.sender_fields(call, key),
        )

        async def present(outcome: Outcome) -> Answer:
            view = submit.posted_view(outcome)
            response = await self._presenter.present(view, caller, sender.id)
            return Answer(_legacy_transaction(response), 201, submit.replay_headers(outcome))

        try:
            return await self._submitter.submit_and_present(call, command, sender.currency, present)
        except HttpProblem as problem:
            if not isinstance(problem.code, Reason):
                raise
            return invalid({"amount": [submit.problem_text(problem)]})

    async def _receiver(
        self, receiver_id: Any, sender: KnownAccount, errors: dict[str, list[str]]
    ) -> KnownAccount | None:
        if isinstance(receiver_id, bool) or not isinstance(receiver_id, int | str):
            errors["receiver_id"] = ["The receiver's user id is required."]
            return None
        receiver = await self._directory.find_receiver_wallet(
            sender.currency, reference=receiver_id
        )
        if receiver is None:
            errors["receiver_id"] = ["User not found."]
            return None
        if receiver.owner == sender.owner:
            errors["receiver_id"] = ["You cannot send money to yourself."]
            return None
        return receiver


def invalid(errors: dict[str, list[str]]) -> web.Response:
    first = next(iter(errors.values()))[0]
    return web.Response(
        status=422,
        body=msgspec.json.encode({"message": first, "errors": errors}),
        content_type="application/json",
    )


def _amount(value: Any, currency: str, errors: dict[str, list[str]]) -> int:
    """Minor units; 0 if an error was added."""
    text = ""
    if isinstance(value, str):
        text = value
    elif isinstance(value, Decimal):
        # Longer numbers would need an exponent.
        text = f"{value:f}" if value.is_finite() and abs(value.adjusted()) < 20 else ""
    elif isinstance(value, int) and not isinstance(value, bool) and 0 < value <= money.MAX_AMOUNT:
        text = str(value)
    if _DECIMAL.fullmatch(text):
        try:
            return money.from_major(text, currency)
        except money.AmountInvalid:
            text = ""
    errors["amount"] = ["The amount must be a positive number with at most two decimals."]
    return 0


def _legacy_transaction(transaction: TransactionResponse) -> LegacyTransaction:
    return LegacyTransaction(
        id=transaction.id,
        sender_id=transaction.sender_id,
        receiver_id=transaction.receiver_id,
        amount=transaction.amount_decimal or "0",
        commission_fee=transaction.fee_decimal,
        metadata=transaction.metadata,
        created_at=transaction.created_at,
        updated_at=transaction.created_at,
    )


def _last_page(query: LegacyPageQuery, total: int) -> int:
    return max(1, -(-total // query.per_page))


def _links(query: LegacyPageQuery, total: int) -> LegacyLinks:
    last = _last_page(query, total)

    def link(page: int) -> str:
        return f"{PATH}?page={page}&per_page={query.per_page}"

    return LegacyLinks(
        first=link(1),
        last=link(last),
        prev=link(query.page - 1) if query.page > 1 else None,
        next=link(query.page + 1) if query.page < last else None,
    )


def _page_meta(query: LegacyPageQuery, total: int, count: int) -> LegacyPageMeta:
    before = (query.page - 1) * query.per_page
    return LegacyPageMeta(
        current_page=query.page,
        from_=before + 1 if count else None,
        last_page=_last_page(query, total),
        path=PATH,
        per_page=query.per_page,
        to=before + count if count else None,
        total=total,
    )
