"""Transactions and commands as the API presents them, with their ETags.

Amounts are minor units, with decimal text beside them. Keeps the rule that nobody sees another's
balance or notes: what a response contains depends on who reads it, and from which account.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import Field

from ingress.http.problems import ProblemDocument
from ingress.http.roles import READERS
from ingress.http.routes import Answer, Call, Caller, Instant, Meta, ResponseModel
from ingress.ledger.account_directory import AccountDirectory, KnownAccount
from ingress.ledger.views.transaction_view import TransactionView
from schemas import ids, money

Amount = int
ETAG_DIGEST_LENGTH: Final = 16
# The entries of these kinds may belong to accounts of different, unrelated owners.
MULTI_PARTY_KINDS: Final = ("post", "reverse")


class EntryResponse(ResponseModel):
    account_id: str
    direction: Literal["debit", "credit"]
    amount: Amount
    amount_decimal: str


class TransactionResponse(ResponseModel):
    """`wallet_id` is the account from whose side it is seen; `entry`, `fee`, `total` and `balance`
    belong to that account, and are null if it has no entry."""

    id: str
    kind: str
    status: Literal["pending", "posted", "rejected"]
    reason: str | None = Field(default=None, description="The reason of a rejection.")
    wallet_id: str
    trans_id: str | None = Field(
        default=None,
        description="The idempotency key, as the client sent it. Only for its sender, operators and"
        " auditors.",
    )
    actor: str | None = Field(
        default=None,
        description="Who sent it, as the command claims; over HTTP, a user's uuid. Only for"
        " operators and auditors.",
    )
    sender_id: int | None = None
    receiver_id: int | None = None
    counterparty: str | None = None
    entry: Literal["debit", "credit"] | None = None
    amount: Amount | None = None
    amount_decimal: str | None = None
    fee: Amount = 0
    fee_decimal: str = "0"
    total: Amount | None = Field(
        default=None, description="The amount, plus the fee if `wallet_id` paid it."
    )
    total_decimal: str | None = None
    currency: str
    balance: Amount | None = Field(default=None, description="The balance of `wallet_id` after it.")
    balance_decimal: str | None = None
    entries: list[EntryResponse] = []
    reference: str | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    hold_id: str | None = None
    reverses: str | None = None
    reversed_by: str | None = None
    created_at: Instant


class PageMeta(Meta):
    """`page` and `total` are set for lists with numbered pages."""

    page: int | None = None
    total: int | None = None
    previous_cursor: str | None = None


class TransactionList(ResponseModel):
    data: list[TransactionResponse]
    meta: PageMeta


class AcceptedResponse(ResponseModel):
    """Kafka has the command, and it is not decided yet: poll `location`."""

    id: str
    trans_id: str | None
    status: Literal["accepted", "pending"]
    uncertain: bool = Field(
        description="True if it is not certain that Kafka has the command. It is safe to send it"
        " again with the same key."
    )
    location: str


class CommandResponse(ResponseModel):
    """The status of a command, with `transaction` once posted and `problem` once rejected."""

    id: str
    status: Literal["accepted", "pending", "posted", "rejected"]
    uncertain: bool = False
    transaction: TransactionResponse | None = None
    problem: ProblemDocument | None = None


class TransactionPresenter:
    """Presents transactions to a caller, with the users on both sides."""

    def __init__(self, directory: AccountDirectory) -> None:
        self._directory = directory

    async def side_of(self, caller: Caller, view: TransactionView) -> str | None:
        """The account from whose side the caller sees it; None if neither side is the caller's."""
        parties = await self._directory.by_ids([view.account, view.counterparty])
        for id in (view.account, view.counterparty):
            if id in parties and parties[id].owner == caller.id:
                return id
        return None

    async def present(
        self, view: TransactionView, caller: Caller, side: str | None
    ) -> TransactionResponse:
        wanted = [view.account, view.counterparty, *(line.account for line in view.entries)]
        parties = await self._directory.by_ids(wanted)
        return transaction_response(view, side, parties, caller)


def transaction_response(
    view: TransactionView,
    side: str | None,
    parties: Mapping[str, KnownAccount],
    caller: Caller,
) -> TransactionResponse:
    """Operators and auditors see all of it. Others see the fee and all entries only from the
    sender's side, and reference, metadata and idempotency key only if they sent it themselves:
    an operator's notes about a wallet are not for its owner."""
    sees_all = caller.role in READERS
    sees_notes = sees_all or view.actor == caller.id
    currency = view.currency
    account = side or view.account
    # The fee is in the entries, too.
    from_sender = account == view.account
    entry = next((line.direction for line in view.entries if line.account == account), None)
    fee = view.fee if from_sender and view.kind == "transfer" else 0
    amount = view.amount
    total = None if amount is None else amount + fee
    balance = view.balances.get(account)
    return TransactionResponse(
        id=view.id,
        kind=view.kind,
        status=view.status,
        reason=view.reason,
        wallet_id=account,
        trans_id=view.trans_id if sees_notes else None,
        actor=view.actor if sees_all else None,
        sender_id=_user_number(view, "debit", parties),
        receiver_id=_user_number(view, "credit", parties),
        counterparty=view.account if account == view.counterparty else view.counterparty,
        entry=entry,
        amount=amount,
        amount_decimal=decimal(amount, currency),
        fee=fee,
        fee_decimal=money.to_major(fee, currency),
        total=total,
        total_decimal=decimal(total, currency),
        currency=currency,
        balance=balance,
        balance_decimal=decimal(balance, currency),
        entries=[
            EntryResponse(
                account_id=line.account,
                direction=line.direction,
                amount=line.amount,
                amount_decimal=money.to_major(line.amount, currency),
            )
            for line in view.entries
            if sees_all
            or line.account == account
            or (from_sender and view.kind not in MULTI_PARTY_KINDS)
        ],
        reference=view.reference if sees_notes else None,
        description=view.description,
        metadata=view.metadata if sees_notes else {},
        hold_id=view.hold_id,
        reverses=view.reverses,
        reversed_by=view.reversed_by,
        created_at=view.at,
    )


def decimal(amount: int | None, currency: str) -> str | None:
    return None if amount is None else money.to_major(amount, currency)


def _user_number(
    view: TransactionView, direction: str, parties: Mapping[str, KnownAccount]
) -> int | None:
    """The user on that side, if there is exactly one account on it."""
    accounts = [
        line.account
        for line in view.entries
        if line.direction == direction and not ids.is_system(line.account)
    ]
    account = parties.get(accounts[0]) if len(accounts) == 1 else None
    return None if account is None else account.owner_number


def with_etag(
    response: ResponseModel,
    version: int,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """The ETag is the version, which If-Match takes, and a digest of the body, because not every
    change raises the version."""
    body = response.encoded()
    tag = f'"{version}-{hashlib.sha256(body).hexdigest()[:ETAG_DIGEST_LENGTH]}"'
    return Answer(body, status, {"ETag": tag, **(headers or {})})


def with_etag_or_304(call: Call[Any, Any], response: ResponseModel, version: int) -> Answer:
    """304 if the client has this response already."""
    answer = with_etag(response, version)
    assert answer.headers is not None, "an ETag"
    header = call.request.headers.get("If-None-Match", "")
    client_tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    if header == "*" or answer.headers["ETag"] in client_tags:
        return Answer(None, 304, answer.headers)
    return answer
