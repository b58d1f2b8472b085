"""What became of a command according to the books: by its position in Kafka, or by its transaction.

It waits for nothing and decides nothing. Keeps the rule that a look-up of somebody else's
transaction takes the same work as one of a missing transaction, so time does not tell them apart.
"""

from typing import Literal

from msgspec import Struct

from ingress.http.roles import READERS
from ingress.http.routes import Caller
from ingress.ledger.account_directory import AccountDirectory
from ingress.ledger.client.status_url import CommandPosition
from ingress.ledger.views import transaction_view
from ingress.ledger.views.transaction_view import TransactionView
from plumbing.postgres.connection_pool import Pool
from sinks.reads import transactions
from sinks.reads.queries import Connection


class Outcome(Struct, frozen=True, kw_only=True):
    """A command that never owned an id has neither `transaction_id` nor `view`. `position` is that
    of the command, if this ingress submitted it."""

    status: Literal["pending", "posted", "rejected"]
    transaction_id: str | None
    view: TransactionView | None = None
    reason: str | None = None
    detail: str | None = None
    replayed: bool = False
    position: CommandPosition | None = None


def party_filter(caller: Caller) -> str | None:
    """The owner who must have a part in a transaction; None for staff who may read all."""
    return None if caller.role in READERS else caller.id


class OutcomeLookup:
    def __init__(self, pool: Pool, directory: AccountDirectory) -> None:
        self._pool = pool
        self._directory = directory

    async def by_transaction(self, transaction_id: str, party: str | None = None) -> Outcome | None:
        """None: the books have no such transaction, or `party` has no part in it."""
        async with self._pool.connection() as connection:
            return await self._read(connection, transaction_id, party)

    async def by_position(self, partition: int, offset: int) -> Outcome | None:
        """None: the books have not reached this position."""
        async with self._pool.connection() as connection:
            command = await transactions.command_at(connection, partition, offset)
            if command is None:
                return None
            if command.transaction_id is None:
                return Outcome(
                    status="rejected",
                    transaction_id=None,
                    reason=command.reason,
                    detail=command.detail,
                )
            outcome = await self._read(connection, command.transaction_id)
        assert outcome is not None, "the transaction is written with its command, or before"
        return Outcome(
            status=outcome.status,
            transaction_id=outcome.transaction_id,
            view=outcome.view,
            reason=outcome.reason,
            replayed=command.outcome == "replayed",
        )

    async def _read(
        self, connection: Connection, transaction_id: str, party: str | None = None
    ) -> Outcome | None:
        row = await transactions.transaction(connection, transaction_id, party)
        if row is None:
            return None
        entries = []
        if row.status == "posted":
            entries = await transactions.transaction_entries(connection, transaction_id)
        parties = await self._directory.by_ids([row.account, row.counterparty], connection)
        account = parties.get(row.account)
        currency = "" if account is None else account.currency
        view = transaction_view.from_rows(row, entries, currency)
        return Outcome(status=row.status, transaction_id=row.id, view=view, reason=row.reason)
