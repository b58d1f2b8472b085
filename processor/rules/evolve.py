"""Applies a journal record to the state: the only place that changes it.

Replaying a partition's journal from its genesis gives the same state. It only
checks that the record follows the state. It must not know why a record was decided.
"""

from typing import Literal, get_args

from msgspec.structs import replace

from processor.rules import coordinate, state_view
from processor.rules.decision import BrokenInvariant
from schemas import commands, coordination, journal, state_keys
from schemas import state as states
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry
from schemas.journal import JournalRecord
from schemas.ledger_parameters import Genesis
from schemas.state import (
    AccountState,
    Due,
    HoldState,
    LogTimeDecision,
    PartitionState,
    SystemAccountState,
    TransactionState,
)

# Built once: building a union per call costs more than the test.
_CREDIT_OR_DEBIT = (commands.Credit, commands.Debit)
_NUMBERED = get_args(coordination.NumberedMessage)


def evolve(state: state_view.StateView, record: JournalRecord) -> None:
    if record.sequence != state.partition.sequence + 1:
        raise BrokenInvariant(
            f"journal record {record.sequence} follows on {state.partition.sequence}"
        )
    _transaction(state, record)
    for reservation in record.released:
        _reservation(state, reservation)
    for reservation in record.reserved:
        _reservation(state, reservation)
    for entry in record.entries:
        _entry(state, entry)
    if record.account is not None:
        _account(state, record.account)
    if record.hold is not None:
        _hold(state, record.hold)
    state.partition = _partition(state.partition, record)


def _reservation(state: state_view.StateView, reservation: journal.Reservation) -> None:
    key = state_keys.account(reservation.account)
    state.put(
        key,
        replace(_opened_account(state, key), held=reservation.held, incoming=reservation.incoming),
    )


def _entry(state: state_view.StateView, entry: journal.Entry) -> None:
    balance = entry.balance
    if isinstance(balance, str):
        state.put(
            state_keys.system_account(entry.account), SystemAccountState(balance, entry.version)
        )
        return
    key = state_keys.account(entry.account)
    account = _opened_account(state, key)
    if entry.version != account.version + 1:
        raise BrokenInvariant(
            f"version {entry.version} of {entry.account} follows on {account.version}"
        )
    state.put(
        key,
        AccountState(
            account.type,
            account.currency,
            account.status,
            account.owner,
            account.min_balance,
            balance,
            entry.held,
            entry.incoming,
            entry.version,
            account.metadata,
        ),
    )


def _opened_account(state: state_view.StateView, key: bytes) -> AccountState:
    account = state.get(key)
    if account is None:
        raise BrokenInvariant(f"an entry on {key[1:].decode()}, which was never opened")
    return account  # type: ignore[return-value]  # by the key


def _account(state: state_view.StateView, change: journal.AccountChange) -> None:
    before = state_view.account(state, change.id)
    state.put(
        state_keys.account(change.id),
        AccountState(
            change.type,
            change.currency,
            change.status,
            change.owner,
            change.min_balance,
            before.balance if before else 0,
            before.held if before else 0,
            before.incoming if before else 0,
            before.version if before else 0,
            change.metadata,
        ),
    )


def _hold(state: state_view.StateView, change: journal.HoldChange) -> None:
    state.put(
        state_keys.hold(change.id),
        HoldState(
            change.account,
            change.currency,
            change.amount,
            change.expires_at_ms,
            change.status,
            change.captured,
        ),
    )
    due = Due("hold") if change.status == "open" else None
    state.put(state_keys.due(change.expires_at_ms, change.id), due)


def _transaction(state: state_view.StateView, record: JournalRecord) -> None:
    id, step = record.transaction_id, record.step
    if id is None:
        return
    match step:
        case "posted" | "rejected" if record.command_offset is None:
            _outcome(state, id, record)
        case "posted" | "rejected":
            _later_outcome(state, id, record)
        case "pending":
            _pending(state, id, record)
        case "answered":
            transaction = state_view.transaction(state, id)
            if transaction is None or transaction.pending is None:
                raise BrokenInvariant(f"an answer about {id}, which is not pending")
            state.put(state_keys.transaction(id), replace(transaction, pending=record.pending))
        case "prepared":
            message = record.message
            assert isinstance(message, coordination.Prepare), "a prepare is what is prepared"
            state.put(
                state_keys.prepared(id),
                states.PreparedTransaction(
                    message.source, message.kind, message.currency, message.account, message.entries
                ),
            )
        case "committed" | "aborted":
            state.put(state_keys.prepared(id), None)
        case _:
            pass


def _outcome(state: state_view.StateView, id: str, record: JournalRecord) -> None:
    """The outcome of a command that was decided in its own step."""
    command, body_hash = record.command, record.body_hash
    assert command is not None and body_hash is not None, "an owned command is journaled whole"
    state.put(
        state_keys.transaction(id), _outcome_state(state, command, bytes.fromhex(body_hash), record)
    )
    if record.step == "posted" and isinstance(command, commands.Reverse):
        _mark(state, command.transaction_id, id, reversed=True)


def _outcome_state(
    state: state_view.StateView, command: Command, body_hash: bytes, record: JournalRecord
) -> TransactionState:
    kind, account = commands.kind(command), command.account
    if not record.entries:
        status: Literal["posted", "rejected"] = "posted" if record.step == "posted" else "rejected"
        return TransactionState(body_hash, status, kind, account, record.reason)
    currency = _opened_account(state, state_keys.account(account)).currency
    if isinstance(command, _CREDIT_OR_DEBIT):
        return TransactionState(body_hash, "posted", kind, account, None, currency, command.amount)
    return TransactionState(
        body_hash,
        "posted",
        kind,
        account,
        currency=currency,
        entries=tuple(
            CoordinatedEntry(index, entry.account, entry.direction, entry.amount)
            for index, entry in enumerate(record.entries)
        ),
        fee=record.fee,
        commission_bps=record.commission_bps,
    )


def _pending(state: state_view.StateView, id: str, record: JournalRecord) -> None:
    command, body_hash, pending = record.command, record.body_hash, record.pending
    assert command is not None and body_hash is not None and pending is not None
    state.put(
        state_keys.transaction(id),
        TransactionState(
            bytes.fromhex(body_hash),
            "pending",
            commands.kind(command),
            command.account,
            command=command,
            pending=pending,
        ),
    )
    state.put(state_keys.due(pending.deadline_ms, id), Due("pending"))
    if isinstance(command, commands.Reverse):
        _mark(state, command.transaction_id, id, reversed=False)


def _later_outcome(state: state_view.StateView, id: str, record: JournalRecord) -> None:
    """The outcome of a pending transaction."""
    transaction = state_view.transaction(state, id)
    if transaction is None or transaction.pending is None or transaction.command is None:
        raise BrokenInvariant(f"a decision on {id}, which is not pending")
    pending, posted = transaction.pending, record.step == "posted"
    state.put(
        state_keys.transaction(id),
        TransactionState(
            transaction.body_hash,
            "posted" if posted else "rejected",
            transaction.kind,
            transaction.account,
            record.reason,
            currency=pending.currency if posted else None,
            entries=coordinate.final_entries(pending, record.fee) if posted else (),
            fee=record.fee,
            commission_bps=record.commission_bps,
        ),
    )
    state.put(state_keys.due(pending.deadline_ms, id), None)
    if isinstance(transaction.command, commands.Reverse):
        original = transaction.command.transaction_id
        _mark(state, original, id if posted else None, reversed=posted)


def _mark(
    state: state_view.StateView, original: str, reversal: str | None, *, reversed: bool
) -> None:
    transaction = state_view.transaction(state, original)
    assert transaction is not None, "what is reversed was posted"
    state.put(
        state_keys.transaction(original),
        replace(transaction, reversal=reversal, reversed=reversed),
    )


def _partition(before: PartitionState, record: JournalRecord) -> PartitionState:
    if record.genesis is not None:
        before = _begin(before, record.genesis)
    parameters, version = before.settings, before.settings_version
    if record.settings is not None:
        parameters, version = record.settings, version + 1
    pending = before.pending
    if record.step == "pending":
        pending += 1
    elif record.command_offset is not None:
        pending -= 1
    return PartitionState(
        before.partition,
        before.partitions,
        before.ledger_id,
        record.sequence,
        record.time_ms,
        version,
        parameters,
        pending,
        _sent(before.sent, record) if record.sent else before.sent,
        before.seen if record.message is None else _seen(before.seen, record),
        _log_times(before.log_times, record) if before.log_times or record.step == "timed" else (),
    )


def _log_times(
    before: tuple[LogTimeDecision, ...], record: JournalRecord
) -> tuple[LogTimeDecision, ...]:
    """The decisions that still apply to records not yet read."""
    source = record.source
    left = tuple(each for each in before if each.topic != source.topic or each.last > source.offset)
    if record.step != "timed":
        return left
    message = record.message
    assert isinstance(message, coordination.LogTime), "only an operator assigns a time"
    given = LogTimeDecision(message.topic, message.first, message.last, message.time_ms)
    return (*(each for each in left if each != given), given)


def _begin(before: PartitionState, genesis: Genesis) -> PartitionState:
    none_yet = (0,) * genesis.partitions
    return replace(
        before,
        partitions=genesis.partitions,
        ledger_id=genesis.ledger_id,
        sent=none_yet,
        seen=none_yet,
    )


def _sent(before: tuple[int, ...], record: JournalRecord) -> tuple[int, ...]:
    numbers = list(before)
    for sent in record.sent:
        numbers[sent.partition] = sent.number
    return tuple(numbers)


def _seen(before: tuple[int, ...], record: JournalRecord) -> tuple[int, ...]:
    message = record.message
    if not isinstance(message, _NUMBERED) or record.step == "duplicate":
        return before
    return (*before[: message.source], message.number, *before[message.source + 1 :])
