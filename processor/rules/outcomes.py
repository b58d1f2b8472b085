"""Builds decisions: the journal record of an outcome, and its `transactions` records."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from msgspec.structs import replace

from processor.rules.decision import Decision, DecisionContext, TransactionDetails
from processor.rules.postings import DecisionPostings
from schemas import commands, ids, journal
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry
from schemas.published_records import TransactionRecord
from schemas.reasons import Reason


def rejected(context: DecisionContext, reason: Reason, detail: str | None = None) -> Decision:
    return Decision(
        replace(
            context.header,
            step="rejected",
            command=context.command,
            transaction_id=context.transaction_id,
            body_hash=context.body_hash,
            reason=reason,
            detail=detail,
        )
    )


def posted(
    context: DecisionContext,
    *,
    account: journal.AccountChange | None = None,
    hold: journal.HoldChange | None = None,
    reserved: tuple[journal.Reservation, ...] = (),
    released: tuple[journal.Reservation, ...] = (),
) -> Decision:
    """The outcome of a command that moves no money."""
    return Decision(
        replace(
            context.header,
            step="posted",
            command=context.command,
            transaction_id=context.transaction_id,
            body_hash=context.body_hash,
            account=account,
            hold=hold,
            reserved=reserved,
            released=released,
        )
    )


def conditions_hold(command: Command, version: int, available_after: int) -> bool:
    if command.expected_version is not None and command.expected_version != version:
        return False
    least = command.min_available_after
    return least is None or available_after >= least


def parties(entries: Iterable[CoordinatedEntry]) -> tuple[str, ...]:
    ordinary = tuple(entry.account for entry in entries if not ids.is_system(entry.account))
    return ordinary if len(ordinary) == 2 else ()


def transaction_details(
    command: Command,
    transaction_id: str,
    currency: str,
    entries: tuple[CoordinatedEntry, ...],
    fee: int,
) -> TransactionDetails:
    return TransactionDetails(
        transaction_id,
        commands.kind(command),
        currency,
        command.reference,
        command.description,
        command.metadata,
        command.account,
        fee,
        parties(entries),
    )


def transaction_records(
    header: journal.JournalRecord, postings: DecisionPostings, details: TransactionDetails
) -> tuple[TransactionRecord, ...]:
    """One record per entry of an ordinary account, in journal order."""
    timestamp = rfc3339(header.time_ms)
    records = []
    for entry in postings.entries:
        account = postings.accounts.get(entry.account)
        if account is None:
            continue
        balance = entry.balance
        assert isinstance(balance, int), "only a system account's balance is text"
        records.append(
            TransactionRecord(
                account.owner,
                entry.direction,
                entry.amount,
                balance,
                timestamp,
                entry.account,
                details.currency,
                details.transaction_id,
                details.kind,
                entry.held,
                balance - entry.held,
                entry.version,
                _counterparty(details.parties, entry.account),
                details.fee if entry.account == details.payer else 0,
                details.reference,
                details.description,
                details.metadata,
                header.partition,
                header.sequence,
            )
        )
    return tuple(records)


def _counterparty(parties: tuple[str, ...], account: str) -> str | None:
    if not parties:
        return None
    return parties[1] if parties[0] == account else parties[0]


@lru_cache(maxsize=1_024)
def rfc3339(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1_000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}000Z"
