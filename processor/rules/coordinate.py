"""Two-phase commit at the coordinator: a transaction over several partitions.

It reserves its own entries, sends prepare to the others, and decides when all have answered or the
deadline has passed. Its decision is the outcome; it must not know the accounts of other partitions.
"""

from collections import defaultdict
from collections.abc import Iterable

from msgspec.structs import replace

from processor.rules import holds, journal_header, outcomes, state_view
from processor.rules.checks import refusal
from processor.rules.decision import (
    BrokenInvariant,
    Decision,
    DecisionContext,
    DecisionInput,
    Plan,
    TransactionDetails,
)
from processor.rules.postings import DecisionPostings
from schemas import commands, coordination, ids, journal
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry, CoordinationMessage, NumberedMessage
from schemas.journal import JournalRecord, ParticipantRefusal, PendingTransaction, SentNumber
from schemas.ledger_parameters import LedgerParameters
from schemas.partitioning import partition_of
from schemas.reasons import Reason
from schemas.state import AccountState, TransactionState

BY_FUNDS = frozenset({Reason.INSUFFICIENT_FUNDS, Reason.BALANCE_OVERFLOW})


def split(
    state: state_view.StateView, entries: tuple[CoordinatedEntry, ...]
) -> tuple[tuple[CoordinatedEntry, ...], dict[int, list[CoordinatedEntry]]]:
    """Own entries, and those of each other partition. System entries belong to the coordinator."""
    at = state.partition
    own = []
    others: dict[int, list[CoordinatedEntry]] = defaultdict(list)
    for entry in entries:
        if _is_own(state, entry):
            own.append(entry)
            continue
        partition = partition_of(entry.account, at.partitions)
        if partition == at.partition:
            own.append(entry)
        else:
            others[partition].append(entry)
    return tuple(own), others


def _is_own(state: state_view.StateView, entry: CoordinatedEntry) -> bool:
    """An account in this state was opened here, so its partition need not be computed."""
    account = entry.account
    return ids.is_system(account) or state_view.account(state, account) is not None


def may_waive_fee(command: Command, account: AccountState, plan: Plan) -> bool:
    """Sender and receiver may have one owner, which only the receiver's partition can tell."""
    return (
        isinstance(command, commands.Transfer)
        and plan.fee > 0
        and account.type == "wallet"
        and account.owner is not None
    )


def without_fee(entries: Iterable[CoordinatedEntry], fee: int) -> tuple[CoordinatedEntry, ...]:
    """A transfer's entries without commission; the sender's entry is the first."""
    sender, *rest = entries
    kept = (entry for entry in rest if not ids.is_system(entry.account))
    return (replace(sender, amount=sender.amount - fee), *kept)


def final_entries(pending: PendingTransaction, fee: int) -> tuple[CoordinatedEntry, ...]:
    """The entries as decided: the planned ones, less a commission that is not due."""
    if pending.fee and not fee:
        return without_fee(pending.entries, pending.fee)
    return pending.entries


def begin(
    context: DecisionContext,
    account: AccountState,
    plan: Plan,
    own: tuple[CoordinatedEntry, ...],
    others: dict[int, list[CoordinatedEntry]],
    fee_reserved: bool,
    parameters: LedgerParameters,
) -> Decision:
    """The command's own step, which cannot fail: reserve here, and prepare each other partition."""
    command, state = context.command, context.state
    postings = DecisionPostings(state)
    hold = None
    if plan.hold is not None:
        assert isinstance(command, commands.Capture), "only a capture takes a hold"
        hold = holds.changed(command.hold_id, plan.hold, "capturing", plan.entries[0].amount)
    else:
        for entry in own:
            if not ids.is_system(entry.account):
                postings.reserve(entry.account, entry.direction, entry.amount)
    participants = tuple(sorted(others))
    pending = PendingTransaction(
        entries=plan.entries,
        participants=participants,
        waiting=participants,
        currency=plan.currency,
        deadline_ms=context.header.time_ms + parameters.participant_timeout_ms,
        offset=context.header.source.offset,
        fee=plan.fee,
        commission_bps=plan.commission_bps,
        fee_reserved=fee_reserved,
    )
    owner = account.owner if may_waive_fee(command, account, plan) else None
    at = state.partition
    sent: list[tuple[int, NumberedMessage]] = [
        (
            partition,
            coordination.Prepare(
                source=at.partition,
                number=at.sent[partition] + 1,
                transaction_id=context.transaction_id,
                kind=commands.kind(command),
                currency=plan.currency,
                account=command.account,
                entries=tuple(others[partition]),
                owner=owner,
                wallets_only=bool(command.wallets_only),
            ),
        )
        for partition in participants
    ]
    record = replace(
        context.header,
        step="pending",
        command=command,
        transaction_id=context.transaction_id,
        body_hash=context.body_hash,
        reserved=tuple(postings.reserved),
        hold=hold,
        pending=pending,
        sent=_numbers(sent),
    )
    return Decision(record, tuple(sent))


def _numbers(sent: list[tuple[int, NumberedMessage]]) -> tuple[SentNumber, ...]:
    return tuple(SentNumber(partition, message.number) for partition, message in sent)


def answer(
    state: state_view.StateView,
    input: DecisionInput,
    message: coordination.Prepared | coordination.Refused,
    time_ms: int,
) -> Decision:
    """A participant's answer: recorded while others are missing; the last one decides."""
    header = journal_header.for_input(state, input, time_ms)
    transaction = state_view.transaction(state, message.transaction_id)
    before = None if transaction is None else transaction.pending
    if transaction is None or before is None or message.source not in before.waiting:
        return Decision(
            replace(header, step="ignored", message=message, transaction_id=message.transaction_id)
        )
    pending = replace(before, waiting=tuple(p for p in before.waiting if p != message.source))
    if isinstance(message, coordination.Refused):
        refused = ParticipantRefusal(message.source, Reason(message.reason), message.index)
        pending = replace(pending, refusals=(*pending.refusals, refused))
    elif message.same_owner:
        pending = replace(pending, same_owner=True)
    if pending.waiting:
        return Decision(
            replace(
                header,
                step="answered",
                message=message,
                transaction_id=message.transaction_id,
                pending=pending,
            )
        )
    reason = _reason(pending)
    if reason is not None:
        return _reject(state, header, message.transaction_id, transaction, pending, reason, message)
    return _post(state, header, message.transaction_id, transaction, pending, message)


def time_out(state: state_view.StateView, header: JournalRecord, transaction_id: str) -> Decision:
    transaction = state_view.transaction(state, transaction_id)
    if transaction is None or transaction.pending is None:
        raise BrokenInvariant(f"{transaction_id} is due but is not pending")
    reason = Reason.PARTICIPANT_TIMEOUT
    return _reject(state, header, transaction_id, transaction, transaction.pending, reason, None)


def _reason(pending: PendingTransaction) -> Reason | None:
    if pending.refusals:
        return min(refusal(r.reason, r.index) for r in pending.refusals).reason
    if pending.fee and not pending.fee_reserved and not pending.same_owner:
        return Reason.INSUFFICIENT_FUNDS
    return None


def _post(
    state: state_view.StateView,
    header: JournalRecord,
    transaction_id: str,
    transaction: TransactionState,
    pending: PendingTransaction,
    message: CoordinationMessage,
) -> Decision:
    command = _command(transaction)
    fee = 0 if pending.same_owner else pending.fee
    entries = final_entries(pending, fee)
    own = _own(state, pending)
    postings = DecisionPostings(state)
    hold = _release(state, postings, command, pending, own)
    if hold is not None:
        hold = replace(hold, status="captured")
    postings.post_all(tuple(entry for entry in entries if entry.account in own))
    postings.balance_by_transit(pending.currency)
    details = outcomes.transaction_details(command, transaction_id, pending.currency, entries, fee)
    sent = _numbered(state, pending.participants, _commit(transaction_id, command, details))
    return Decision(
        replace(
            header,
            step="posted",
            message=message,
            command=command,
            command_offset=pending.offset,
            transaction_id=transaction_id,
            body_hash=transaction.body_hash.hex(),
            released=tuple(postings.released),
            entries=tuple(postings.entries),
            fee=fee,
            commission_bps=pending.commission_bps if fee else 0,
            hold=hold,
            sent=_numbers(sent),
        ),
        tuple(sent),
        outcomes.transaction_records(header, postings, details),
    )


def _reject(
    state: state_view.StateView,
    header: JournalRecord,
    transaction_id: str,
    transaction: TransactionState,
    pending: PendingTransaction,
    reason: Reason,
    message: CoordinationMessage | None,
) -> Decision:
    command = _command(transaction)
    postings = DecisionPostings(state)
    hold = _captured_hold(state, command)
    if hold is None:
        _release(state, postings, command, pending, _own(state, pending))
    elif hold.expires_at_ms <= header.time_ms:
        postings.release(hold.account, "debit", hold.amount)
        hold = replace(hold, status="expired")
    else:
        hold = replace(hold, status="open")
    refused = {refusal.partition for refusal in pending.refusals}
    recipients = [partition for partition in pending.participants if partition not in refused]
    sent = _numbered(
        state, recipients, coordination.Abort(source=0, number=0, transaction_id=transaction_id)
    )
    return Decision(
        replace(
            header,
            step="rejected",
            message=message,
            command=command,
            command_offset=pending.offset,
            transaction_id=transaction_id,
            body_hash=transaction.body_hash.hex(),
            reason=reason,
            released=tuple(postings.released),
            hold=hold,
            sent=_numbers(sent),
        ),
        tuple(sent),
    )


def _command(transaction: TransactionState) -> Command:
    assert transaction.command is not None, "a pending transaction keeps its command"
    return transaction.command


def _captured_hold(state: state_view.StateView, command: Command) -> journal.HoldChange | None:
    if not isinstance(command, commands.Capture):
        return None
    hold = state_view.hold(state, command.hold_id)
    assert hold is not None, "a hold is never deleted"
    return holds.changed(command.hold_id, hold, hold.status)


def _own(state: state_view.StateView, pending: PendingTransaction) -> frozenset[str]:
    return frozenset(entry.account for entry in pending.entries if _is_own(state, entry))


def _release(
    state: state_view.StateView,
    postings: DecisionPostings,
    command: Command,
    pending: PendingTransaction,
    own: frozenset[str],
) -> journal.HoldChange | None:
    """Release what the command's own step reserved; for a capture, the whole hold."""
    hold = _captured_hold(state, command)
    if hold is not None:
        postings.release(hold.account, "debit", hold.amount)
        return replace(hold, captured=pending.entries[0].amount)
    entries = pending.entries
    if not pending.fee_reserved:
        entries = without_fee(entries, pending.fee)
    for entry in entries:
        if entry.account in own and not ids.is_system(entry.account):
            postings.release(entry.account, entry.direction, entry.amount)
    return None


def _commit(
    transaction_id: str, command: Command, details: TransactionDetails
) -> coordination.Commit:
    return coordination.Commit(
        source=0,
        number=0,
        transaction_id=transaction_id,
        counterparty=command.account if details.parties else None,
        reference=command.reference,
        description=command.description,
        metadata=command.metadata,
    )


def _numbered(
    state: state_view.StateView, partitions: Iterable[int], message: NumberedMessage
) -> list[tuple[int, NumberedMessage]]:
    at = state.partition
    return [
        (
            partition,
            replace(message, source=at.partition, number=at.sent[partition] + 1),
        )
        for partition in partitions
    ]
