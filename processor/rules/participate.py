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
    of: state_view.StateView, input: DecisionInput, leg: coordination.Prepare, time_ms: int
) -> Decision:
    head = header(of, input, time_ms)
    at = of.partition
    number = at.sent[leg.source] + 1
    assert at.settings is not None, "a partition begins with its genesis"
    types = checks.types_allowed(at.settings.rules_version, leg.kind, leg.wallets_only)
    found = checks.first_refusal(of, leg.entries, leg.currency, types)
    reply: CoordinationMessage
    step: Step
    if found is not None:
        reply = coordination.Refused(
            source=at.partition,
            number=number,
            transaction_id=leg.transaction_id,
            reason=found.reason,
            index=found.entry_index,
        )
        step = "declined"
    else:
        reply = coordination.Prepared(
            source=at.partition,
            number=number,
            transaction_id=leg.transaction_id,
            same_owner=_same_owner(of, leg),
        )
        step = "prepared"
    books = DecisionPostings(of)
    if found is None:
        for entry in leg.entries:
            books.reserve(entry.account, entry.direction, entry.amount)
    return Decision(
        replace(
            head,
            step=step,
            leg=leg,
            transaction_id=leg.transaction_id,
            reason=None if found is None else found.reason,
            reserved=tuple(books.reserved),
            sent=(SentNumber(leg.source, number),),
        ),
        ((leg.source, reply),),
    )


def _same_owner(of: state_view.StateView, leg: coordination.Prepare) -> bool:
    if leg.owner is None:
        return False
    account = state_view.account(of, leg.entries[0].account)
    return account is not None and plans.same_owner(account, "wallet", leg.owner)


def commit(
    of: state_view.StateView, input: DecisionInput, leg: coordination.Commit, time_ms: int
) -> Decision:
    head = header(of, input, time_ms)
    reserved = state_view.prepared(of, leg.transaction_id)
    if reserved is None:
        return Decision(replace(head, step="ignored", leg=leg, transaction_id=leg.transaction_id))
    books = DecisionPostings(of)
    _release(books, reserved)
    books.post_all(reserved.entries)
    books.balance_by_transit(reserved.currency)
    parties = () if leg.counterparty is None else (leg.counterparty, reserved.entries[0].account)
    told = Published(
        leg.transaction_id,
        reserved.kind,
        reserved.currency,
        leg.reference,
        leg.description,
        leg.metadata,
        parties=parties,
    )
    return Decision(
        replace(
            head,
            step="committed",
            leg=leg,
            transaction_id=leg.transaction_id,
            released=tuple(books.released),
            entries=tuple(books.entries),
        ),
        transactions=outcomes.transactions(head, books, told),
    )


def abort(
    of: state_view.StateView, input: DecisionInput, leg: coordination.Abort, time_ms: int
) -> Decision:
    head = header(of, input, time_ms)
    reserved = state_view.prepared(of, leg.transaction_id)
    if reserved is None:
        return Decision(replace(head, step="ignored", leg=leg, transaction_id=leg.transaction_id))
    books = DecisionPostings(of)
    _release(books, reserved)
    return Decision(
        replace(
            head,
            step="aborted",
            leg=leg,
            transaction_id=leg.transaction_id,
            released=tuple(books.released),
        )
    )


def _release(books: DecisionPostings, reserved: states.PreparedTransaction) -> None:
    for entry in reserved.entries:
        books.release(entry.account, entry.direction, entry.amount)
