"""From a plan to its outcome: a transfer, post, capture or reversal, in one partition or several.

All checks come first, in the order of precedence, and nothing is posted before the last of them.
It must not know how a kind of command becomes a plan.
"""

from msgspec.structs import replace

from processor.rules import checks, coordinate, holds, outcomes
from processor.rules.decision import Decision, DecisionContext, Plan
from processor.rules.postings import DecisionPostings
from schemas import commands
from schemas.coordination import CoordinatedEntry
from schemas.ledger_parameters import LedgerParameters
from schemas.reasons import Reason
from schemas.state import AccountState


def settle(
    context: DecisionContext,
    account: AccountState,
    plan: Plan,
    parameters: LedgerParameters,
) -> Decision:
    """Post a plan at once where every entry is in this partition, else reserve and prepare."""
    state, command = context.state, context.command
    own, others = coordinate.split(state, plan.entries)
    types = checks.types_allowed(
        parameters.rules_version, commands.kind(command), command.wallets_only is True
    )
    hold_account = None if plan.hold is None else command.account

    # Checks, in the order of precedence.
    refusal = checks.first_refusal(state, own, plan.currency, types, hold_account)
    fee_reserved = True
    if refusal is not None and others and coordinate.may_waive_fee(command, account, plan):
        without_fee = coordinate.without_fee(own, plan.fee)
        if refusal.reason in coordinate.BY_FUNDS and not checks.first_refusal(
            state, without_fee, plan.currency, types
        ):
            refusal, fee_reserved, own = None, False, without_fee
    if plan.refusal is not None:
        refusal = plan.refusal if refusal is None else min(refusal, plan.refusal)
    if refusal is not None:
        return outcomes.rejected(context, refusal.reason)
    available = _available_after(command.account, account, plan, own, at_once=not others)
    if not outcomes.conditions_hold(command, account.version, available):
        return outcomes.rejected(context, Reason.CONDITION_FAILED)
    if others and state.partition.pending >= parameters.max_pending:
        return outcomes.rejected(context, Reason.TOO_MANY_PENDING)

    # From here it must succeed.
    if others:
        return coordinate.begin(context, account, plan, own, others, fee_reserved, parameters)
    return _post(context, plan)


def _available_after(
    id: str,
    account: AccountState,
    plan: Plan,
    own: tuple[CoordinatedEntry, ...],
    *,
    at_once: bool,
) -> int:
    """What the command's account has available once the plan is posted, or reserved."""
    available = account.available
    if plan.hold is not None:
        if not at_once:
            # The hold keeps its whole amount until the outcome.
            return available
        available += checks.outgoing_amount(account.type, "debit", plan.hold.amount)
    for entry in own:
        if entry.account != id:
            continue
        if checks.is_outgoing(account.type, entry.direction):
            available -= entry.amount
        elif at_once:
            available += entry.amount
    return available


def _post(context: DecisionContext, plan: Plan) -> Decision:
    command = context.command
    postings = DecisionPostings(context.state)
    hold = None
    if plan.hold is not None:
        assert isinstance(command, commands.Capture), "only a capture takes a hold"
        postings.release(command.account, "debit", plan.hold.amount)
        hold = holds.changed(command.hold_id, plan.hold, "captured", plan.entries[0].amount)
    postings.post_all(plan.entries)
    assert postings.net == 0, "the entries of a transaction balance"
    details = outcomes.transaction_details(
        command, context.transaction_id, plan.currency, plan.entries, plan.fee
    )
    return Decision(
        replace(
            context.header,
            step="posted",
            command=command,
            transaction_id=context.transaction_id,
            body_hash=context.body_hash,
            released=tuple(postings.released),
            entries=tuple(postings.entries),
            fee=plan.fee,
            commission_bps=plan.commission_bps,
            hold=hold,
        ),
        transactions=outcomes.transaction_records(context.header, postings, details),
    )
