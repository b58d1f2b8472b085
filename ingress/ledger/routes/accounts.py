"""Accounts of all types, for operators: opened, changed, frozen and closed, and the trial balance.

Every change is a command like any other; the ledger decides whether it may happen.
"""

import uuid
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from ingress.http import routes
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import OPERATORS, READERS, Scope
from ingress.http.routes import Answer, Body, Call, Instant, Query, ResponseModel, Route
from ingress.ledger import request_fields
from ingress.ledger.account_directory import AccountDirectory, KnownAccount
from ingress.ledger.client.outcome_lookup import Outcome
from ingress.ledger.request_fields import AccountId, Currency
from ingress.ledger.routes import paged_lists, submit
from ingress.ledger.routes.paged_lists import CursorQuery, PageQuery, TransactionLists
from ingress.ledger.routes.submit import CommandSubmitter
from ingress.ledger.routes.wallets import BalanceQuery, BalanceResponse, WalletRoutes
from ingress.ledger.views import responses
from ingress.ledger.views.responses import AcceptedResponse, PageMeta, TransactionList
from ingress.users.directory import UserDirectory
from ingress.wallets import wallet_view
from plumbing.postgres.connection_pool import Pool
from schemas import commands, field_types, money
from schemas.commands import Command
from schemas.reasons import Reason
from schemas.validation import command_validation
from sinks.reads import accounts
from sinks.reads.history import NO_FILTER

TAG: Final = "Accounts"
Type = Literal["wallet", "asset", "liability", "equity", "revenue", "expense"]
Status = Literal["open", "frozen", "closed"]
# The name of an account is kept in its metadata.
NAME_KEY: Final = "name"
# Leaves room for the name.
MAX_METADATA_BYTES: Final = field_types.MAX_METADATA_BYTES - 1_024
Limit = Field(
    default=None,
    ge=-money.MAX_AMOUNT,
    le=0,
    description="The lowest available balance allowed, in minor units; negative for an overdraft.",
)


class NewAccount(Body):
    id: AccountId | None = Field(default=None, description="Generated if omitted.")
    name: str | None = Field(default=None, min_length=1, max_length=200)
    account_type: Type
    currency: Currency | None = Field(default=None, description="The default currency if omitted.")
    limit: int | None = Limit
    user_id: request_fields.UserReference | None = None
    metadata: dict[str, str] = Field(default={}, description="At most 4 KiB including the name.")

    @field_validator("metadata")
    @classmethod
    def _fits(cls, value: dict[str, str]) -> dict[str, str]:
        return _require_size(value)


class AccountChanges(Body):
    """Changes the given fields, all or nothing."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    name: str | None = Field(
        default=None, min_length=1, max_length=200, description="Null removes it."
    )
    limit: int | None = Limit
    metadata: dict[str, str | None] = Field(
        default={},
        description="Sets each given name, or removes it if the value is null or empty; the others"
        " stay. At most 3 KiB, and 4 KiB together with what is stored.",
    )

    @field_validator("metadata")
    @classmethod
    def _fits(cls, value: dict[str, str | None]) -> dict[str, str]:
        return _require_size({name: text or "" for name, text in value.items()})


class AccountResponse(ResponseModel):
    id: str
    name: str | None
    account_type: Type
    currency: str
    status: Status
    limit: int | None
    limit_decimal: str | None
    user_id: int | None
    balance: int
    held: int
    available: int
    balance_decimal: str
    held_decimal: str
    available_decimal: str
    version: int
    metadata: dict[str, str]
    created_at: Instant


class AccountList(ResponseModel):
    data: list[AccountResponse]
    meta: PageMeta


class TrialLineResponse(ResponseModel):
    """A type of account, or a system account. Amounts are text, as JSON numbers are too small."""

    currency: str
    name: str
    debit: str
    credit: str


class TrialBalanceResponse(ResponseModel):
    """In minor units, as text. In each currency, debits equal credits."""

    data: list[TrialLineResponse]


class AccountPath(Query):
    id: AccountId


class AccountQuery(CursorQuery):
    user_id: str | None = Field(default=None, max_length=64)
    currency: Currency | None = None
    account_type: Type | None = None
    status: Status | None = None


class CurrencyQuery(Query):
    currency: Currency | None = None


ACCOUNT_PROBLEMS: Final = (
    Code.HEADERS_INVALID,
    Code.BUSY,
    Reason.IDEMPOTENCY_KEY_REUSED,
    Reason.ACCOUNT_NOT_FOUND,
    Reason.ACCOUNT_CLOSED,
    Reason.ACCOUNT_FROZEN,
    Reason.ACCOUNT_NOT_EMPTY,
    Reason.LIMIT_OUT_OF_BOUNDS,
    Reason.INSUFFICIENT_FUNDS,
    Reason.CONDITION_FAILED,
)


class AccountRoutes:
    def __init__(
        self,
        default_currency: str,
        pool: Pool,
        directory: AccountDirectory,
        users: UserDirectory,
        submitter: CommandSubmitter,
        lists: TransactionLists,
        wallet_routes: WalletRoutes,
    ) -> None:
        self._default_currency = default_currency
        self._pool = pool
        self._directory = directory
        self._users = users
        self._submitter = submitter
        self._lists = lists
        self._wallet_routes = wallet_routes

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/accounts",
                handler=self.open,
                summary="Open an account",
                tag=TAG,
                roles=OPERATORS,
                scope=Scope.ACCOUNTS,
                body=NewAccount,
                headers=request_fields.MoneyHeaders,
                answers={201: AccountResponse, 202: AcceptedResponse},
                problems=(
                    *ACCOUNT_PROBLEMS,
                    Reason.ACCOUNT_EXISTS,
                    Reason.CURRENCY_UNKNOWN,
                    Reason.SYSTEM_ACCOUNT,
                ),
            ),
            self._read("/accounts", self.browse, "List accounts by id", AccountList, AccountQuery),
            self._read("/accounts/{id}", self.show, "Get an account", AccountResponse, None),
            self._read(
                "/accounts/{id}/balance",
                self._wallet_routes.balance,
                "Get an account's balance",
                BalanceResponse,
                BalanceQuery,
            ),
            self._read(
                "/accounts/{id}/entries",
                self.entries,
                "List an account's entries",
                TransactionList,
                PageQuery,
            ),
            self._read(
                "/trial-balance",
                self.trial,
                "Get the trial balance",
                TrialBalanceResponse,
                CurrencyQuery,
            ),
            Route(
                method="PATCH",
                path="/accounts/{id}",
                handler=self.change,
                summary="Change an account's name, limit and metadata",
                tag=TAG,
                roles=OPERATORS,
                scope=Scope.ACCOUNTS,
                params=AccountPath,
                body=AccountChanges,
                headers=request_fields.MoneyHeaders,
                answers={200: AccountResponse, 202: AcceptedResponse},
                problems=(*ACCOUNT_PROBLEMS, Reason.METADATA_TOO_LARGE),
                description="One command changes any of them, all or nothing. `limit` null removes"
                " the limit; a wallet must have one.",
            ),
            *(self._status_route(name) for name in STATUS_CHANGES),
        ]

    def _read(
        self, path: str, handler: Any, summary: str, model: Any, query: type[Query] | None
    ) -> Route:
        has_id = "{id}" in path
        list_problems = (Code.PAGE_TOO_DEEP,) if model is AccountList else ()
        return routes.reading(
            path,
            handler,
            summary,
            TAG,
            READERS,
            model,
            tagged=model is AccountResponse,
            params=AccountPath if has_id else None,
            query=query,
            problems=(Reason.ACCOUNT_NOT_FOUND, Code.PAGE_TOO_DEEP) if has_id else list_problems,
        )

    def _status_route(self, name: str) -> Route:
        kind, summary = STATUS_CHANGES[name]

        async def change_status(call: Call[None, None]) -> Answer:
            return await self._decide(call, kind, {})

        return Route(
            method="POST",
            path="/accounts/{id}/" + name,
            handler=change_status,
            summary=summary,
            tag=TAG,
            roles=OPERATORS,
            scope=Scope.ACCOUNTS,
            params=AccountPath,
            headers=request_fields.MoneyHeaders,
            answers={200: AccountResponse, 202: AcceptedResponse},
            problems=ACCOUNT_PROBLEMS,
        )

    async def open(self, call: Call[NewAccount, None]) -> Answer:
        body = call.body
        currency = body.currency or self._default_currency
        key = request_fields.idempotency_key(call.request, None, False)
        owner = None
        if body.user_id is not None:
            user = await self._users.by_reference(body.user_id)
            if user is None:
                raise request_fields.bad_field(
                    Reason.ACCOUNT_NOT_FOUND, "user_id", "does not exist"
                )
            owner = user.id
        # The id is derived from the key, so a repeated request opens the same account.
        new_id = uuid.uuid4() if key is None else uuid.uuid5(uuid.UUID(call.caller.id), key)
        id = body.id or str(new_id)
        name = {} if body.name is None else {NAME_KEY: body.name}
        command = commands.OpenAccount(
            account=id,
            type=body.account_type,
            currency=currency,
            owner=owner,
            min_balance=body.limit,
            metadata={**body.metadata, **name},
            **_command_fields(call, key),
        )
        return await self._submit(call, command, currency, 201)

    async def change(self, call: Call[AccountChanges, None]) -> Answer:
        body, changed = call.body, call.body.model_fields_set
        if not changed:
            raise request_fields.bad_field(
                Code.FIELDS_INVALID, "limit", "give at least one of limit, name and metadata"
            )
        changes: dict[str, Any] = {"metadata": dict(body.metadata)}
        if "name" in changed:
            changes["metadata"][NAME_KEY] = body.name or ""
        if "limit" in changed:
            changes |= {"min_balance": body.limit, "no_limit": True if body.limit is None else None}
        return await self._decide(call, commands.ChangeAccount, changes)

    async def _decide(self, call: Call[Any, Any], kind: Any, changes: dict[str, Any]) -> Answer:
        account = await self._directory.accessible(call.caller, call.path["id"], "id")
        key = request_fields.idempotency_key(call.request, None, False)
        command = kind(account=account.id, **changes, **_command_fields(call, key))
        return await self._submit(call, command, account.currency, 200)

    async def _submit(
        self, call: Call[Any, Any], command: Command, currency: str, status: int
    ) -> Answer:
        async def present(outcome: Outcome) -> Answer:
            response = await self._response(command.account)
            headers = submit.replay_headers(outcome)
            return responses.with_etag(response, response.version, status, headers)

        return await self._submitter.submit_and_present(call, command, currency, present)

    async def _response(self, id: str) -> AccountResponse:
        async with self._pool.connection() as connection:
            account = await accounts.account(connection, id)
        if account is None:
            raise HttpProblem(Reason.ACCOUNT_NOT_FOUND)
        return _account_response(account, await self._directory.by_ids([id]))

    async def show(self, call: Call[None, None]) -> Answer:
        response = await self._response(call.path["id"])
        return responses.with_etag_or_304(call, response, response.version)

    async def browse(self, call: Call[None, AccountQuery]) -> Answer:
        query, owner = call.query, None
        if query.user_id is not None:
            user = await self._users.by_reference(query.user_id)
            owner = "" if user is None else user.id
        async with self._pool.connection() as connection:
            page = await paged_lists.page_or_problem(
                accounts.accounts(
                    connection,
                    owner=owner,
                    currency=query.currency,
                    types=None if query.account_type is None else [query.account_type],
                    statuses=None if query.status is None else [query.status],
                    limit=query.limit,
                    cursor=self._lists.cursor(query),
                )
            )
        identities = await self._directory.by_ids([account.id for account in page.items])
        meta = self._lists.meta(query, page)
        return Answer(
            AccountList(
                data=[_account_response(account, identities) for account in page.items], meta=meta
            )
        )

    async def entries(self, call: Call[None, PageQuery]) -> Answer:
        account = await self._directory.accessible(call.caller, call.path["id"], "id")
        page = await self._lists.history(account, call.query, NO_FILTER, None, None)
        items = await self._lists.items(call.caller, page)
        return Answer(TransactionList(data=items, meta=self._lists.meta(call.query, page)))

    async def trial(self, call: Call[None, CurrencyQuery]) -> Answer:
        async with self._pool.connection() as connection:
            lines = await accounts.trial_balance(connection, call.query.currency)
        data = [
            TrialLineResponse(
                currency=line.currency,
                name=line.name,
                debit=str(line.debit),
                credit=str(line.credit),
            )
            for line in lines
        ]
        return Answer(TrialBalanceResponse(data=data))


STATUS_CHANGES: Final[dict[str, tuple[Any, str]]] = {
    "freeze": (commands.Freeze, "Freeze an account: no new debits, credits or holds"),
    "unfreeze": (commands.Unfreeze, "Unfreeze an account"),
    "close": (commands.Close, "Close an empty account permanently"),
}


def _command_fields(call: Call[Any, Any], key: str | None) -> dict[str, Any]:
    key = key or str(uuid.uuid4())
    return {
        **request_fields.sender_fields(call, key),
        "expected_version": request_fields.expected_version(call.request, None),
    }


def _require_size(metadata: dict[str, str]) -> dict[str, str]:
    if command_validation.metadata_bytes(metadata) > MAX_METADATA_BYTES:
        raise PydanticCustomError("too_large", "is larger than 3,072 bytes")
    return metadata


def _account_response(
    account: accounts.AccountView, identities: dict[str, KnownAccount]
) -> AccountResponse:
    currency = account.currency
    metadata = dict(account.metadata)
    identity = identities.get(account.id)
    return AccountResponse(
        id=account.id,
        name=metadata.pop(NAME_KEY, None),
        account_type=account.type,
        currency=currency,
        status=account.status,
        limit=account.min_balance,
        limit_decimal=None
        if account.min_balance is None
        else money.to_major(account.min_balance, currency),
        user_id=None if identity is None else identity.owner_number,
        **wallet_view.amount_fields(account.balance, account.held, currency),
        version=account.version,
        metadata=metadata,
        created_at=account.opened_at,
    )
