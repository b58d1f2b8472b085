"""The dry run of a command: what the ledger would decide now, by its own rules over the books.

It writes nothing and promises nothing: the ledger may have moved on, and the commission is unknown.
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


async def refusal(connection: Connection, command: MoneyCommand) -> Reason | None:
    """The first reason in precedence; None if the command would be posted."""
    if isinstance(command, commands.Post):
        reason = plans.static_post(command)
        if reason is not None:
            return reason
    entries = [entry for entry in _entries(command) if not ids.is_system(entry.account)]
    states = {entry.account: await _account_state(connection, entry.account) for entry in entries}
    own = states[command.account]
    if own is None:
        return Reason.ACCOUNT_NOT_FOUND
    currency = command.currency or own.currency
    types = checks.types_allowed(
        RULES_VERSION, commands.kind(command), command.wallets_only is True
    )
    refusals = {
        _refusal_of_entry(states[entry.account], entry, currency, types) for entry in entries
    }
    available_after = own.available + sum(
        _available_change(own, e) for e in entries if e.account == command.account
    )
    if not outcomes.conditions_hold(command, own.version, available_after):
        refusals.add(Reason.CONDITION_FAILED)
    reasons = [reason for reason in refusals if reason is not None]
    return min(reasons, key=PRECEDENCE.__getitem__, default=None)


def _entries(command: MoneyCommand) -> tuple[PostEntry, ...]:
    if isinstance(command, commands.Post):
        return command.entries
    direction: Direction = "credit" if isinstance(command, commands.Credit) else "debit"
    own = PostEntry(account=command.account, direction=direction, amount=command.amount)
    if not isinstance(command, commands.Transfer):
        return (own,)
    return own, PostEntry(account=command.to, direction="credit", amount=command.amount)


async def _account_state(connection: Connection, id: str) -> AccountState | None:
    row = await accounts.account(connection, id)
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
