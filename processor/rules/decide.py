"""What becomes of a command: from its bytes at the door to its outcome or its first step.

The order is the precedence of the catalogue: the door, the way it came, the key's first owner,
what the command alone tells, then what the state tells.
"""

import base64
from typing import assert_never

from msgspec.structs import replace

from processor.rules import (
    accounts,
    checks,
    coordinate,
    credit_debit,
    holds,
    outcomes,
    plans,
    state_view,
)
from processor.rules.books import DecisionPostings
from processor.rules.decision import BrokenInvariant, Decision, DecisionContext, DecisionInput, Plan
from processor.rules.journal_header import header
from schemas import commands, field_types, ids, state_keys
from schemas.commands import Command
from schemas.journal import JournalRecord, RefusedInput
from schemas.ledger_parameters import LedgerParameters
from schemas.partitioning import partition_of
from schemas.published_records import DeadLetter
from schemas.reasons import Reason
from schemas.state import AccountState, PartitionState
from schemas.validation.command_validation import UnreadableRecord

# What these name beside their account is looked up before any account's type is tested.
_LOOKS_UP = (
    commands.Transfer,
    commands.Post,
    commands.Capture,
    commands.Void,
    commands.Reverse,
)


def decide(
    of: state_view.StateView,
    input: DecisionInput,
    message: Command | UnreadableRecord,
    time_ms: int,
) -> Decision:
    head = header(of, input, time_ms)
    if isinstance(message, UnreadableRecord):
        return _refused(head, input, message.reason, message.detail, message.id, None)
    account = state_view.account(of, message.account)
    if _misrouted(message, input.key, of.partition, account):
        return _refused(head, input, Reason.MISROUTED, None, message.id, message)
    transaction_id = state_keys.transaction_id_in(input.transaction_key)
    body_hash = input.body_hash
    first = state_view.transaction_at(of, input.transaction_key)
    if first is None:
        asked = DecisionContext(of, head, message, transaction_id, body_hash.hex())
        return _decide_owned(asked, message, account)
    if first.body_hash != body_hash:
        return Decision(
            replace(head, step="refused", command=message, reason=Reason.IDEMPOTENCY_KEY_REUSED)
        )
    return Decision(
        replace(
            head,
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
    # An account that is known here was opened here: its partition need not be worked out again.
    if account is None and partition_of(id, at.partitions) != at.partition:
        return True
    return isinstance(command, commands.Post) and plans.coordinating_account(command) != id


def _refused(
    head: JournalRecord,
    input: DecisionInput,
    reason: Reason,
    detail: str | None,
    id: str | None,
    command: Command | None,
) -> Decision:
    """Answered by position; what could not be read, or came the wrong way, is told to people
    too.
    """
    kept = refused_input(input, id)
    told = replace(
        head,
        step="refused",
        command=command,
        refused=None if command else kept,
        reason=reason,
        detail=detail,
    )
    letter = DeadLetter(
        partition=head.partition,
        offset=input.offset,
        reason=reason,
        detail=detail,
        digest=head.digest or "",
        size=kept.size,
        head=kept.head,
        id=id,
    )
    return Decision(told, dead_letter=letter)


def refused_input(input: DecisionInput, id: str | None) -> RefusedInput:
    head = base64.b64encode(input.value[: field_types.MAX_REFUSED_BYTES]).decode()
    return RefusedInput(size=len(input.value), head=head, id=id)


def _decide_owned(
    asked: DecisionContext, command: Command, account: AccountState | None
) -> Decision:
    settings = asked.of.partition.settings
    if settings is None:
        raise BrokenInvariant("a command came before the partition's genesis")
    reason = _static(command)
    if reason is not None:
        return outcomes.rejected(asked, reason)
    if isinstance(command, commands.OpenAccount):
        return accounts.open_account(asked, command, settings)
    if account is None:
        return outcomes.rejected(asked, Reason.ACCOUNT_NOT_FOUND)
    return _decide_on(asked, command, account, settings)


def _types_allowed(command: Command, settings: LedgerParameters) -> frozenset[str]:
    return checks.types_allowed(
        settings.rules_version, commands.kind(command), command.wallets_only is True
    )


def _static(command: Command) -> Reason | None:
    """What the command alone tells."""
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
        return checks.first(reason, Reason.SYSTEM_ACCOUNT)
    return reason


def _decide_on(
    asked: DecisionContext, command: Command, account: AccountState, settings: LedgerParameters
) -> Decision:
    of = asked.of
    alone = not isinstance(command, _LOOKS_UP)
    if alone and account.type not in _types_allowed(command, settings):
        return outcomes.rejected(asked, Reason.ACCOUNT_TYPE_NOT_ALLOWED)
    match command:
        case commands.Credit():
            return credit_debit.move(asked, command, account, "credit", "debit")
        case commands.Debit():
            return credit_debit.move(asked, command, account, "debit", "credit")
        case commands.Transfer():
            return _settle(asked, account, plans.transfer(command, account, of, settings), settings)
        case commands.Post():
            return _settle(asked, account, plans.post(command, of.partition), settings)
        case commands.Hold():
            return holds.place(asked, command, account, settings)
        case commands.Capture():
            capture = plans.capture(command, of, asked.header.time_ms)
            if capture is None:
                return outcomes.rejected(asked, Reason.HOLD_NOT_FOUND)
            return _settle(asked, account, capture, settings)
        case commands.Void():
            return holds.void(asked, command, account)
        case commands.Reverse():
            reversal = plans.reverse(command, of)
            if reversal is None:
                return outcomes.rejected(asked, Reason.TRANSACTION_NOT_FOUND)
            return _settle(asked, account, reversal, settings)
        case commands.SetLimit():
            return accounts.set_limit(asked, command, account, settings)
        case commands.ChangeAccount():
            return accounts.change(asked, command, account, settings)
        case commands.Freeze():
            return accounts.freeze(asked, command, account)
        case commands.Unfreeze():
            return accounts.unfreeze(asked, command, account)
        case commands.Close():
            return accounts.close(asked, command, account)
        case commands.OpenAccount():
            raise AssertionError("an account is opened before it is looked up")
        case _:
            assert_never(command)


def _settle(
    asked: DecisionContext, account: AccountState, plan: Plan, settings: LedgerParameters
) -> Decision:
    """Post a plan at once where every entry is in this partition, else reserve and ask the
    others.
    """
    own, others = coordinate.split(asked.of, plan.entries)
    covered = None if plan.hold is None else asked.command.account
    types = _types_allowed(asked.command, settings)
    found = checks.first_refusal(asked.of, own, plan.currency, types, covered)
    fee_reserved = True
    if found is not None and others and coordinate.may_waive_fee(asked.command, account, plan):
        bare = coordinate.without_fee(own, plan.fee)
        if found.reason in coordinate.BY_FUNDS and not checks.first_refusal(
            asked.of, bare, plan.currency, types
        ):
            found, fee_reserved = None, False
    if plan.refusal is not None:
        found = plan.refusal if found is None else min(found, plan.refusal)
    if found is not None:
        return outcomes.rejected(asked, found.reason)
    if others:
        return coordinate.begin(asked, account, plan, own, others, fee_reserved, settings)
    return _post(asked, account, plan)


def _post(asked: DecisionContext, account: AccountState, plan: Plan) -> Decision:
    command = asked.command
    books = DecisionPostings(asked.of)
    hold = None
    if plan.hold is not None:
        assert isinstance(command, commands.Capture), "only a capture takes a hold"
        books.release(command.account, "debit", plan.hold.amount)
        hold = holds.changed(command.hold_id, plan.hold, "captured", plan.entries[0].amount)
    books.post_all(plan.entries)
    assert books.net == 0, "the entries of a transaction balance"
    if not outcomes.conditions_hold(command, account.version, books.available(command.account)):
        return outcomes.rejected(asked, Reason.CONDITION_FAILED)
    told = outcomes.published(command, asked.transaction_id, plan.currency, plan.entries, plan.fee)
    return Decision(
        replace(
            asked.header,
            step="posted",
            command=command,
            transaction_id=asked.transaction_id,
            body_hash=asked.body_hash,
            released=tuple(books.released),
            entries=tuple(books.entries),
            fee=plan.fee,
            commission_bps=plan.commission_bps,
            hold=hold,
        ),
        transactions=outcomes.transactions(asked.header, books, told),
    )
