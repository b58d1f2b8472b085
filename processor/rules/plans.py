"""Turns each command that moves money into a plan: its entries, before any check of accounts.

A plan may carry a refusal of the command itself. `settle` checks the entries as well and answers
with the first reason by precedence. Plans must not know balances.
"""

from processor.rules import checks, state_view
from processor.rules.checks import CheckRefusal, refusal
from processor.rules.decision import Plan
from schemas import ids, money
from schemas import state as states
from schemas.commands import Capture, Post, Reverse, Transfer
from schemas.coordination import CoordinatedEntry
from schemas.ledger_parameters import LedgerParameters
from schemas.reasons import Reason
from schemas.state import AccountState, PartitionState

_MIN_ENTRIES, _MAX_ENTRIES = 2, 100
_POST_MAY_NAME = frozenset(
    ids.system_name(role, currency)
    for role in (ids.FUNDING, ids.FEES)
    for currency in money.EXPONENTS
)


def static_transfer(command: Transfer) -> Reason | None:
    if checks.currency_unknown(command.currency):
        return Reason.CURRENCY_UNKNOWN
    if ids.is_system(command.to):
        return Reason.SYSTEM_ACCOUNT
    return Reason.SELF_TRANSFER if command.to == command.account else None


def transfer(
    command: Transfer,
    account: AccountState,
    state: state_view.StateView,
    parameters: LedgerParameters,
) -> Plan:
    at = state.partition
    currency = command.currency or account.currency
    bps = parameters.commission_bps
    fee = fee_of(command.amount, bps)
    if fee:
        # The owner of a wallet in another partition is unknown here.
        receiver = state_view.account(state, command.to)
        if receiver is not None and same_owner(account, receiver.type, receiver.owner):
            fee = 0
    return Plan(
        transfer_entries(command, currency, fee, at.partition),
        currency,
        fee=fee,
        commission_bps=bps if fee else 0,
    )


def transfer_entries(
    command: Transfer, currency: str, fee: int, partition: int
) -> tuple[CoordinatedEntry, ...]:
    entries = (
        CoordinatedEntry(0, command.account, "debit", command.amount + fee),
        CoordinatedEntry(1, command.to, "credit", command.amount),
    )
    if not fee:
        return entries
    return (
        *entries,
        CoordinatedEntry(2, ids.system_shard(ids.FEES, currency, partition), "credit", fee),
    )


def fee_of(amount: int, bps: int) -> int:
    """The fee, rounded half up to the minor unit."""
    return (amount * bps + 5_000) // 10_000


def same_owner(account: AccountState, type: str, owner: str | None) -> bool:
    return account.type == type == "wallet" and owner is not None and account.owner == owner


def static_post(command: Post) -> Reason | None:
    entries = command.entries
    if checks.currency_unknown(command.currency):
        return Reason.CURRENCY_UNKNOWN
    named = [entry.account for entry in entries]
    if any(ids.is_system(name) and name not in _POST_MAY_NAME for name in named):
        return Reason.SYSTEM_ACCOUNT
    if len(entries) < _MIN_ENTRIES:
        return Reason.TOO_FEW_ENTRIES
    if len(entries) > _MAX_ENTRIES:
        return Reason.TOO_MANY_ENTRIES
    if len(set(named)) < len(named):
        return Reason.DUPLICATE_ACCOUNT
    net = sum(e.amount if e.direction == "debit" else -e.amount for e in entries)
    return Reason.UNBALANCED if net else None


def coordinating_account(command: Post) -> str | None:
    """The lowest ordinary account id among the entries; None if there is no ordinary account."""
    ordinary = (e.account for e in command.entries if not ids.is_system(e.account))
    return min(ordinary, default=None)


def post(command: Post, at: PartitionState) -> Plan:
    first: CheckRefusal | None = None
    entries = []
    for index, entry in enumerate(command.entries):
        name = entry.account
        if ids.is_system(name):
            _, role, currency = name.split(":")
            name = ids.system_shard(role, command.currency, at.partition)
            if first is None and command.wallets_only:
                first = refusal(Reason.ACCOUNT_TYPE_NOT_ALLOWED, index)
            elif first is None and currency != command.currency:
                first = refusal(Reason.CURRENCY_MISMATCH, index)
        entries.append(CoordinatedEntry(index, name, entry.direction, entry.amount))
    total = sum(entry.amount for entry in entries if entry.direction == "debit")
    if first is None and total > money.MAX_AMOUNT:
        first = refusal(Reason.BALANCE_OVERFLOW)
    return Plan(tuple(entries), command.currency, first)


def static_capture(command: Capture) -> Reason | None:
    if command.to is not None:
        if ids.is_system(command.to):
            return Reason.SYSTEM_ACCOUNT
        if command.to == command.account:
            return Reason.SELF_TRANSFER
    return None


def capture(command: Capture, state: state_view.StateView, time_ms: int) -> Plan | None:
    """None: the account has no such hold."""
    hold = state_view.hold(state, command.hold_id)
    if hold is None or hold.account != command.account:
        return None
    amount = hold.amount if command.amount is None else command.amount
    reason = hold_refusal(hold, time_ms)
    if reason is None and amount > hold.amount:
        reason = Reason.CAPTURE_EXCEEDS_HOLD
    to = command.to or ids.system_shard(ids.FUNDING, hold.currency, state.partition.partition)
    return Plan(
        (
            CoordinatedEntry(0, command.account, "debit", amount),
            CoordinatedEntry(1, to, "credit", amount),
        ),
        hold.currency,
        None if reason is None else refusal(reason),
        hold=hold,
    )


def hold_refusal(hold: states.HoldState, time_ms: int) -> Reason | None:
    """Why a hold cannot be captured or voided."""
    if hold.status in ("captured", "voided"):
        return Reason.HOLD_CLOSED
    if hold.status == "capturing":
        return Reason.HOLD_BUSY
    if hold.status == "expired" or hold.expires_at_ms <= time_ms:
        return Reason.HOLD_EXPIRED
    return None


def entries_of(
    transaction: states.TransactionState, partition: int
) -> tuple[CoordinatedEntry, ...]:
    """A posted transaction's entries; a credit's and a debit's follow from the amount alone."""
    amount = transaction.amount
    if not amount:
        return transaction.entries
    shard = ids.system_shard(ids.FUNDING, transaction.currency or "", partition)
    if transaction.kind == "credit":
        return (
            CoordinatedEntry(0, shard, "debit", amount),
            CoordinatedEntry(1, transaction.account, "credit", amount),
        )
    return (
        CoordinatedEntry(0, transaction.account, "debit", amount),
        CoordinatedEntry(1, shard, "credit", amount),
    )


def reverse(command: Reverse, state: state_view.StateView) -> Plan | None:
    """None: the account has no such transaction."""
    original = state_view.transaction(state, command.transaction_id)
    if original is None or original.account != command.account:
        return None
    reason: Reason | None = None
    if (
        original.status != "posted"
        or not states.moved_money(original)
        or original.kind == "reverse"
    ):
        reason = Reason.NOT_REVERSIBLE
    elif original.reversal is not None:
        reason = Reason.ALREADY_REVERSED if original.reversed else Reason.REVERSAL_PENDING
    if reason is Reason.NOT_REVERSIBLE:
        return Plan((), "", refusal(reason))
    original_entries = entries_of(original, state.partition.partition)
    reversed_entries = tuple(
        CoordinatedEntry(
            e.index, e.account, "credit" if e.direction == "debit" else "debit", e.amount
        )
        for e in original_entries
    )
    return Plan(
        reversed_entries, original.currency or "", None if reason is None else refusal(reason)
    )
