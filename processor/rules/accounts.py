"""Commands on accounts that move no money: open, limit, change, freeze, unfreeze, close."""

from msgspec.structs import replace

from processor.rules import checks, outcomes, state_view
from processor.rules.decision import Decision, DecisionContext
from schemas import field_types
from schemas.commands import ChangeAccount, Close, Freeze, OpenAccount, SetLimit, Unfreeze
from schemas.journal import AccountChange
from schemas.ledger_parameters import LedgerParameters
from schemas.reasons import Reason
from schemas.state import AccountState
from schemas.validation import command_validation


def open_account(
    context: DecisionContext, command: OpenAccount, parameters: LedgerParameters
) -> Decision:
    limit = command.min_balance
    if limit is None and command.type == "wallet":
        limit = 0
    if _limit_out_of_bounds(command.type, limit, parameters):
        return outcomes.rejected(context, Reason.LIMIT_OUT_OF_BOUNDS)
    if state_view.account(context.state, command.account) is not None:
        return outcomes.rejected(context, Reason.ACCOUNT_EXISTS)
    if command.wallets_only and command.type != "wallet":
        return outcomes.rejected(context, Reason.ACCOUNT_TYPE_NOT_ALLOWED)
    if not outcomes.conditions_hold(command, version=0, available_after=0):
        return outcomes.rejected(context, Reason.CONDITION_FAILED)
    return outcomes.posted(
        context,
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


def static_limit(command: OpenAccount | SetLimit | ChangeAccount) -> Reason | None:
    limit = command.min_balance
    return Reason.LIMIT_OUT_OF_BOUNDS if limit is not None and limit > 0 else None


def static_change(command: ChangeAccount) -> Reason | None:
    if command.no_limit and command.min_balance is not None:
        return Reason.LIMIT_OUT_OF_BOUNDS
    return static_limit(command)


def set_limit(
    context: DecisionContext, command: SetLimit, account: AccountState, parameters: LedgerParameters
) -> Decision:
    limit = command.min_balance
    if _limit_out_of_bounds(account.type, limit, parameters):
        return outcomes.rejected(context, Reason.LIMIT_OUT_OF_BOUNDS)
    if account.status == "closed":
        return outcomes.rejected(context, Reason.ACCOUNT_CLOSED)
    if limit is not None and account.available < limit:
        return outcomes.rejected(context, Reason.INSUFFICIENT_FUNDS)
    return _changed(context, replace(account, min_balance=limit))


def change(
    context: DecisionContext,
    command: ChangeAccount,
    account: AccountState,
    parameters: LedgerParameters,
) -> Decision:
    limit, metadata = command.min_balance, _merged(account.metadata, command.metadata)
    limited = limit is not None or command.no_limit
    # A limit that is not set stays, even if it exceeds a bound that was narrowed since.
    if limited and _limit_out_of_bounds(account.type, limit, parameters):
        return outcomes.rejected(context, Reason.LIMIT_OUT_OF_BOUNDS)
    if account.status == "closed":
        return outcomes.rejected(context, Reason.ACCOUNT_CLOSED)
    if command_validation.metadata_bytes(metadata) > field_types.MAX_METADATA_BYTES:
        return outcomes.rejected(context, Reason.METADATA_TOO_LARGE)
    if limit is not None and account.available < limit:
        return outcomes.rejected(context, Reason.INSUFFICIENT_FUNDS)
    after = replace(account, metadata=metadata)
    return _changed(context, replace(after, min_balance=limit) if limited else after)


def freeze(context: DecisionContext, command: Freeze, account: AccountState) -> Decision:
    if account.status == "closed":
        return outcomes.rejected(context, Reason.ACCOUNT_CLOSED)
    return _changed(context, replace(account, status="frozen"))


def unfreeze(context: DecisionContext, command: Unfreeze, account: AccountState) -> Decision:
    if account.status == "closed":
        return outcomes.rejected(context, Reason.ACCOUNT_CLOSED)
    return _changed(context, replace(account, status="open"))


def close(context: DecisionContext, command: Close, account: AccountState) -> Decision:
    if account.status == "closed":
        return outcomes.rejected(context, Reason.ACCOUNT_CLOSED)
    if account.balance or account.held or account.incoming:
        return outcomes.rejected(context, Reason.ACCOUNT_NOT_EMPTY)
    return _changed(context, replace(account, status="closed"))


def _limit_out_of_bounds(type: str, limit: int | None, parameters: LedgerParameters) -> bool:
    if limit is None:
        return type == "wallet"
    return type == "wallet" and limit < -parameters.max_overdraft


def _merged(before: field_types.Metadata, changes: field_types.Metadata) -> field_types.Metadata:
    """An empty text removes its name; an empty text from the opening stays until it is changed."""
    removed = {name for name, text in changes.items() if not text}
    return {name: text for name, text in {**before, **changes}.items() if name not in removed}


def _changed(context: DecisionContext, after: AccountState) -> Decision:
    if not outcomes.conditions_hold(context.command, after.version, after.available):
        return outcomes.rejected(context, Reason.CONDITION_FAILED)
    return outcomes.posted(
        context,
        account=AccountChange(
            id=context.command.account,
            type=after.type,
            currency=after.currency,
            status=after.status,
            owner=after.owner,
            min_balance=after.min_balance,
            metadata=after.metadata,
        ),
    )
