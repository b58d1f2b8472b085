"""Transactions over HTTP: one endpoint for all that moves money, told apart by shape, and what is
read of them.

It checks form and whose wallet it is; whether money may move is for the ledger to say.
"""

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Discriminator, Field, Tag

from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import USERS, Scope, UserRole
from ingress.http.routes import Answer, Body, Call, Caller, Route
from ingress.ledger import dry_run, request_fields
from ingress.ledger.account_directory import AccountDirectory, KnownAccount, account_not_found
from ingress.ledger.request_fields import (
    AccountId,
    Amount,
    Currency,
    TransactionFields,
    UserReference,
)
from ingress.ledger.routes.submit import CommandSubmitter
from ingress.ledger.views.responses import AcceptedResponse, TransactionResponse
from ingress.settings import IngressSettings
from ingress.wallets import Openings
from plumbing.postgres.connection_pool import Pool
from processor.rules import plans
from schemas import commands
from schemas.reasons import Reason

TAG: Final = "Transactions"


class FundingRequest(TransactionFields):
    """Money comes into a wallet, or leaves it."""

    entry: Literal["credit", "debit"]
    amount: Amount
    wallet_id: AccountId | None = Field(
        default=None, description="The default one where it is not given."
    )


class TransferRequest(TransactionFields):
    """From a wallet of the caller's to another; the commission is paid by the sender beside it."""

    receiver_id: UserReference | None = None
    receiver_email: str | None = Field(default=None, max_length=254)
    receiver_wallet_id: AccountId | None = None
    amount: Amount
    wallet_id: AccountId | None = Field(
        default=None, description="The sender's; else the default one."
    )


class PostEntryRequest(Body):
    account_id: AccountId
    direction: Literal["debit", "credit"]
    amount: Amount


class PostRequest(TransactionFields):
    """Balanced entries of any accounts, for operators."""

    currency: Currency
    entries: list[PostEntryRequest] = Field(min_length=1, max_length=1_000)
    idempotency_key: request_fields.Key | None = Field(
        default=None, description="The same as `trans_id`."
    )


def _shape(value: Any) -> str:
    if not isinstance(value, Mapping):
        return FUNDING
    if "entries" in value:
        return POST
    return TRANSFER if any(name in value for name in RECEIVERS) else FUNDING


# What begins so is left out of the names of bad fields.
FUNDING, TRANSFER, POST = "shape:funding", "shape:transfer", "shape:post"
RECEIVERS: Final = ("receiver_id", "receiver_email", "receiver_wallet_id")
TransactionRequest = Annotated[
    Annotated[FundingRequest, Tag(FUNDING)]
    | Annotated[TransferRequest, Tag(TRANSFER)]
    | Annotated[PostRequest, Tag(POST)],
    Discriminator(_shape),
]

MONEY_PROBLEMS: Final = (
    Code.WALLET_OPENING,
    Code.TRANS_ID_REQUIRED,
    Code.KEY_AND_TRANS_ID_DIFFER,
    Code.HEADERS_INVALID,
    Code.BUSY,
    Reason.TOO_LARGE,
    Reason.AMOUNT_INVALID,
    Reason.IDEMPOTENCY_KEY_REUSED,
    Reason.ACCOUNT_NOT_FOUND,
    Reason.ACCOUNT_TYPE_NOT_ALLOWED,
    Reason.ACCOUNT_CLOSED,
    Reason.ACCOUNT_FROZEN,
    Reason.CURRENCY_MISMATCH,
    Reason.INSUFFICIENT_FUNDS,
    Reason.BALANCE_OVERFLOW,
    Reason.CONDITION_FAILED,
    Reason.TOO_MANY_PENDING,
    Reason.PARTICIPANT_TIMEOUT,
)


class TransactionRoutes:
    def __init__(
        self,
        settings: IngressSettings,
        pool: Pool,
        known: AccountDirectory,
        openings: Openings,
        answers: CommandSubmitter,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._known = known
        self._openings = openings
        self._answers = answers

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/transactions",
                handler=self.submit,
                summary="Move money",
                tag=TAG,
                roles=USERS,
                scope=Scope.MONEY,
                body=TransactionRequest,
                query=request_fields.ValidateOnly,
                headers=request_fields.MoneyHeaders,
                answers={201: TransactionResponse, 202: AcceptedResponse, 204: None},
                problems=(
                    *MONEY_PROBLEMS,
                    Code.SELF_CREDIT_OFF,
                    Reason.SELF_TRANSFER,
                    Reason.CURRENCY_UNKNOWN,
                    Reason.SYSTEM_ACCOUNT,
                    Reason.TOO_FEW_ENTRIES,
                    Reason.TOO_MANY_ENTRIES,
                    Reason.DUPLICATE_ACCOUNT,
                    Reason.UNBALANCED,
                ),
                description="Waits for the decision, 2 seconds by default: 201 with the"
                " transaction, the reason of a rejection, or 202 with the address to poll at. The"
                " same key and body again is answered as the first time, with"
                " `Idempotent-Replayed: true`.",
            )
        ]

    async def submit(
        self,
        call: Call[FundingRequest | TransferRequest | PostRequest, request_fields.ValidateOnly],
    ) -> Answer:
        body = call.body
        given = body.trans_id
        if isinstance(body, PostRequest):
            if given is not None and body.idempotency_key not in (None, given):
                raise HttpProblem(Code.KEY_AND_TRANS_ID_DIFFER)
            given = given or body.idempotency_key
        key = request_fields.idempotency_key(call.request, given, self._settings.require_trans_id)
        common = request_fields.transaction_fields(call, body, key or str(uuid.uuid4()))
        command: dry_run.MoneyCommand
        if isinstance(body, FundingRequest):
            command, currency = await self._funding(call, body, common)
        elif isinstance(body, TransferRequest):
            command, currency = await self._transfer(call, body, common)
        else:
            command, currency = self._post(call.caller, body, common)
        if call.query.validate_only:
            async with self._pool.connection() as connection:
                reason = await dry_run.refusal(connection, command)
            if reason is not None:
                raise HttpProblem(reason)
            return Answer(None, 204)
        return await self._answers.of(call, command, currency)

    async def _funding(
        self, call: Call[Any, Any], body: FundingRequest, common: dict[str, Any]
    ) -> tuple[commands.Credit | commands.Debit, str]:
        caller = call.caller
        operator = caller.role == UserRole.OPERATOR
        if body.entry == "credit" and not operator and not self._settings.self_credit:
            raise HttpProblem(Code.SELF_CREDIT_OFF)
        wallet = await self._known.chosen(caller, body.wallet_id)
        await self._known.require_open(wallet, request_fields.DEFAULT_WAIT_S)
        amount = request_fields.minor_units(body.amount, wallet.currency)
        kind = commands.Credit if body.entry == "credit" else commands.Debit
        return kind(account=wallet.id, amount=amount, **common), wallet.currency

    async def _transfer(
        self, call: Call[Any, Any], body: TransferRequest, common: dict[str, Any]
    ) -> tuple[commands.Transfer, str]:
        sender = await self._known.chosen(call.caller, body.wallet_id)
        receiver = await self.receiver(call.caller, sender, body)
        await self._known.require_open(sender, request_fields.DEFAULT_WAIT_S)
        await self._known.require_open(receiver, request_fields.DEFAULT_WAIT_S)
        amount = request_fields.minor_units(body.amount, sender.currency)
        command = commands.Transfer(account=sender.id, to=receiver.id, amount=amount, **common)
        return command, sender.currency

    async def receiver(
        self, caller: Caller, sender: KnownAccount, body: TransferRequest
    ) -> KnownAccount:
        """The wallet that is named, or the user's: the default one, or one of the currency."""
        named = [name for name in RECEIVERS if getattr(body, name) is not None]
        if len(named) != 1:
            raise request_fields.bad_field(
                Code.FIELDS_INVALID, RECEIVERS[0], "name the receiver, by one field"
            )
        field = named[0]
        if body.receiver_wallet_id is not None:
            found = await self._known.find_receiver(caller, body.receiver_wallet_id)
            if found is None:
                raise account_not_found(field, "There is no such wallet.")
            if found.id == sender.id:
                raise request_fields.bad_field(Reason.SELF_TRANSFER, field, "is the sender's own")
            return found
        wallet = await self._openings.receiving(
            sender.currency, reference=body.receiver_id, email=body.receiver_email
        )
        if wallet is None:
            raise account_not_found(field, "There is no such user.")
        if wallet.user_id == sender.owner:
            raise request_fields.bad_field(Reason.SELF_TRANSFER, field, "is the sender")
        return await self._known.of_wallet(wallet)

    def _post(
        self, caller: Caller, body: PostRequest, common: dict[str, Any]
    ) -> tuple[commands.Post, str]:
        if caller.role != UserRole.OPERATOR:
            raise HttpProblem(Code.FORBIDDEN, "Entries are posted by operators.")
        entries = tuple(
            commands.PostEntry(
                account=each.account_id,
                direction=each.direction,
                amount=request_fields.minor_units(
                    each.amount, body.currency, f"entries.{index}.amount"
                ),
            )
            for index, each in enumerate(body.entries)
        )
        command = commands.Post(account="-", currency=body.currency, entries=entries, **common)
        account = plans.coordinating_account(command)
        if account is None:
            raise request_fields.bad_field(
                Reason.SYSTEM_ACCOUNT, "entries", "has no ordinary account"
            )
        return msgspec.structs.replace(command, account=account), body.currency
