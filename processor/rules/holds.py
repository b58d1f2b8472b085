"""Places and voids holds: an amount of an account is reserved, or released. Captures are plans."""

from processor.rules import checks, outcomes, plans, state_view
from processor.rules.decision import Decision, DecisionContext
from processor.rules.postings import DecisionPostings
from schemas import commands
from schemas import state as states
from schemas.journal import HoldChange, HoldStatus
from schemas.ledger_parameters import LedgerParameters
from schemas.reasons import Reason
from schemas.state import AccountState


def place(
    context: DecisionContext,
    command: commands.Hold,
    account: AccountState,
    parameters: LedgerParameters,
) -> Decision:
    time_ms = context.header.time_ms
    currency = command.currency or account.currency
    reason = checks.standing(account, currency)
    expires_at_ms = command.expires_at_ms
    if expires_at_ms is None:
        expires_at_ms = time_ms + parameters.hold_ttl_ms
    elif reason is None and expires_at_ms <= time_ms:
        reason = Reason.HOLD_EXPIRED
    reason = reason or checks.funds(account, "debit", command.amount)
    if reason is not None:
        return outcomes.rejected(context, reason)
    left = account.available - checks.outgoing_amount(account.type, "debit", command.amount)
    if not outcomes.conditions_hold(command, account.version, left):
        return outcomes.rejected(context, Reason.CONDITION_FAILED)

    # From here it must succeed.
    postings = DecisionPostings(context.state)
    postings.reserve(command.account, "debit", command.amount)
    return outcomes.posted(
        context,
        hold=HoldChange(
            id=context.transaction_id,
            account=command.account,
            currency=currency,
            amount=command.amount,
            expires_at_ms=expires_at_ms,
            status="open",
        ),
        reserved=tuple(postings.reserved),
    )


def void(context: DecisionContext, command: commands.Void, account: AccountState) -> Decision:
    hold = state_view.hold(context.state, command.hold_id)
    if hold is None or hold.account != command.account:
        return outcomes.rejected(context, Reason.HOLD_NOT_FOUND)
    if command.wallets_only and account.type != "wallet":
        return outcomes.rejected(context, Reason.ACCOUNT_TYPE_NOT_ALLOWED)
    reason = plans.hold_refusal(hold, context.header.time_ms)
    if reason is not None:
        return outcomes.rejected(context, reason)
    available = account.available + checks.outgoing_amount(account.type, "debit", hold.amount)
    if not outcomes.conditions_hold(command, account.version, available):
        return outcomes.rejected(context, Reason.CONDITION_FAILED)

    # From here it must succeed.
    postings = DecisionPostings(context.state)
    postings.release(hold.account, "debit", hold.amount)
    return outcomes.posted(
        context,
        hold=changed(command.hold_id, hold, "voided"),
        released=tuple(postings.released),
    )


def changed(id: str, hold: states.HoldState, status: HoldStatus, captured: int = 0) -> HoldChange:
    return HoldChange(
        id=id,
        account=hold.account,
        currency=hold.currency,
        amount=hold.amount,
        expires_at_ms=hold.expires_at_ms,
        status=status,
        captured=captured,
    )
