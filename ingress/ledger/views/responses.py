"""Transactions, commands and holds as the API answers them.

Amounts are minor units, and beside them decimal text. Keeps the rule that nobody is shown another's
balance: what is told of a transaction depends on whose account it is looked at from.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from ingress.http.problems import ProblemDocument
from ingress.http.roles import READERS
from ingress.http.routes import Caller, Instant, Meta, ResponseModel
from ingress.ledger.account_directory import KnownAccount
from ingress.ledger.views.transaction_view import TransactionView
from schemas import ids, money

Amount = int
# Their entries may be of accounts that have nothing to do with each other.
MULTI_PARTY_KINDS = ("post", "reverse")


class EntryResponse(ResponseModel):
    account_id: str
    direction: Literal["debit", "credit"]
    amount: Amount
    amount_decimal: str


class TransactionResponse(ResponseModel):
    """`entry`, `fee`, `total` and `balance` are those of `wallet_id`, the account that it is told
    for; of a transaction without one they are null."""

    id: str
    kind: str
    status: Literal["pending", "posted", "rejected"]
    reason: str | None = Field(default=None, description="Why it was rejected.")
    wallet_id: str
    trans_id: str | None = Field(
        default=None, description="The idempotency key, as the client gave it."
    )
    actor: str | None = Field(
        default=None,
        description="Who asked for it, as the command says: the uuid of a user where it came over"
        " HTTP. Told to operators and auditors only.",
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
        default=None, description="With the fee, where `wallet_id` paid it."
    )
    total_decimal: str | None = None
    currency: str
    balance: Amount | None = Field(default=None, description="Of `wallet_id`, after it.")
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
    """`page` and `total` are told where pages are counted."""

    page: int | None = None
    total: int | None = None
    previous_cursor: str | None = None


class TransactionList(ResponseModel):
    data: list[TransactionResponse]
    meta: PageMeta


class AcceptedResponse(ResponseModel):
    """Kafka has it, and it is not decided yet: poll at `location`."""

    id: str
    trans_id: str | None
    status: Literal["accepted", "pending"]
    uncertain: bool = Field(
        description="Whether Kafka has it is not certain: it may be sent again with the same key."
    )
    location: str


class CommandResponse(ResponseModel):
    """What is known of a command; `transaction` once it is posted, `problem` once rejected."""

    id: str
    status: Literal["accepted", "pending", "posted", "rejected"]
    uncertain: bool = False
    transaction: TransactionResponse | None = None
    problem: ProblemDocument | None = None


def transaction_response(
    facts: TransactionView, view: str | None, known: Mapping[str, KnownAccount], caller: Caller
) -> TransactionResponse:
    """Operators and auditors see all of it. Others see the fee and all entries only from the
    sender's side, and reference, metadata and idempotency key only of what they sent themselves:
    an operator's notes about a wallet are not for its owner."""
    whole = caller.role in READERS
    currency = facts.currency
    seen_from = view or facts.account
    # The fee is in the entries, too.
    sent = seen_from == facts.account
    private = whole or facts.actor == caller.id
    entry = next((line.direction for line in facts.entries if line.account == seen_from), None)
    fee = facts.fee if sent and facts.kind == "transfer" else 0
    amount = facts.amount
    total = None if amount is None else amount + fee
    balance = facts.balances.get(seen_from)
    other = facts.counterparty
    if seen_from == other:
        other = facts.account
    return TransactionResponse(
        id=facts.id,
        kind=facts.kind,
        status=facts.status,
        reason=facts.reason,
        wallet_id=seen_from,
        trans_id=facts.trans_id if private else None,
        actor=facts.actor if whole else None,
        sender_id=_user_number(facts, "debit", known),
        receiver_id=_user_number(facts, "credit", known),
        counterparty=other,
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
            for line in facts.entries
            if whole or line.account == seen_from or (sent and facts.kind not in MULTI_PARTY_KINDS)
        ],
        reference=facts.reference if private else None,
        description=facts.description,
        metadata=facts.metadata if private else {},
        hold_id=facts.hold_id,
        reverses=facts.reverses,
        reversed_by=facts.reversed_by,
        created_at=facts.at,
    )


def decimal(amount: int | None, currency: str) -> str | None:
    return None if amount is None else money.to_major(amount, currency)


def _user_number(
    facts: TransactionView, direction: str, known: Mapping[str, KnownAccount]
) -> int | None:
    """The user on that side, where there is one account on it."""
    found = [
        line.account
        for line in facts.entries
        if line.direction == direction and not ids.is_system(line.account)
    ]
    one = known.get(found[0]) if len(found) == 1 else None
    return None if one is None else one.owner_number
