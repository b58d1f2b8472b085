"""Commands about what an account is: open, limit, freeze, unfreeze, close. None of them moves
money.
"""

from processor.rules import checks, outcomes, state
from processor.rules.decision import Decision
from processor.rules.outcomes import Asked
from schemas import fields
from schemas.commands import Close, Freeze, OpenAccount, SetLimit, Unfreeze
from schemas.journal import AccountChange
from schemas.reasons import Reason
from schemas.settings import Settings
from schemas.state import Account


def open_account(asked: Asked, command: OpenAccount, settings: Settings) -> Decision:
    limit = command.min_balance
    if limit is None and command.type == "wallet":
        limit = 0
    if _limit_out_of_bounds(command.type, limit, settings):
        return outcomes.rejected(asked, Reason.LIMIT_OUT_OF_BOUNDS)
    if state.account(asked.of, command.account) is not None:
        return outcomes.rejected(asked, Reason.ACCOUNT_EXISTS)
    if not outcomes.conditions_hold(command, version=0, available_after=0):
        return outcomes.rejected(asked, Reason.CONDITION_FAILED)
    return outcomes.posted(
        asked,
        account=AccountChange(
            id=command.account,
            type=command.type,
            currency=command.currency,
            status="open",
            owner=command.owner,
            min_balance=limit,
            metadata=command.metadata,
        ),
    )


def static_open(command: OpenAccount) -> Reason | None:
    if checks.currency_unknown(command.currency):
        return Reason.CURRENCY_UNKNOWN
    return static_limit(command)


def static_limit(command: OpenAccount | SetLimit) -> Reason | None:
    limit = command.min_balance
    return Reason.LIMIT_OUT_OF_BOUNDS if limit is not None and limit > 0 else None


def set_limit(asked: Asked, command: SetLimit, account: Account, settings: Settings) -> Decision:
    limit = command.min_balance
    if _limit_out_of_bounds(account.type, limit, settings):
        return outcomes.rejected(asked, Reason.LIMIT_OUT_OF_BOUNDS)
    if account.status == "closed":
        return outcomes.rejected(asked, Reason.ACCOUNT_CLOSED)
    if limit is not None and account.available < limit:
        return outcomes.rejected(asked, Reason.INSUFFICIENT_FUNDS)
    return _changed(asked, account, status=account.status, min_balance=limit)


def freeze(asked: Asked, command: Freeze, account: Account) -> Decision:
    if account.status == "closed":
        return outcomes.rejected(asked, Reason.ACCOUNT_CLOSED)
    return _changed(asked, account, status="frozen", min_balance=account.min_balance)


def unfreeze(asked: Asked, command: Unfreeze, account: Account) -> Decision:
    if account.status == "closed":
        return outcomes.rejected(asked, Reason.ACCOUNT_CLOSED)
    return _changed(asked, account, status="open", min_balance=account.min_balance)


def close(asked: Asked, command: Close, account: Account) -> Decision:
    if account.status == "closed":
        return outcomes.rejected(asked, Reason.ACCOUNT_CLOSED)
    if account.balance or account.held or account.incoming:
        return outcomes.rejected(asked, Reason.ACCOUNT_NOT_EMPTY)
    return _changed(asked, account, status="closed", min_balance=account.min_balance)


def _limit_out_of_bounds(type: str, limit: int | None, settings: Settings) -> bool:
    if limit is None:
        return type == "wallet"
    return type == "wallet" and limit < -settings.max_overdraft


def _changed(
    asked: Asked, account: Account, *, status: fields.AccountStatus, min_balance: int | None
) -> Decision:
    if not outcomes.conditions_hold(asked.command, account.version, account.available):
        return outcomes.rejected(asked, Reason.CONDITION_FAILED)
    return outcomes.posted(
        asked,
        account=AccountChange(
            id=asked.command.account,
            type=account.type,
            currency=account.currency,
            status=status,
            owner=account.owner,
            min_balance=min_balance,
            metadata=account.metadata,
        ),
    )
