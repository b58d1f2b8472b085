"""The endpoint for everything that moves money: credit, debit, transfer and post, distinguished by
the shape of the body.

It checks the form of a request and who owns the account; the ledger decides whether money may move.
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
from plumbing.postgres.connection_pool import Pool
from processor.rules import plans
from schemas import commands
from schemas.reasons import Reason

TAG: Final = "Transactions"


class FundingRequest(TransactionFields):
    """Adds money to a wallet, or takes money out of it."""

    entry: Literal["credit", "debit"]
    amount: Amount
    wallet_id: AccountId | None = Field(
        default=None, description="The caller's default wallet if omitted."
    )


class TransferRequest(TransactionFields):
    """Moves money from the caller's wallet to another; the sender pays a commission on top."""

    receiver_id: UserReference | None = None
    receiver_email: str | None = Field(default=None, max_length=254)
    receiver_wallet_id: AccountId | None = None
    amount: Amount
    wallet_id: AccountId | None = Field(
        default=None, description="The sender's wallet; the caller's default wallet if omitted."
    )


class PostEntryRequest(Body):
    account_id: AccountId
    direction: Literal["debit", "credit"]
    amount: Amount


class PostRequest(TransactionFields):
    """Balanced entries of any accounts; for operators."""

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


# Names with this prefix are left out of the paths of invalid fields.
FUNDING, TRANSFER, POST = "shape:funding", "shape:transfer", "shape:post"
RECEIVERS: Final = ("receiver_id", "receiver_email", "receiver_wallet_id")
TransactionRequest = Annotated[
    Annotated[FundingRequest, Tag(FUNDING)]
    | Annotated[TransferRequest, Tag(TRANSFER)]
    | Annotated[PostRequest, Tag(POST)],
    Discriminator(_shape),
]

TransactionCall = Call[FundingRequest | TransferRequest | PostRequest, request_fields.ValidateOnly]

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
        directory: AccountDirectory,
        submitter: CommandSubmitter,
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._directory = directory
        self._submitter = submitter

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/transactions",
                handler=self.create,
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
                description="Waits for the decision, 2 seconds by default, and answers 201 with"
                " the transaction, the reason of a rejection, or 202 with the URL to poll. A repeat"
                " with the same key and body gets the first answer, with"
                " `Idempotent-Replayed: true`.",
            )
        ]

    async def create(self, call: TransactionCall) -> Answer:
        body = call.body
        trans_id = body.trans_id
        if isinstance(body, PostRequest):
            if trans_id is not None and body.idempotency_key not in (None, trans_id):
                raise HttpProblem(Code.KEY_AND_TRANS_ID_DIFFER)
            trans_id = trans_id or body.idempotency_key
        required = self._settings.require_trans_id
        key = request_fields.idempotency_key(call.request, trans_id, required)
        fields = request_fields.transaction_fields(call, body, key or str(uuid.uuid4()))
        command: dry_run.MoneyCommand
        if isinstance(body, FundingRequest):
            command, currency = await self._funding(call.caller, body, fields)
        elif isinstance(body, TransferRequest):
            command, currency = await self._transfer(call.caller, body, fields)
        else:
            command, currency = self._post(call.caller, body, fields)
        if call.query.validate_only:
            async with self._pool.connection() as connection:
                reason = await dry_run.refusal(connection, command)
            if reason is not None:
                raise HttpProblem(reason)
            return Answer(None, 204)
        return await self._submitter.submit(call, command, currency)

    async def _funding(
        self, caller: Caller, body: FundingRequest, fields: dict[str, Any]
    ) -> tuple[commands.Credit | commands.Debit, str]:
        operator = caller.role == UserRole.OPERATOR
        if body.entry == "credit" and not operator and not self._settings.self_credit:
            raise HttpProblem(Code.SELF_CREDIT_OFF)
        account = await self._directory.source(caller, body.wallet_id)
        await self._directory.require_open(account)
        amount = request_fields.minor_units(body.amount, account.currency)
        kind = commands.Credit if body.entry == "credit" else commands.Debit
        return kind(account=account.id, amount=amount, **fields), account.currency

    async def _transfer(
        self, caller: Caller, body: TransferRequest, fields: dict[str, Any]
    ) -> tuple[commands.Transfer, str]:
        account = await self._directory.source(caller, body.wallet_id)
        receiver = await self._receiver(caller, account, body)
        await self._directory.require_open(account, receiver)
        amount = request_fields.minor_units(body.amount, account.currency)
        command = commands.Transfer(account=account.id, to=receiver.id, amount=amount, **fields)
        return command, account.currency

    async def _receiver(
        self, caller: Caller, sender: KnownAccount, body: TransferRequest
    ) -> KnownAccount:
        """The named wallet, or the named user's: of the sender's currency, or the default one."""
        named = [name for name in RECEIVERS if getattr(body, name) is not None]
        if len(named) != 1:
            raise request_fields.bad_field(
                Code.FIELDS_INVALID, RECEIVERS[0], "name the receiver in exactly one field"
            )
        field = named[0]
        if body.receiver_wallet_id is not None:
            receiver = await self._directory.find_receiver(caller, body.receiver_wallet_id)
            if receiver is None:
                raise account_not_found(field, "Wallet not found.")
            if receiver.id == sender.id:
                raise request_fields.bad_field(Reason.SELF_TRANSFER, field, "is the sender's own")
            return receiver
        receiver = await self._directory.find_receiver_wallet(
            sender.currency, reference=body.receiver_id, email=body.receiver_email
        )
        if receiver is None:
            raise account_not_found(field, "User not found.")
        if receiver.owner == sender.owner:
            raise request_fields.bad_field(Reason.SELF_TRANSFER, field, "is the sender")
        return receiver

    def _post(
        self, caller: Caller, body: PostRequest, fields: dict[str, Any]
    ) -> tuple[commands.Post, str]:
        if caller.role != UserRole.OPERATOR:
            raise HttpProblem(Code.FORBIDDEN, "Only operators may post entries.")
        entries = tuple(
            commands.PostEntry(
                account=entry.account_id,
                direction=entry.direction,
                amount=request_fields.minor_units(
                    entry.amount, body.currency, f"entries.{index}.amount"
                ),
            )
            for index, entry in enumerate(body.entries)
        )
        command = commands.Post(account="-", currency=body.currency, entries=entries, **fields)
        account = plans.coordinating_account(command)
        if account is None:
            raise request_fields.bad_field(
                Reason.SYSTEM_ACCOUNT, "entries", "has no ordinary account"
            )
        return msgspec.structs.replace(command, account=account), body.currency
