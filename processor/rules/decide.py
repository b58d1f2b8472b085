"""Decides a command: from the decoded record to its outcome, or to its first step.

Checks follow the precedence of the catalogue: command validation, routing, the idempotency key, the
command by itself, then the command against the state. It must not know how a plan is posted.
"""

import base64
from typing import assert_never

from msgspec.structs import replace

from processor.rules import (
    accounts,
    checks,
    credit_debit,
    holds,
    journal_header,
    outcomes,
    plans,
    settle,
    state_view,
)
from processor.rules.decision import BrokenInvariant, Decision, DecisionContext, DecisionInput
from schemas import commands, field_types, ids, state_keys
from schemas.commands import Command
from schemas.journal import JournalRecord, RefusedInput
from schemas.ledger_parameters import LedgerParameters
from schemas.partitioning import partition_of
from schemas.published_records import DeadLetter
from schemas.reasons import Reason
from schemas.state import AccountState, PartitionState
from schemas.validation.command_validation import UnreadableRecord

# For these kinds, the other things they name are looked up before any account type is checked.
_NAMES_OTHERS = (
    commands.Transfer,
    commands.Post,
    commands.Capture,
    commands.Void,
    commands.Reverse,
)


def decide(
    state: state_view.StateView,
    input: DecisionInput,
    message: Command | UnreadableRecord,
    time_ms: int,
) -> Decision:
    header = journal_header.for_input(state, input, time_ms)
    if isinstance(message, UnreadableRecord):
        return _refused(header, input, message.reason, message.detail, message.id, None)
    account = state_view.account(state, message.account)
    if _misrouted(message, input.key, state.partition, account):
        return _refused(header, input, Reason.MISROUTED, None, message.id, message)
    transaction_id = state_keys.transaction_id_in(input.transaction_key)
    body_hash = input.body_hash
    first = state_view.transaction_at(state, input.transaction_key)
    if first is None:
        context = DecisionContext(state, header, message, transaction_id, body_hash.hex())
        return _decide_owned(context, message, account)
    if first.body_hash != body_hash:
        return Decision(
            replace(header, step="refused", command=message, reason=Reason.IDEMPOTENCY_KEY_REUSED)
        )
    return Decision(
        replace(
            header,
            step="replayed",
            command=message,
            transaction_id=transaction_id,
            body_hash=body_hash.hex(),
            first_status=first.status,
            reason=first.reason,
        )
    )


def _misrouted(
    command: Command, key: bytes | None, at: PartitionState, account: AccountState | None
) -> bool:
    id = command.account
    if key != id.encode():
        return True
    # An account in this state was opened here, so its partition need not be computed.
    if account is None and partition_of(id, at.partitions) != at.partition:
        return True
    return isinstance(command, commands.Post) and plans.coordinating_account(command) != id


def _refused(
    header: JournalRecord,
    input: DecisionInput,
    reason: Reason,
    detail: str | None,
    id: str | None,
    command: Command | None,
) -> Decision:
    """Answered by position. Unreadable and misrouted records also get a dead letter."""
    excerpt = refused_input(input, id)
    record = replace(
        header,
        step="refused",
        command=command,
        refused=None if command else excerpt,
        reason=reason,
        detail=detail,
    )
    letter = DeadLetter(
        partition=header.partition,
        offset=input.offset,
        reason=reason,
        detail=detail,
        digest=header.digest or "",
        size=excerpt.size,
        head=excerpt.head,
        id=id,
    )
    return Decision(record, dead_letter=letter)


def refused_input(input: DecisionInput, id: str | None) -> RefusedInput:
    head = base64.b64encode(input.value[: field_types.MAX_REFUSED_BYTES]).decode()
    return RefusedInput(size=len(input.value), head=head, id=id)


def _decide_owned(
    context: DecisionContext, command: Command, account: AccountState | None
) -> Decision:
    parameters = context.state.partition.settings
    if parameters is None:
        raise BrokenInvariant("a command came before the partition's genesis")
    reason = _static(command)
    if reason is not None:
        return outcomes.rejected(context, reason)
    if isinstance(command, commands.OpenAccount):
        return accounts.open_account(context, command, parameters)
    if account is None:
        return outcomes.rejected(context, Reason.ACCOUNT_NOT_FOUND)
    return _decide_on(context, command, account, parameters)


def _types_allowed(command: Command, parameters: LedgerParameters) -> frozenset[str]:
    return checks.types_allowed(
        parameters.rules_version, commands.kind(command), command.wallets_only is True
    )


def _static(command: Command) -> Reason | None:
    """The checks that need no state."""
    match command:
        case commands.Credit() | commands.Debit() | commands.Hold():
            unknown = checks.currency_unknown(command.currency)
            reason = Reason.CURRENCY_UNKNOWN if unknown else None
        case commands.Transfer():
            reason = plans.static_transfer(command)
        case commands.Post():
            reason = plans.static_post(command)
        case commands.Capture():
            reason = plans.static_capture(command)
        case commands.OpenAccount():
            reason = accounts.static_open(command)
        case commands.SetLimit():
            reason = accounts.static_limit(command)
        case commands.ChangeAccount():
            reason = accounts.static_change(command)
        case _:
            reason = None
    if ids.is_system(command.account):
        return checks.first_reason(reason, Reason.SYSTEM_ACCOUNT)
    return reason


def _decide_on(
    context: DecisionContext, command: Command, account: AccountState, parameters: LedgerParameters
) -> Decision:
    state = context.state
    names_others = isinstance(command, _NAMES_OTHERS)
    if not names_others and account.type not in _types_allowed(command, parameters):
        return outcomes.rejected(context, Reason.ACCOUNT_TYPE_NOT_ALLOWED)
    match command:
        case commands.Credit():
            return credit_debit.move(context, command, account, "credit", "debit")
        case commands.Debit():
            return credit_debit.move(context, command, account, "debit", "credit")
        case commands.Transfer():
            return settle.settle(
                context, account, plans.transfer(command, account, state, parameters), parameters
            )
        case commands.Post():
            return settle.settle(context, account, plans.post(command, state.partition), parameters)
        case commands.Hold():
            return holds.place(context, command, account, parameters)
        case commands.Capture():
            capture = plans.capture(command, state, context.header.time_ms)
            if capture is None:
                return outcomes.rejected(context, Reason.HOLD_NOT_FOUND)
            return settle.settle(context, account, capture, parameters)
        case commands.Void():
            return holds.void(context, command, account)
        case commands.Reverse():
            reversal = plans.reverse(command, state)
            if reversal is None:
                return outcomes.rejected(context, Reason.TRANSACTION_NOT_FOUND)
            return settle.settle(context, account, reversal, parameters)
        case commands.SetLimit():
            return accounts.set_limit(context, command, account, parameters)
        case commands.ChangeAccount():
            return accounts.change(context, command, account, parameters)
        case commands.Freeze():
            return accounts.freeze(context, command, account)
        case commands.Unfreeze():
            return accounts.unfreeze(context, command, account)
        case commands.Close():
            return accounts.close(context, command, account)
        case commands.OpenAccount():
            raise AssertionError("an account is opened before it is looked up")
        case _:
            assert_never(command)
