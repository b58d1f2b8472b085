"""What the ledger would say to a command now, by its own rules and as far as the books tell: for
forms that ask while one types.

It writes nothing and promises nothing: the ledger may have moved on, and it alone knows the
commission.
"""

from processor.rules import checks, outcomes, plans
from schemas import commands, ids
from schemas.commands import PostEntry
from schemas.field_types import Direction
from schemas.ledger_parameters import RULES_VERSION
from schemas.reasons import PRECEDENCE, Reason
from schemas.state import AccountState
from sinks.reads import accounts
from sinks.reads.queries import Connection

MoneyCommand = commands.Credit | commands.Debit | commands.Transfer | commands.Post


async def refusal(of: Connection, asked: MoneyCommand) -> Reason | None:
    """The first in precedence; None: nothing stands against it."""
    if isinstance(asked, commands.Post):
        static = plans.static_post(asked)
        if static is not None:
            return static
    entries = [entry for entry in _entries(asked) if not ids.is_system(entry.account)]
    found = {entry.account: await _account(of, entry.account) for entry in entries}
    own = found[asked.account]
    if own is None:
        return Reason.ACCOUNT_NOT_FOUND
    currency = asked.currency or own.currency
    types = checks.types_allowed(RULES_VERSION, commands.kind(asked), asked.wallets_only is True)
    against = {_refusal_of_entry(found[entry.account], entry, currency, types) for entry in entries}
    left = own.available + sum(
        _available_change(own, e) for e in entries if e.account == asked.account
    )
    if not outcomes.conditions_hold(asked, own.version, left):
        against.add(Reason.CONDITION_FAILED)
    reasons = [reason for reason in against if reason is not None]
    return min(reasons, key=PRECEDENCE.__getitem__, default=None)


def _entries(asked: MoneyCommand) -> tuple[PostEntry, ...]:
    if isinstance(asked, commands.Post):
        return asked.entries
    direction: Direction = "credit" if isinstance(asked, commands.Credit) else "debit"
    own = PostEntry(account=asked.account, direction=direction, amount=asked.amount)
    if not isinstance(asked, commands.Transfer):
        return (own,)
    return own, PostEntry(account=asked.to, direction="credit", amount=asked.amount)


async def _account(of: Connection, id: str) -> AccountState | None:
    row = await accounts.account(of, id)
    if row is None:
        return None
    return AccountState(
        type=row.type,
        currency=row.currency,
        status=row.status,
        owner=row.owner,
        min_balance=row.min_balance,
        balance=row.balance,
        held=row.held,
        incoming=row.incoming,
        version=row.version,
    )


def _refusal_of_entry(
    account: AccountState | None, entry: PostEntry, currency: str, types: frozenset[str]
) -> Reason | None:
    if account is not None and account.type not in types:
        return Reason.ACCOUNT_TYPE_NOT_ALLOWED
    reason = checks.standing(account, currency)
    if reason is not None or account is None:
        return reason
    return checks.funds(account, entry.direction, entry.amount)


def _available_change(account: AccountState, entry: PostEntry) -> int:
    outgoing = checks.is_outgoing(account.type, entry.direction)
    return -entry.amount if outgoing else entry.amount
