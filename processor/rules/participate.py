"""Two-phase commit at a participant: a transaction that another partition coordinates.

It reserves and answers, and then commits or aborts as the coordinator says. That cannot fail,
whatever happened to the accounts meanwhile. It must not know the command.
"""

from msgspec.structs import replace

from processor.rules import checks, journal_header, outcomes, plans, state_view
from processor.rules.decision import Decision, DecisionInput, TransactionDetails
from processor.rules.postings import DecisionPostings
from schemas import coordination
from schemas import state as states
from schemas.coordination import CoordinationMessage
from schemas.journal import SentNumber, Step


def prepare(
    state: state_view.StateView, input: DecisionInput, message: coordination.Prepare, time_ms: int
) -> Decision:
    header = journal_header.for_input(state, input, time_ms)
    at = state.partition
    number = at.sent[message.source] + 1
    assert at.settings is not None, "a partition starts with its genesis"
    types = checks.types_allowed(at.settings.rules_version, message.kind, message.wallets_only)
    refusal = checks.first_refusal(state, message.entries, message.currency, types)
    reply: CoordinationMessage
    step: Step
    if refusal is not None:
        reply = coordination.Refused(
            source=at.partition,
            number=number,
            transaction_id=message.transaction_id,
            reason=refusal.reason,
            index=refusal.entry_index,
        )
        step = "declined"
    else:
        reply = coordination.Prepared(
            source=at.partition,
            number=number,
            transaction_id=message.transaction_id,
            same_owner=_same_owner(state, message),
        )
        step = "prepared"
    postings = DecisionPostings(state)
    if refusal is None:
        for entry in message.entries:
            postings.reserve(entry.account, entry.direction, entry.amount)
    return Decision(
        replace(
            header,
            step=step,
            message=message,
            transaction_id=message.transaction_id,
            reason=None if refusal is None else refusal.reason,
            reserved=tuple(postings.reserved),
            sent=(SentNumber(message.source, number),),
        ),
        ((message.source, reply),),
    )


def _same_owner(state: state_view.StateView, message: coordination.Prepare) -> bool:
    if message.owner is None:
        return False
    account = state_view.account(state, message.entries[0].account)
    return account is not None and plans.same_owner(account, "wallet", message.owner)


def commit(
    state: state_view.StateView, input: DecisionInput, message: coordination.Commit, time_ms: int
) -> Decision:
    header = journal_header.for_input(state, input, time_ms)
    reserved = state_view.prepared(state, message.transaction_id)
    if reserved is None:
        return Decision(
            replace(header, step="ignored", message=message, transaction_id=message.transaction_id)
        )
    postings = DecisionPostings(state)
    _release(postings, reserved)
    postings.post_all(reserved.entries)
    postings.balance_by_transit(reserved.currency)
    parties = (
        () if message.counterparty is None else (message.counterparty, reserved.entries[0].account)
    )
    details = TransactionDetails(
        message.transaction_id,
        reserved.kind,
        reserved.currency,
        message.reference,
        message.description,
        message.metadata,
        parties=parties,
    )
    return Decision(
        replace(
            header,
            step="committed",
            message=message,
            transaction_id=message.transaction_id,
            released=tuple(postings.released),
            entries=tuple(postings.entries),
        ),
        transactions=outcomes.transaction_records(header, postings, details),
    )


def abort(
    state: state_view.StateView, input: DecisionInput, message: coordination.Abort, time_ms: int
) -> Decision:
    header = journal_header.for_input(state, input, time_ms)
    reserved = state_view.prepared(state, message.transaction_id)
    if reserved is None:
        return Decision(
            replace(header, step="ignored", message=message, transaction_id=message.transaction_id)
        )
    postings = DecisionPostings(state)
    _release(postings, reserved)
    return Decision(
        replace(
            header,
            step="aborted",
            message=message,
            transaction_id=message.transaction_id,
            released=tuple(postings.released),
        )
    )


def _release(postings: DecisionPostings, reserved: states.PreparedTransaction) -> None:
    for entry in reserved.entries:
        postings.release(entry.account, entry.direction, entry.amount)
