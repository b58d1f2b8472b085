"""What became of a command, as the books have it: by its position in Kafka, or by the id of its
transaction.

It waits for nothing and decides nothing. Keeps the rule that what is another's is looked for like
what is not there: by the same work, so that no time tells the two apart.
"""

from typing import Literal

from msgspec import Struct

from ingress.http.roles import READERS
from ingress.http.routes import Caller
from ingress.ledger.account_directory import AccountDirectory
from ingress.ledger.client.status_url import Position
from ingress.ledger.views import transaction_view
from ingress.ledger.views.transaction_view import TransactionView
from plumbing.postgres.connection_pool import Pool
from sinks.reads import transactions
from sinks.reads.queries import Connection


class Outcome(Struct, frozen=True, kw_only=True):
    """`transaction_id` is None where it never owned one; `facts` is None then, too. `position` is
    that of the command, where it was submitted here."""

    status: Literal["pending", "posted", "rejected"]
    transaction_id: str | None
    facts: TransactionView | None = None
    reason: str | None = None
    detail: str | None = None
    replayed: bool = False
    position: Position | None = None


def party_filter(caller: Caller) -> str | None:
    """Whose part in a transaction is looked for; None for those who may read all."""
    return None if caller.role in READERS else caller.id


class OutcomeLookup:
    def __init__(self, pool: Pool, accounts: AccountDirectory) -> None:
        self._pool = pool
        self._accounts = accounts

    async def of(self, transaction_id: str, party: str | None = None) -> Outcome | None:
        """None: the books have no such transaction, or `party`, an owner, has no part in it."""
        async with self._pool.connection() as connection:
            return await self._of(connection, transaction_id, party)

    async def at(self, partition: int, offset: int) -> Outcome | None:
        """None: the books are not there yet."""
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
            found = await self._of(connection, command.transaction_id)
        replayed = command.outcome == "replayed"
        assert found is not None, "its transaction is written with it, or before"
        return Outcome(
            status=found.status,
            transaction_id=found.transaction_id,
            facts=found.facts,
            reason=found.reason,
            replayed=replayed,
        )

    async def _of(
        self, connection: Connection, transaction_id: str, party: str | None = None
    ) -> Outcome | None:
        row = await transactions.transaction(connection, transaction_id, party)
        if row is None:
            return None
        entries = []
        if row.status == "posted":
            entries = await transactions.entries_of(connection, transaction_id)
        known = await self._accounts.all_of([row.account, row.counterparty], connection)
        account = known.get(row.account)
        currency = "" if account is None else account.currency
        made = transaction_view.from_rows(row, entries, currency)
        return Outcome(status=row.status, transaction_id=row.id, facts=made, reason=row.reason)
