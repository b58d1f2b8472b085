"""A transaction over several partitions, at a partition that takes part in it.

It reserves and answers, and then does what the coordinator says: that cannot be refused, whatever
happened to the accounts meanwhile.
"""

from msgspec.structs import replace

from processor.rules import checks, outcomes, plans, state_view
from processor.rules.books import DecisionPostings
from processor.rules.decision import Decision, DecisionInput, Published
from processor.rules.journal_header import header
from schemas import coordination
from schemas import state as states
from schemas.coordination import CoordinationMessage
from schemas.journal import SentNumber, Step


def prepare(
    of: state_view.StateView, input: DecisionInput, message: coordination.Prepare, time_ms: int
) -> Decision:
    head = header(of, input, time_ms)
    at = of.partition
    number = at.sent[message.source] + 1
    assert at.settings is not None, "a partition begins with its genesis"
    types = checks.types_allowed(at.settings.rules_version, message.kind, message.wallets_only)
    found = checks.first_refusal(of, message.entries, message.currency, types)
    reply: CoordinationMessage
    step: Step
    if found is not None:
        reply = coordination.Refused(
            source=at.partition,
            number=number,
            transaction_id=message.transaction_id,
            reason=found.reason,
            index=found.entry_index,
        )
        step = "declined"
    else:
        reply = coordination.Prepared(
            source=at.partition,
            number=number,
            transaction_id=message.transaction_id,
            same_owner=_same_owner(of, message),
        )
        step = "prepared"
    books = DecisionPostings(of)
    if found is None:
        for entry in message.entries:
            books.reserve(entry.account, entry.direction, entry.amount)
    return Decision(
        replace(
            head,
            step=step,
            message=message,
            transaction_id=message.transaction_id,
            reason=None if found is None else found.reason,
            reserved=tuple(books.reserved),
            sent=(SentNumber(message.source, number),),
        ),
        ((message.source, reply),),
    )


def _same_owner(of: state_view.StateView, message: coordination.Prepare) -> bool:
    if message.owner is None:
        return False
    account = state_view.account(of, message.entries[0].account)
    return account is not None and plans.same_owner(account, "wallet", message.owner)


def commit(
    of: state_view.StateView, input: DecisionInput, message: coordination.Commit, time_ms: int
) -> Decision:
    head = header(of, input, time_ms)
    reserved = state_view.prepared(of, message.transaction_id)
    if reserved is None:
        return Decision(
            replace(head, step="ignored", message=message, transaction_id=message.transaction_id)
        )
    books = DecisionPostings(of)
    _release(books, reserved)
    books.post_all(reserved.entries)
    books.balance_by_transit(reserved.currency)
    parties = (
        () if message.counterparty is None else (message.counterparty, reserved.entries[0].account)
    )
    told = Published(
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
            head,
            step="committed",
            message=message,
            transaction_id=message.transaction_id,
            released=tuple(books.released),
            entries=tuple(books.entries),
        ),
        transactions=outcomes.transactions(head, books, told),
    )


def abort(
    of: state_view.StateView, input: DecisionInput, message: coordination.Abort, time_ms: int
) -> Decision:
    head = header(of, input, time_ms)
    reserved = state_view.prepared(of, message.transaction_id)
    if reserved is None:
        return Decision(
            replace(head, step="ignored", message=message, transaction_id=message.transaction_id)
        )
    books = DecisionPostings(of)
    _release(books, reserved)
    return Decision(
        replace(
            head,
            step="aborted",
            message=message,
            transaction_id=message.transaction_id,
            released=tuple(books.released),
        )
    )


def _release(books: DecisionPostings, reserved: states.PreparedTransaction) -> None:
    for entry in reserved.entries:
        books.release(entry.account, entry.direction, entry.amount)
