"""What a journal record must change, derived from its command or message and the books before it.

It takes the decision as given: only the rules say whether a command may be posted. It compares what
follows from the decision, field by field. It is pure, and must not know the rules.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, get_args

from msgspec.structs import replace

from schemas import commands, coordination, ids
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry, NumberedMessage
from schemas.journal import HoldChange, JournalRecord, ParticipantRefusal, PendingTransaction
from schemas.partitioning import partition_of
from schemas.reasons import Reason
from sinks.verify import replayed_books
from sinks.verify.replayed_books import (
    EntryTriple,
    ReplayedBooks,
    entries_digest,
    final_entries,
    without_fee,
)
from sinks.verify.report import Differences

_NUMBERED: Final = get_args(coordination.NumberedMessage)
_CHANGE_ACCOUNTS: Final = (
    commands.OpenAccount,
    commands.SetLimit,
    commands.ChangeAccount,
    commands.Freeze,
    commands.Unfreeze,
    commands.Close,
)


class EffectsUnknown(ValueError):
    """The effects cannot be derived, because something that they depend on is missing."""


class Effects(NamedTuple):
    entries: tuple[EntryTriple, ...] = ()
    released: tuple[EntryTriple, ...] = ()
    reserved: tuple[EntryTriple, ...] = ()
    hold: HoldChange | None = None
    pending: PendingTransaction | None = None
    fee: int = 0
    commission_bps: int = 0
    # The account that it opens or changes.
    account: str | None = None
    # By receiving partition. `CoordinationChannels` adds the message numbers.
    messages: tuple[tuple[int, NumberedMessage], ...] = ()


NOTHING: Final = Effects()


def compare(
    books: ReplayedBooks, offset: int, record: JournalRecord, differences: Differences
) -> Effects | None:
    """Call it before the books fold the record. Returns the expected effects, or None if they
    cannot be derived."""

    def note(what: str) -> None:
        differences.note(
            "journal",
            what,
            partition=books.partition,
            offset=offset,
            sequence=record.sequence,
            account=None if record.command is None else record.command.account,
            transaction_id=record.transaction_id,
        )

    try:
        expected = expected_effects(books, record)
    except EffectsUnknown as error:
        note(str(error))
        return None
    actual = Effects(
        tuple((each.account, each.direction, each.amount) for each in record.entries),
        tuple((each.account, each.direction, each.amount) for each in record.released),
        tuple((each.account, each.direction, each.amount) for each in record.reserved),
        record.hold,
        record.pending,
        record.fee,
        record.commission_bps,
        None if record.account is None else record.account.id,
    )
    origin = "command" if record.source.topic == "commands" else record.step
    for name, actual_value, expected_value in zip(Effects._fields, actual, expected, strict=True):
        if name != "messages" and actual_value != expected_value:
            wanted = _describe(expected_value)
            note(f"{name}: {_describe(actual_value)}, but its {origin} calls for {wanted}")
    return expected


def _describe(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(" ".join(map(str, each)) for each in value) or "none"
    return "none" if value is None else str(value)


def expected_effects(books: ReplayedBooks, record: JournalRecord) -> Effects:
    step = record.step
    message = record.message
    if (
        isinstance(message, _NUMBERED)
        and step != "duplicate"
        and record.transaction_id != message.transaction_id
    ):
        raise EffectsUnknown(
            f"is about {record.transaction_id}, its message about another transaction"
        )
    if step in ("posted", "pending") and record.command_offset is None:
        if record.command is None:
            raise EffectsUnknown(f"is {step} without a command")
        return _posted_or_pending(books, record, record.command)
    if step in ("posted", "rejected") and record.command_offset is not None:
        return _decision(books, record)
    if step == "answered":
        return Effects(pending=_answered(books, record))
    if step == "expired":
        return _expired(books, record)
    if step == "prepared" or step == "declined":
        return _prepared_or_declined(books, record)
    if step == "committed" or step == "aborted":
        return _committed_or_aborted(books, record)
    if (step == "timed") is not isinstance(message, coordination.LogTime) and step != "ignored":
        raise EffectsUnknown(f"is {step}, which its message does not allow")
    if step == "ignored":
        _check_ignored(books, record)
    return NOTHING


# A command's own step


def _posted_or_pending(books: ReplayedBooks, record: JournalRecord, command: Command) -> Effects:
    if isinstance(command, _CHANGE_ACCOUNTS):
        return Effects(account=command.account)
    if isinstance(command, commands.Hold):
        return _hold(books, record, command)
    if isinstance(command, commands.Void):
        hold = _open_hold(books, command.hold_id, command.account)
        return Effects(
            released=((hold.account, "debit", hold.amount),),
            hold=replace(hold, status="voided", captured=0),
        )
    entries, fee, commission_bps = _planned_entries(books, record, command)
    triples = _triples(entries)
    if record.step == "pending":
        return _pending(books, record, command, entries, fee, commission_bps)
    if not isinstance(command, commands.Capture):
        return Effects(entries=triples, fee=fee, commission_bps=commission_bps)
    hold = _open_hold(books, command.hold_id, command.account)
    return Effects(
        entries=triples,
        released=((hold.account, "debit", hold.amount),),
        hold=replace(hold, status="captured", captured=triples[0][2]),
    )


def _hold(books: ReplayedBooks, record: JournalRecord, command: commands.Hold) -> Effects:
    expires_at_ms = command.expires_at_ms
    if expires_at_ms is None:
        if books.settings is None:
            raise EffectsUnknown("a hold is placed before the genesis")
        expires_at_ms = record.time_ms + books.settings.hold_ttl_ms
    return Effects(
        reserved=((command.account, "debit", command.amount),),
        hold=HoldChange(
            id=record.transaction_id or "",
            account=command.account,
            currency=command.currency or _account(books, command.account).change.currency,
            amount=command.amount,
            expires_at_ms=expires_at_ms,
            status="open",
        ),
    )


def _planned_entries(
    books: ReplayedBooks, record: JournalRecord, command: Command
) -> tuple[tuple[CoordinatedEntry, ...], int, int]:
    """The entries that a command requests, its commission and the commission rate."""
    account = _account(books, command.account)
    currency: str = getattr(command, "currency", None) or account.change.currency
    own = command.account
    match command:
        case commands.Credit():
            shard = ids.system_shard(ids.FUNDING, currency, books.partition)
            return _numbered((shard, "debit", command.amount), (own, "credit", command.amount))
        case commands.Debit():
            shard = ids.system_shard(ids.FUNDING, currency, books.partition)
            return _numbered((own, "debit", command.amount), (shard, "credit", command.amount))
        case commands.Transfer():
            return _transfer(books, command, account, currency)
        case commands.Post():
            return _numbered(
                *((_shard(books, e.account), e.direction, e.amount) for e in command.entries)
            )
        case commands.Capture():
            hold = _open_hold(books, command.hold_id, own)
            amount = hold.amount if command.amount is None else command.amount
            to = command.to or ids.system_shard(ids.FUNDING, hold.currency, books.partition)
            return _numbered((own, "debit", amount), (to, "credit", amount))
        case commands.Reverse():
            return _reversal(books, record, command), 0, 0
        case _:
            raise EffectsUnknown(f"{commands.kind(command)} moves no money")


def _transfer(
    books: ReplayedBooks,
    command: commands.Transfer,
    account: replayed_books.ReplayedAccount,
    currency: str,
) -> tuple[tuple[CoordinatedEntry, ...], int, int]:
    if books.settings is None:
        raise EffectsUnknown("a transfer comes before the genesis")
    commission_bps = books.settings.commission_bps
    fee = (command.amount * commission_bps + 5_000) // 10_000
    receiver = books.accounts.get(command.to)
    if receiver is not None and _same_owner(receiver, _wallet_owner(account)):
        fee = 0
    entries: list[EntryTriple] = [
        (command.account, "debit", command.amount + fee),
        (command.to, "credit", command.amount),
    ]
    if fee:
        shard = ids.system_shard(ids.FEES, currency, books.partition)
        entries.append((shard, "credit", fee))
    return _numbered(*entries)[0], fee, commission_bps if fee else 0


def _reversal(
    books: ReplayedBooks, record: JournalRecord, command: commands.Reverse
) -> tuple[CoordinatedEntry, ...]:
    """The record's entries, once they match the reversed original. The books keep a digest of that
    only."""
    if record.pending is not None:
        entries = record.pending.entries
    else:
        entries = _numbered(*((e.account, e.direction, e.amount) for e in record.entries))[0]
    reversed_digest = entries_digest(
        (each.account, "debit" if each.direction == "credit" else "credit", each.amount)
        for each in entries
    )
    original = books.owned.get(ids.to_key(command.transaction_id))
    if original is None or original.status != "posted":
        raise EffectsUnknown(f"reverses {command.transaction_id}, which is not posted")
    if original.entries != reversed_digest:
        raise EffectsUnknown(
            f"its entries are not the reversed entries of {command.transaction_id}"
        )
    return entries


def _pending(
    books: ReplayedBooks,
    record: JournalRecord,
    command: Command,
    entries: tuple[CoordinatedEntry, ...],
    fee: int,
    commission_bps: int,
) -> Effects:
    settings = books.settings
    if settings is None or record.pending is None:
        raise EffectsUnknown("is pending without a plan, or before the genesis")
    participant_entries: dict[int, list[CoordinatedEntry]] = {}
    for entry in entries:
        partition = _partition(books, entry.account)
        if partition != books.partition:
            participant_entries.setdefault(partition, []).append(entry)
    participants = tuple(sorted(participant_entries))
    account = _account(books, command.account)
    owner = _wallet_owner(account)
    waivable = isinstance(command, commands.Transfer) and fee > 0 and owner is not None
    # Only the rules can tell whether the sender can pay the commission.
    fee_reserved = record.pending.fee_reserved or not waivable
    hold, reserved = None, entries if fee_reserved else without_fee(entries, fee)
    if isinstance(command, commands.Capture):
        before = _open_hold(books, command.hold_id, command.account)
        hold, reserved = replace(before, status="capturing", captured=entries[0].amount), ()
    currency = getattr(command, "currency", None) or account.change.currency
    prepares: list[tuple[int, NumberedMessage]] = [
        (
            partition,
            coordination.Prepare(
                source=books.partition,
                number=0,
                transaction_id=record.transaction_id or "",
                kind=commands.kind(command),
                currency=currency,
                account=command.account,
                entries=tuple(participant_entries[partition]),
                owner=owner if waivable else None,
                wallets_only=bool(command.wallets_only),
            ),
        )
        for partition in participants
    ]
    return Effects(
        reserved=_own_partition_entries(books, reserved, system=False),
        hold=hold,
        pending=PendingTransaction(
            entries=entries,
            participants=participants,
            waiting=participants,
            currency=currency,
            deadline_ms=record.time_ms + settings.participant_timeout_ms,
            offset=record.source.offset,
            fee=fee,
            commission_bps=commission_bps,
            fee_reserved=fee_reserved,
        ),
        messages=tuple(prepares),
    )


# Answers and decisions, at the coordinator


def _answered(books: ReplayedBooks, record: JournalRecord) -> PendingTransaction:
    open_transaction, message = books.open.get(record.transaction_id or ""), record.message
    if open_transaction is None or not isinstance(
        message, coordination.Prepared | coordination.Refused
    ):
        raise EffectsUnknown("answers a transaction that is not pending")
    before = open_transaction.pending
    if message.source not in before.waiting:
        raise EffectsUnknown(
            f"counts an answer of partition {message.source}, which is not expected"
        )
    after = replace(
        before, waiting=tuple(each for each in before.waiting if each != message.source)
    )
    if isinstance(message, coordination.Refused):
        refusal = ParticipantRefusal(message.source, Reason(message.reason), message.index)
        return replace(after, refusals=(*after.refusals, refusal))
    return replace(after, same_owner=after.same_owner or message.same_owner)


def _decision(books: ReplayedBooks, record: JournalRecord) -> Effects:
    open_transaction = books.open.get(record.transaction_id or "")
    if open_transaction is None or open_transaction.record.command is None:
        raise EffectsUnknown("decides a transaction that is not pending")
    command = open_transaction.record.command
    timed_out = record.source.topic == "expiry"
    pending = open_transaction.pending if timed_out else _answered(books, record)
    if record.step == "posted":
        return _decision_to_post(books, record, open_transaction, pending, command)
    refused = {refusal.partition for refusal in pending.refusals}
    reasons: set[Reason] = {refusal.reason for refusal in pending.refusals}
    if timed_out:
        reasons = {Reason.PARTICIPANT_TIMEOUT}
        if pending.deadline_ms > record.time_ms:
            raise EffectsUnknown(
                f"times out at {record.time_ms}, before its deadline {pending.deadline_ms}"
            )
    elif pending.waiting:
        raise EffectsUnknown(f"is rejected while it waits for partitions {pending.waiting}")
    elif not reasons and pending.fee and not pending.fee_reserved and not pending.same_owner:
        reasons = {Reason.INSUFFICIENT_FUNDS}
    if record.reason not in reasons:
        raise EffectsUnknown(f"is rejected for {record.reason}, which no participant gave")
    hold, released = None, open_transaction.reserved
    if isinstance(command, commands.Capture):
        before = _placed_hold(books, command.hold_id)
        hold, released = replace(before, status="open", captured=0), ()
        if before.expires_at_ms <= record.time_ms:
            hold = replace(hold, status="expired")
            released = ((before.account, "debit", before.amount),)
    return Effects(
        released=released,
        hold=hold,
        messages=_addressed_to(
            [each for each in pending.participants if each not in refused],
            coordination.Abort(
                source=books.partition, number=0, transaction_id=record.transaction_id or ""
            ),
        ),
    )


def _decision_to_post(
    books: ReplayedBooks,
    record: JournalRecord,
    open_transaction: replayed_books.OpenTransaction,
    pending: PendingTransaction,
    command: Command,
) -> Effects:
    if record.source.topic == "expiry" or pending.waiting or pending.refusals:
        raise EffectsUnknown("is posted, but not all participants have prepared it")
    if pending.fee and not pending.fee_reserved and not pending.same_owner:
        raise EffectsUnknown("is posted, but its commission was not reserved")
    fee = 0 if pending.same_owner else pending.fee
    entries = final_entries(pending, fee)
    hold, released = None, open_transaction.reserved
    if isinstance(command, commands.Capture):
        before = _placed_hold(books, command.hold_id)
        hold = replace(before, status="captured", captured=pending.entries[0].amount)
        released = ((before.account, "debit", before.amount),)
    ordinary = [each for each in entries if not ids.is_system(each.account)]
    commit = coordination.Commit(
        source=books.partition,
        number=0,
        transaction_id=record.transaction_id or "",
        counterparty=command.account if len(ordinary) == 2 else None,
        reference=command.reference,
        description=command.description,
        metadata=command.metadata,
    )
    return Effects(
        entries=_with_transit(books, _own_partition_entries(books, entries), pending.currency),
        released=released,
        hold=hold,
        fee=fee,
        commission_bps=pending.commission_bps if fee else 0,
        messages=_addressed_to(pending.participants, commit),
    )


def _addressed_to(
    partitions: Iterable[int], message: NumberedMessage
) -> tuple[tuple[int, NumberedMessage], ...]:
    return tuple((partition, message) for partition in partitions)


def _expired(books: ReplayedBooks, record: JournalRecord) -> Effects:
    hold = _placed_hold(books, record.transaction_id or "")
    if hold.status != "open" or hold.expires_at_ms > record.time_ms:
        raise EffectsUnknown(
            f"hold {hold.id}, {hold.status} until {hold.expires_at_ms}, expires at {record.time_ms}"
        )
    return Effects(
        released=((hold.account, "debit", hold.amount),),
        hold=replace(hold, status="expired", captured=0),
    )


# At a participant


def _prepared_or_declined(books: ReplayedBooks, record: JournalRecord) -> Effects:
    message = record.message
    if not isinstance(message, coordination.Prepare):
        raise EffectsUnknown(f"is {record.step} without a prepare message")
    id = message.transaction_id
    if record.step == "declined":
        refused = coordination.Refused(
            source=books.partition, number=0, transaction_id=id, reason=record.reason or "", index=0
        )
        return Effects(messages=((message.source, refused),))
    if id in books.prepared:
        raise EffectsUnknown("is prepared a second time")
    receiver = books.accounts.get(message.entries[0].account) if message.entries else None
    same_owner = receiver is not None and _same_owner(receiver, message.owner)
    prepared = coordination.Prepared(
        source=books.partition, number=0, transaction_id=id, same_owner=same_owner
    )
    return Effects(reserved=_triples(message.entries), messages=((message.source, prepared),))


def _committed_or_aborted(books: ReplayedBooks, record: JournalRecord) -> Effects:
    """Applies the coordinator's decision to exactly what was prepared."""
    before = books.prepared.get(record.transaction_id or "")
    kind = coordination.Commit if record.step == "committed" else coordination.Abort
    if before is None or not isinstance(before[0].message, coordination.Prepare):
        raise EffectsUnknown(f"is {record.step}, but was not prepared")
    if not isinstance(record.message, kind):
        raise EffectsUnknown(f"is {record.step} without its message")
    prepare, reserved = before[0].message, before[1]
    if record.message.source != prepare.source:
        raise EffectsUnknown(
            f"was prepared for partition {prepare.source}, not {record.message.source}"
        )
    if record.step == "aborted":
        return Effects(released=reserved)
    entries = _with_transit(books, _triples(prepare.entries), prepare.currency)
    return Effects(entries=entries, released=reserved)


def _check_ignored(books: ReplayedBooks, record: JournalRecord) -> None:
    """Only an unexpected message may be ignored."""
    message, id = record.message, record.transaction_id or ""
    if isinstance(message, coordination.Commit | coordination.Abort) and id in books.prepared:
        raise EffectsUnknown("ignores the decision on a prepared transaction")
    if isinstance(message, coordination.Prepared | coordination.Refused):
        open_transaction = books.open.get(id)
        if open_transaction is not None and message.source in open_transaction.pending.waiting:
            raise EffectsUnknown("ignores an expected answer")
    if isinstance(message, coordination.Prepare):
        raise EffectsUnknown("ignores a prepare message")
    if isinstance(message, coordination.LogTime) and (
        message.topic != "coordination"
        or message.last >= record.source.offset
        or record.source.topic != "coordination"
    ):
        raise EffectsUnknown("ignores a log-time decision on later records")


# Entries


def _numbered(*entries: EntryTriple) -> tuple[tuple[CoordinatedEntry, ...], int, int]:
    """The entries of a command without commission."""
    return tuple(CoordinatedEntry(n, *entry) for n, entry in enumerate(entries)), 0, 0


def _triples(entries: Iterable[CoordinatedEntry]) -> tuple[EntryTriple, ...]:
    return tuple((each.account, each.direction, each.amount) for each in entries)


def _own_partition_entries(
    books: ReplayedBooks, entries: Iterable[CoordinatedEntry], *, system: bool = True
) -> tuple[EntryTriple, ...]:
    return tuple(
        (each.account, each.direction, each.amount)
        for each in entries
        if _partition(books, each.account) == books.partition
        and (system or not ids.is_system(each.account))
    )


def _with_transit(
    books: ReplayedBooks, entries: tuple[EntryTriple, ...], currency: str
) -> tuple[EntryTriple, ...]:
    """Adds the transit entry that balances the others."""
    net = sum(amount if direction == "debit" else -amount for _, direction, amount in entries)
    if not net:
        return entries
    shard = ids.system_shard(ids.TRANSIT, currency, books.partition)
    return (*entries, (shard, "credit" if net > 0 else "debit", abs(net)))


def _partition(books: ReplayedBooks, account: str) -> int:
    """System accounts belong to the coordinator."""
    return books.partition if ids.is_system(account) else partition_of(account, books.partitions)


def _shard(books: ReplayedBooks, account: str) -> str:
    if not ids.is_system(account):
        return account
    _, role, currency = account.split(":")
    return ids.system_shard(role, currency, books.partition)


def _account(books: ReplayedBooks, id: str) -> replayed_books.ReplayedAccount:
    account = books.accounts.get(id)
    if account is None:
        raise EffectsUnknown(f"refers to account {id}, which was never opened")
    return account


def _wallet_owner(account: replayed_books.ReplayedAccount) -> str | None:
    return account.change.owner if account.change.type == "wallet" else None


def _same_owner(receiver: replayed_books.ReplayedAccount, owner: str | None) -> bool:
    return owner is not None and _wallet_owner(receiver) == owner


def _placed_hold(books: ReplayedBooks, id: str) -> HoldChange:
    hold = books.holds.get(id)
    if hold is None:
        raise EffectsUnknown(f"refers to hold {id}, which was never placed")
    return hold.change


def _open_hold(books: ReplayedBooks, id: str, account: str) -> HoldChange:
    hold = _placed_hold(books, id)
    if hold.account != account:
        raise EffectsUnknown(f"uses hold {id}, which belongs to {hold.account}")
    return hold
