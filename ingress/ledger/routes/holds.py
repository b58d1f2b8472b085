"""Holds, captures, voids and reversals: what is asked about an earlier transaction, or kept for a
later one.

What is named by id and not in the books yet is waited for. Whether it may happen is for the ledger
to say.
"""

import asyncio
import uuid
from typing import Any, Final, Literal

from pydantic import Field

from ingress.http import routes
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import OPERATORS, USERS, Scope, UserRole
from ingress.http.routes import Answer, Call, Caller, Instant, Moment, Query, ResponseModel, Route
from ingress.ledger import request_fields
from ingress.ledger.account_directory import AccountDirectory, KnownAccount
from ingress.ledger.client.outcome_lookup import party_filter
from ingress.ledger.client.submission import Submission
from ingress.ledger.request_fields import AccountId, Amount, TransactionFields
from ingress.ledger.routes import paged_lists
from ingress.ledger.routes.paged_lists import LIST_ROLES, CursorQuery, OwnerScope, TransactionLists
from ingress.ledger.routes.submit import CommandSubmitter, posted_view
from ingress.ledger.routes.transactions import MONEY_PROBLEMS
from ingress.ledger.views.responses import AcceptedResponse, PageMeta, TransactionResponse
from ingress.ledger.views.transaction_view import TransactionView
from ingress.settings import IngressSettings
from plumbing.postgres.connection_pool import Pool
from schemas import commands, field_types, money
from schemas.commands import Command
from schemas.reasons import Reason
from sinks.reads import accounts, transactions
from sinks.reads.transactions import HoldView

TAG: Final = "Holds and reversals"
Status = Literal["open", "capturing", "captured", "voided", "expired"]


class HoldRequest(TransactionFields):
    amount: Amount
    wallet_id: AccountId | None = Field(default=None, description="Else the default one.")
    expires_at: Moment | None = None


class CaptureRequest(TransactionFields):
    """Without an amount: the whole hold. What is not captured is released."""

    amount: Amount | None = None
    to_wallet_id: AccountId | None = Field(
        default=None, description="For operators; else the money leaves the ledger."
    )


class EmptyRequest(TransactionFields):
    pass


class HoldResponse(ResponseModel):
    id: str
    wallet_id: str
    currency: str
    status: Status
    amount: int
    amount_decimal: str
    captured: int
    captured_decimal: str
    placed_at: Instant
    changed_at: Instant
    expires_at: Instant


class HoldList(ResponseModel):
    data: list[HoldResponse]
    meta: PageMeta


class HoldPath(Query):
    id: request_fields.TransactionId


class HoldQuery(CursorQuery):
    wallet_id: AccountId | None = None
    account_id: AccountId | None = Field(default=None, description="The same as `wallet_id`.")
    user_id: str | None = Field(default=None, max_length=64, description="Integer id, or uuid.")
    status: Status | None = None


class HoldRoutes:
    def __init__(
        self,
        settings: IngressSettings,
        pool: Pool,
        known: AccountDirectory,
        submissions: Submission,
        answers: CommandSubmitter,
        lists: TransactionLists,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._known = known
        self._submissions = submissions
        self._answers = answers
        self._lists = lists

    def routes(self) -> list[Route]:
        return [
            self._route("/holds", self.place, "Keep money for later", HoldRequest, USERS),
            self._route(
                "/holds/{id}/capture",
                self.capture,
                "Turn a hold, or a part of it, into a payment",
                CaptureRequest,
                USERS,
                HOLD_PROBLEMS,
            ),
            self._route(
                "/holds/{id}/void", self.void, "Release a hold", EmptyRequest, USERS, HOLD_PROBLEMS
            ),
            self._route(
                "/transactions/{id}/reverse",
                self.reverse,
                "Undo a transaction, once and whole",
                EmptyRequest,
                OPERATORS,
                (
                    Reason.TRANSACTION_NOT_FOUND,
                    Reason.NOT_REVERSIBLE,
                    Reason.ALREADY_REVERSED,
                    Reason.REVERSAL_PENDING,
                ),
            ),
            routes.reading(
                "/holds",
                self.browse,
                "Holds, the latest first",
                TAG,
                LIST_ROLES,
                HoldList,
                query=HoldQuery,
                problems=(Reason.ACCOUNT_NOT_FOUND, Code.PAGE_TOO_DEEP),
                description="A user's: those of all their wallets, or of `wallet_id`. Operators and"
                " auditors see all, and those of any account or user.",
            ),
            routes.reading(
                "/holds/{id}",
                self.show,
                "One hold as it is now",
                TAG,
                LIST_ROLES,
                HoldResponse,
                params=HoldPath,
                problems=(Reason.HOLD_NOT_FOUND,),
            ),
        ]

    def _route(
        self,
        path: str,
        handler: Any,
        summary: str,
        body: Any,
        roles: frozenset[UserRole],
        problems: tuple[Reason, ...] = (),
    ) -> Route:
        return Route(
            method="POST",
            path=path,
            handler=handler,
            summary=summary,
            tag=TAG,
            roles=roles,
            scope=Scope.MONEY,
            body=body,
            body_required=body is HoldRequest,
            params=HoldPath if "{id}" in path else None,
            headers=request_fields.MoneyHeaders,
            answers={201: TransactionResponse, 202: AcceptedResponse},
            problems=(*MONEY_PROBLEMS, *problems),
        )

    async def place(self, call: Call[HoldRequest, None]) -> Answer:
        body = call.body
        wallet = await self._known.chosen(call.caller, body.wallet_id)
        await self._known.require_open(wallet, request_fields.DEFAULT_WAIT_S)
        expires = None
        if body.expires_at is not None:
            expires = round(body.expires_at.timestamp() * 1_000)
            if not field_types.EARLIEST_MS <= expires <= field_types.LATEST_MS:
                raise request_fields.bad_field(
                    Reason.TIME_OUT_OF_RANGE, "expires_at", "is out of range"
                )
        command = commands.Hold(
            account=wallet.id,
            amount=request_fields.minor_units(body.amount, wallet.currency),
            expires_at_ms=expires,
            **self._common(call, body),
        )
        return await self._answers.of(call, command, wallet.currency)

    async def capture(self, call: Call[CaptureRequest | None, None]) -> Answer:
        body = call.body or CaptureRequest()
        hold, on = await self._hold(call)
        if body.to_wallet_id is not None:
            if call.caller.role != UserRole.OPERATOR:
                raise request_fields.bad_field(
                    Reason.ACCOUNT_NOT_FOUND, "to_wallet_id", "is for operators"
                )
            await self._known.may_use(call.caller, body.to_wallet_id, "to_wallet_id")
        amount = (
            None if body.amount is None else request_fields.minor_units(body.amount, on.currency)
        )
        command = commands.Capture(
            account=on.id,
            hold_id=hold.id,
            to=body.to_wallet_id,
            amount=amount,
            **self._common(call, body),
        )
        return await self._answers.of(call, command, on.currency)

    async def void(self, call: Call[EmptyRequest | None, None]) -> Answer:
        hold, on = await self._hold(call)
        common = self._common(call, call.body or EmptyRequest())
        return await self._answers.of(
            call, commands.Void(account=on.id, hold_id=hold.id, **common), on.currency
        )

    async def reverse(self, call: Call[EmptyRequest | None, None]) -> Answer:
        id = call.path["id"]
        original = await self._wait_for(call, id)
        if original is None:
            raise HttpProblem(Reason.TRANSACTION_NOT_FOUND)
        known = (await self._known.all_of([original.account])).get(original.account)
        if known is None:
            raise HttpProblem(Reason.TRANSACTION_NOT_FOUND)
        common = self._common(call, call.body or EmptyRequest())
        command: Command = commands.Reverse(account=known.id, transaction_id=id, **common)
        return await self._answers.of(call, command, known.currency)

    def _common(self, call: Call[Any, Any], body: TransactionFields) -> dict[str, Any]:
        required = self._settings.require_trans_id
        key = request_fields.idempotency_key(call.request, body.trans_id, required) or str(
            uuid.uuid4()
        )
        return request_fields.transaction_fields(call, body, key)

    async def _wait_for(self, call: Call[Any, Any], id: str) -> TransactionView | None:
        """A transaction that the books may not have yet."""
        deadline = asyncio.get_running_loop().time() + request_fields.wait_s(call.request)
        found = await self._submissions.until_decided(id, None, deadline, party_filter(call.caller))
        return None if found is None else posted_view(found)

    async def _hold(self, call: Call[Any, Any]) -> tuple[HoldView, KnownAccount]:
        id = call.path["id"]
        await self._wait_for(call, id)
        return await self._own_hold(call.caller, id)

    async def _own_hold(self, caller: Caller, id: str) -> tuple[HoldView, KnownAccount]:
        async with self._pool.connection() as connection:
            hold = await transactions.hold(connection, id, party_filter(caller))
        known = None if hold is None else await self._known.find(hold.account)
        if hold is None or known is None:
            raise HttpProblem(Reason.HOLD_NOT_FOUND)
        return hold, known

    async def show(self, call: Call[None, None]) -> Answer:
        hold, _ = await self._own_hold(call.caller, call.path["id"])
        return Answer(_shown(hold))

    async def browse(self, call: Call[None, HoldQuery]) -> Answer:
        query = call.query
        whose = await self._lists.whose(
            call.caller, query.wallet_id, query.account_id, query.user_id
        )
        async with self._pool.connection() as connection:
            named = None if whose is None else [whose.id]
            if isinstance(whose, OwnerScope):
                named = list(await accounts.versions_of(connection, whose.id))
            statuses = {} if query.status is None else {"statuses": [query.status]}
            page = await paged_lists.page_or_problem(
                transactions.holds(
                    connection,
                    named,
                    limit=query.limit,
                    cursor=self._lists.cursor(query),
                    **statuses,
                )
            )
        meta = self._lists.meta(query, page)
        return Answer(HoldList(data=[_shown(each) for each in page.items], meta=meta))


HOLD_PROBLEMS: Final = (
    Reason.HOLD_NOT_FOUND,
    Reason.HOLD_CLOSED,
    Reason.HOLD_BUSY,
    Reason.HOLD_EXPIRED,
    Reason.CAPTURE_EXCEEDS_HOLD,
)


def _shown(hold: HoldView) -> HoldResponse:
    return HoldResponse(
        id=hold.id,
        wallet_id=hold.account,
        currency=hold.currency,
        status=hold.status,
        amount=hold.amount,
        amount_decimal=money.to_major(hold.amount, hold.currency),
        captured=hold.captured,
        captured_decimal=money.to_major(hold.captured, hold.currency),
        placed_at=hold.placed_at,
        changed_at=hold.changed_at,
        expires_at=hold.expires_at,
    )
