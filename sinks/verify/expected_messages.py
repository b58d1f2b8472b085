"""The records that must be published for a journal record: entries, a result, a dead letter.

It follows the fields as docs/producing.md and docs/analytics.md describe them. It is pure, and must
not know the code that writes these topics.
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
    """Call it before the books fold the record, while they have what is pending or prepared."""
    ordinary = [entry for entry in record.entries if isinstance(entry.balance, int)]
    if not ordinary:
        return []
    decided_at = expected_rows.timestamp(record.time_ms)
    assert decided_at is not None, "a record has a time"
    timestamp = f"{decided_at:%Y-%m-%dT%H:%M:%S.%f}Z"
    kind, parties, references = _published_fields(books, record)
    records = []
    for entry in ordinary:
        account = books.accounts[entry.account].change
        assert isinstance(entry.balance, int), "only a system account's balance is text"
        counterparty = None
        if len(parties) == 2:
            counterparty = parties[1] if parties[0] == entry.account else parties[0]
        payer = record.command is not None and record.command.account == entry.account
        records.append(
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
                reference=references[0],
                description=references[1],
                metadata=references[2],
                partition=record.partition,
                sequence=record.sequence,
            )
        )
    return records


def _published_fields(
    books: ReplayedBooks, record: JournalRecord
) -> tuple[str, list[str], tuple[str | None, str | None, Metadata]]:
    """The kind, the ordinary accounts that are published, and the command's reference, description
    and metadata."""
    message, command = record.message, record.command
    if isinstance(message, coordination.Commit):
        prepare = books.prepared[record.transaction_id or ""][0].message
        assert isinstance(prepare, coordination.Prepare), (
            "a transaction is prepared by a prepare message"
        )
        parties = (
            []
            if message.counterparty is None
            else [message.counterparty, prepare.entries[0].account]
        )
        return prepare.kind, parties, (message.reference, message.description, message.metadata)
    assert command is not None, "a posted record has a command"
    open_transaction = books.open.get(record.transaction_id or "")
    accounts: Iterable[str] = (entry.account for entry in record.entries)
    if open_transaction is not None:
        accounts = (entry.account for entry in open_transaction.pending.entries)
    parties = [account for account in accounts if not ids.is_system(account)]
    references = command.reference, command.description, command.metadata
    return commands.kind(command), parties, references


def result(record: JournalRecord) -> Result | None:
    """None if the record is not the outcome of a command."""
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


def result_key(result: Result) -> bytes:
    return (result.transaction_id or f"{result.partition}:{result.offset}").encode()


def has_dead_letter(record: JournalRecord) -> bool:
    """Refused by validation or misrouted. A reused key belongs to a valid command."""
    return record.step == "refused" and record.reason != Reason.IDEMPOTENCY_KEY_REUSED


def dead_letter(record: JournalRecord, input_value: bytes | None) -> DeadLetter | None:
    """None if neither the record nor `commands` has the bytes any more."""
    command, refused = record.command, record.refused
    if refused is not None:
        size, head, id = refused.size, refused.head, refused.id
    elif input_value is not None:
        size, head, id = len(input_value), head_of(input_value), _command_id(command)
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
    """The part of an undecodable input that is kept, as base64."""
    return base64.b64encode(value[: field_types.MAX_REFUSED_BYTES]).decode()


def _command_id(command: Command | None) -> str | None:
    return None if command is None else command.id
