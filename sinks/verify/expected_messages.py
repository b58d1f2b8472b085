"""What readers must be told of a journal record: its entries in `transactions`, its result, its
dead letter.

Its own reading of what each field means, as docs/producing.md and docs/analytics.md describe it.
Pure, and no code of those who write these topics.
"""

import base64
from collections.abc import Iterable
from typing import Final

from schemas import commands, coordination, field_types, ids
from schemas.commands import Command
from schemas.field_types import Metadata
from schemas.journal import OUTCOMES, JournalRecord
from schemas.published_records import DeadLetter, Result, TransactionRecord
from schemas.reasons import Reason
from sinks.verify import expected_rows
from sinks.verify.replayed_books import ReplayedBooks

_REJECTED: Final = frozenset({"rejected", "refused"})


def transactions(books: ReplayedBooks, record: JournalRecord) -> list[TransactionRecord]:
    """Asked before the books have the record: what was pending or prepared is there still."""
    ordinary = [entry for entry in record.entries if isinstance(entry.balance, int)]
    if not ordinary:
        return []
    moment = expected_rows.moment(record.time_ms)
    assert moment is not None, "a record has a time"
    timestamp = f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"
    kind, parties, said = _what_it_is(books, record)
    told = []
    for entry in ordinary:
        account = books.accounts[entry.account].change
        assert isinstance(entry.balance, int), "only a system account's balance is text"
        counterparty = None
        if len(parties) == 2:
            counterparty = parties[1] if parties[0] == entry.account else parties[0]
        payer = record.command is not None and record.command.account == entry.account
        told.append(
            TransactionRecord(
                user_id=account.owner,
                entry=entry.direction,
                amount=entry.amount,
                balance=entry.balance,
                timestamp=timestamp,
                account_id=entry.account,
                currency=account.currency,
                transaction_id=record.transaction_id or "",
                kind=kind,
                held=entry.held,
                available=entry.balance - entry.held,
                version=entry.version,
                counterparty=counterparty,
                fee=record.fee if payer else 0,
                reference=said[0],
                description=said[1],
                metadata=said[2],
                partition=record.partition,
                sequence=record.sequence,
            )
        )
    return told


def _what_it_is(
    books: ReplayedBooks, record: JournalRecord
) -> tuple[str, list[str], tuple[str | None, str | None, Metadata]]:
    """Kind, the ordinary accounts as far as they are told, and what its command said of it."""
    message, command = record.message, record.command
    if isinstance(message, coordination.Commit):
        asked = books.prepared[record.transaction_id or ""][0].message
        assert isinstance(asked, coordination.Prepare), "what is prepared was asked for"
        parties = (
            [] if message.counterparty is None else [message.counterparty, asked.entries[0].account]
        )
        return asked.kind, parties, (message.reference, message.description, message.metadata)
    assert command is not None, "who posts has a command"
    waited = books.open.get(record.transaction_id or "")
    named: Iterable[str] = (entry.account for entry in record.entries)
    if waited is not None:
        named = (entry.account for entry in waited.pending.entries)
    parties = [account for account in named if not ids.is_system(account)]
    said = command.reference, command.description, command.metadata
    return commands.kind(command), parties, said


def result(record: JournalRecord) -> Result | None:
    """None where the record is no outcome of a command."""
    offset: int | None = record.source.offset
    if record.command_offset is not None:
        offset = record.command_offset
    elif record.source.topic != "commands":
        return None
    if record.step not in OUTCOMES or offset is None:
        return None
    command, refused = record.command, record.refused
    outcome = "rejected" if record.step in _REJECTED else "posted"
    if record.step == "replayed":
        outcome = record.first_status or ""
    return Result(
        partition=record.partition,
        offset=offset,
        outcome=outcome,  # type: ignore[arg-type]  # of a forged record it may be anything
        id=command.id if command is not None else refused.id if refused is not None else None,
        transaction_id=record.transaction_id,
        kind=None if command is None else commands.kind(command),
        reason=record.reason,
        detail=record.detail,
        replay=record.step == "replayed",
        entries=record.entries,
        trace=None if command is None else command.trace,
        sequence=record.sequence,
        time_ms=record.time_ms,
    )


def result_key(told: Result) -> bytes:
    return (told.transaction_id or f"{told.partition}:{told.offset}").encode()


def has_dead_letter(record: JournalRecord) -> bool:
    """Refused at the door or misrouted; a key that was used again is a well-routed command's."""
    return record.step == "refused" and record.reason != Reason.IDEMPOTENCY_KEY_REUSED


def dead_letter(record: JournalRecord, answered: bytes | None) -> DeadLetter | None:
    """None where neither the record nor `commands` has the bytes any more."""
    command, refused = record.command, record.refused
    if refused is not None:
        size, head, id = refused.size, refused.head, refused.id
    elif answered is not None:
        size, head, id = len(answered), head_of(answered), _label(command)
    else:
        return None
    return DeadLetter(
        partition=record.partition,
        offset=record.source.offset,
        reason=record.reason or Reason.MALFORMED,
        detail=record.detail,
        digest=record.digest or "",
        size=size,
        head=head,
        id=id,
    )


def head_of(value: bytes) -> str:
    """What is kept of an input that could not be read."""
    return base64.b64encode(value[: field_types.MAX_REFUSED_BYTES]).decode()


def _label(command: Command | None) -> str | None:
    return None if command is None else command.id
