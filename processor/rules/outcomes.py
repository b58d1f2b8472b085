"""How a decision is told: the journal record of an outcome, and the `transactions` records with
it.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from msgspec.structs import replace

from processor.rules.books import DecisionPostings
from processor.rules.decision import Decision, DecisionContext, Published
from schemas import commands, ids, journal
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry
from schemas.published_records import TransactionRecord
from schemas.reasons import Reason


def rejected(asked: DecisionContext, reason: Reason, detail: str | None = None) -> Decision:
    return Decision(
        replace(
            asked.header,
            step="rejected",
            command=asked.command,
            transaction_id=asked.transaction_id,
            body_hash=asked.body_hash,
            reason=reason,
            detail=detail,
        )
    )


def posted(
    asked: DecisionContext,
    *,
    account: journal.AccountChange | None = None,
    hold: journal.HoldChange | None = None,
    reserved: tuple[journal.Reservation, ...] = (),
    released: tuple[journal.Reservation, ...] = (),
) -> Decision:
    """A command that moves no money."""
    return Decision(
        replace(
            asked.header,
            step="posted",
            command=asked.command,
            transaction_id=asked.transaction_id,
            body_hash=asked.body_hash,
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


def published(
    command: Command,
    transaction_id: str,
    currency: str,
    entries: tuple[CoordinatedEntry, ...],
    fee: int,
) -> Published:
    return Published(
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


def transactions(
    header: journal.JournalRecord, books: DecisionPostings, told: Published
) -> tuple[TransactionRecord, ...]:
    """One record for each entry of an ordinary account, in the order of the journal."""
    timestamp = rfc3339(header.time_ms)
    records = []
    for entry in books.entries:
        account = books.accounts.get(entry.account)
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
                told.currency,
                told.transaction_id,
                told.kind,
                entry.held,
                balance - entry.held,
                entry.version,
                _counterparty(told.parties, entry.account),
                told.fee if entry.account == told.payer else 0,
                told.reference,
                told.description,
                told.metadata,
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
