"""Holds, captures, voids and reversals.

A hold or transaction that is named by id and not in the books yet is waited for. The ledger decides
whether it may be captured, voided or reversed.
"""

import asyncio
import uuid
from typing import Any, Final, Literal

from pydantic import Field

from ingress.http import request_headers, routes
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
    wallet_id: AccountId | None = Field(
        default=None, description="The caller's default wallet if omitted."
    )
    expires_at: Moment | None = None


class CaptureRequest(TransactionFields):
    """By default captures the whole hold. The rest of the hold is released."""

    amount: Amount | None = None
    to_wallet_id: AccountId | None = Field(
        default=None, description="For operators. If omitted, the money leaves the ledger."
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
    account_id: AccountId | None = Field(default=None, description="Same as `wallet_id`.")
    user_id: str | None = Field(default=None, max_length=64, description="Integer id or uuid.")
    status: Status | None = None


class HoldRoutes:
    def __init__(
        self,
        settings: IngressSettings,
        pool: Pool,
        directory: AccountDirectory,
        submission: Submission,
        submitter: CommandSubmitter,
        lists: TransactionLists,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._directory = directory
        self._submission = submission
        self._submitter = submitter
        self._lists = lists

    def routes(self) -> list[Route]:
        return [
            self._route("/holds", self.place, "Place a hold", HoldRequest, USERS),
            self._route(
                "/holds/{id}/capture",
                self.capture,
                "Capture a hold, or part of it",
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
                "Reverse a transaction",
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
                "List holds, latest first",
                TAG,
                LIST_ROLES,
                HoldList,
                query=HoldQuery,
                problems=(Reason.ACCOUNT_NOT_FOUND, Code.PAGE_TOO_DEEP),
                description="Users see the holds of all their wallets, or of `wallet_id`. Operators"
                " and auditors see all holds, or those of any account or user.",
            ),
            routes.reading(
                "/holds/{id}",
                self.show,
                "Get a hold",
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
        account = await self._directory.source(call.caller, body.wallet_id)
        await self._directory.require_open(account)
        expires_at_ms = None
        if body.expires_at is not None:
            expires_at_ms = round(body.expires_at.timestamp() * 1_000)
            if not field_types.EARLIEST_MS <= expires_at_ms <= field_types.LATEST_MS:
                raise request_fields.bad_field(
                    Reason.TIME_OUT_OF_RANGE, "expires_at", "is out of range"
                )
        command = commands.Hold(
            account=account.id,
            amount=request_fields.minor_units(body.amount, account.currency),
            expires_at_ms=expires_at_ms,
            **self._fields(call, body),
        )
        return await self._submitter.submit(call, command, account.currency)

    async def capture(self, call: Call[CaptureRequest | None, None]) -> Answer:
        body = call.body or CaptureRequest()
        hold, account = await self._hold(call)
        if body.to_wallet_id is not None:
            if call.caller.role != UserRole.OPERATOR:
                raise request_fields.bad_field(
                    Reason.ACCOUNT_NOT_FOUND, "to_wallet_id", "is for operators only"
                )
            await self._directory.accessible(call.caller, body.to_wallet_id, "to_wallet_id")
        amount = (
            None
            if body.amount is None
            else request_fields.minor_units(body.amount, account.currency)
        )
        command = commands.Capture(
            account=account.id,
            hold_id=hold.id,
            to=body.to_wallet_id,
            amount=amount,
            **self._fields(call, body),
        )
        return await self._submitter.submit(call, command, account.currency)

    async def void(self, call: Call[EmptyRequest | None, None]) -> Answer:
        hold, account = await self._hold(call)
        fields = self._fields(call, call.body or EmptyRequest())
        command = commands.Void(account=account.id, hold_id=hold.id, **fields)
        return await self._submitter.submit(call, command, account.currency)

    async def reverse(self, call: Call[EmptyRequest | None, None]) -> Answer:
        id = call.path["id"]
        original = await self._wait_for_transaction(call, id)
        if original is None:
            raise HttpProblem(Reason.TRANSACTION_NOT_FOUND)
        account = (await self._directory.by_ids([original.account])).get(original.account)
        if account is None:
            raise HttpProblem(Reason.TRANSACTION_NOT_FOUND)
        fields = self._fields(call, call.body or EmptyRequest())
        command: Command = commands.Reverse(account=account.id, transaction_id=id, **fields)
        return await self._submitter.submit(call, command, account.currency)

    def _fields(self, call: Call[Any, Any], body: TransactionFields) -> dict[str, Any]:
        required = self._settings.require_trans_id
        key = request_fields.idempotency_key(call.request, body.trans_id, required) or str(
            uuid.uuid4()
        )
        return request_fields.transaction_fields(call, body, key)

    async def _wait_for_transaction(self, call: Call[Any, Any], id: str) -> TransactionView | None:
        """Waits for a transaction that may not be in the books yet."""
        deadline = asyncio.get_running_loop().time() + request_headers.wait_s(call.request)
        party = party_filter(call.caller)
        outcome = await self._submission.wait_until_decided(id, None, deadline, party)
        return None if outcome is None else posted_view(outcome)

    async def _hold(self, call: Call[Any, Any]) -> tuple[HoldView, KnownAccount]:
        id = call.path["id"]
        await self._wait_for_transaction(call, id)
        return await self._own_hold(call.caller, id)

    async def _own_hold(self, caller: Caller, id: str) -> tuple[HoldView, KnownAccount]:
        async with self._pool.connection() as connection:
            hold = await transactions.hold(connection, id, party_filter(caller))
        account = None if hold is None else await self._directory.find(hold.account)
        if hold is None or account is None:
            raise HttpProblem(Reason.HOLD_NOT_FOUND)
        return hold, account

    async def show(self, call: Call[None, None]) -> Answer:
        hold, _ = await self._own_hold(call.caller, call.path["id"])
        return Answer(_hold_response(hold))

    async def browse(self, call: Call[None, HoldQuery]) -> Answer:
        query = call.query
        scope = await self._lists.scope(
            call.caller, query.wallet_id, query.account_id, query.user_id
        )
        async with self._pool.connection() as connection:
            account_ids = None if scope is None else [scope.id]
            if isinstance(scope, OwnerScope):
                account_ids = list(await accounts.owner_versions(connection, scope.id))
            statuses = {} if query.status is None else {"statuses": [query.status]}
            page = await paged_lists.page_or_problem(
                transactions.holds(
                    connection,
                    account_ids,
                    limit=query.limit,
                    cursor=self._lists.cursor(query),
                    **statuses,
                )
            )
        meta = self._lists.meta(query, page)
        return Answer(HoldList(data=[_hold_response(hold) for hold in page.items], meta=meta))


HOLD_PROBLEMS: Final = (
    Reason.HOLD_NOT_FOUND,
    Reason.HOLD_CLOSED,
    Reason.HOLD_BUSY,
    Reason.HOLD_EXPIRED,
    Reason.CAPTURE_EXCEEDS_HOLD,
)


def _hold_response(hold: HoldView) -> HoldResponse:
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
