"""The checks that all kinds of command share: whether an entry may be posted to its account.

The first step of a transaction runs them on the coordinator's and each participant's entries. What
passes is reserved or posted at once, so it cannot fail later. They must not know how it is posted.
"""

from collections.abc import Iterable
from typing import NamedTuple, get_args

from processor.rules import state_view
from schemas import field_types, ids, money
from schemas.coordination import CoordinatedEntry
from schemas.reasons import PRECEDENCE, Reason
from schemas.state import AccountState

_GROWS_BY_DEBIT = frozenset({"asset", "expense"})
_EVERY_TYPE = frozenset(get_args(field_types.AccountType))
_WALLETS = frozenset({"wallet"})
# On an account that grows by debit, these kinds would create money. From rules version 2, such an
# account moves by `post` alone.
_MOVING = frozenset({"credit", "debit", "transfer", "hold", "capture"})
_GROWS_BY_CREDIT = _EVERY_TYPE - _GROWS_BY_DEBIT


class CheckRefusal(NamedTuple):
    """A reason and the index of its entry; -1 for the command as a whole."""

    precedence: int
    entry_index: int
    reason: Reason


def refusal(reason: Reason, entry_index: int = -1) -> CheckRefusal:
    return CheckRefusal(PRECEDENCE[reason], entry_index, reason)


def first_reason(one: Reason | None, other: Reason) -> Reason:
    return other if one is None else min(one, other, key=PRECEDENCE.__getitem__)


def currency_unknown(currency: str | None) -> bool:
    return currency is not None and currency not in money.EXPONENTS


def types_allowed(rules_version: int, kind: str, wallets_only: bool) -> frozenset[str]:
    """The account types that a command may use."""
    if wallets_only:
        return _WALLETS
    return _GROWS_BY_CREDIT if rules_version >= 2 and kind in _MOVING else _EVERY_TYPE


def is_outgoing(account_type: str, direction: str) -> bool:
    """An outgoing entry lowers the balance of its account."""
    return (direction == "credit") is (account_type in _GROWS_BY_DEBIT)


def outgoing_amount(account_type: str, direction: str, amount: int) -> int:
    """What a reservation takes from the available balance, and its release gives back."""
    return amount if is_outgoing(account_type, direction) else 0


def funds(account: AccountState, direction: str, amount: int) -> Reason | None:
    """Whether an account has the funds for an entry, given its reservations."""
    if is_outgoing(account.type, direction):
        left = account.balance - account.held - amount
        if account.min_balance is not None and left < account.min_balance:
            return Reason.INSUFFICIENT_FUNDS
        if left < -money.MAX_AMOUNT or amount > money.MAX_AMOUNT:
            return Reason.BALANCE_OVERFLOW
    elif max(amount, account.balance + account.incoming + amount) > money.MAX_AMOUNT:
        return Reason.BALANCE_OVERFLOW
    return None


def standing(account: AccountState | None, currency: str) -> Reason | None:
    """Whether an account may take part in a transaction."""
    if account is None:
        return Reason.ACCOUNT_NOT_FOUND
    if account.status != "open":
        return Reason.ACCOUNT_CLOSED if account.status == "closed" else Reason.ACCOUNT_FROZEN
    if account.currency != currency:
        return Reason.CURRENCY_MISMATCH
    return None


def first_refusal(
    state: state_view.StateView,
    entries: Iterable[CoordinatedEntry],
    currency: str,
    types: frozenset[str],
    hold_account: str | None = None,
) -> CheckRefusal | None:
    """The first refusal, by precedence and index, of a partition's own ordinary entries.

    The captured hold covers the entry on `hold_account`, so its funds are not checked.
    """
    first: CheckRefusal | None = None
    for entry in entries:
        if ids.is_system(entry.account):
            continue
        account = state_view.account(state, entry.account)
        reason: Reason | None
        if account is not None and account.type not in types:
            reason = Reason.ACCOUNT_TYPE_NOT_ALLOWED
        else:
            reason = standing(account, currency)
        if reason is None and account is not None and entry.account != hold_account:
            reason = funds(account, entry.direction, entry.amount)
        if reason is not None:
            candidate = refusal(reason, entry.index)
            first = candidate if first is None else min(first, candidate)
    return first
