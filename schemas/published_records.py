"""Messages for readers: `transactions`, `results` and `commands.dead`."""

from typing import Literal

from msgspec import Struct

from schemas import field_types, journal
from schemas.reasons import Reason


class TransactionRecord(Struct, frozen=True, gc=False):
    """An entry of an ordinary account, as analysts read it in `transactions`."""

    # The rules pass these positionally: keyword arguments would double the cost of an entry.
    user_id: str | None
    entry: field_types.Direction
    amount: int
    balance: int
    timestamp: str
    account_id: str
    currency: str
    transaction_id: str
    kind: str
    held: int
    available: int
    version: int
    counterparty: str | None
    fee: int
    reference: str | None
    description: str | None
    metadata: field_types.Metadata
    partition: int
    sequence: int


class Result(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The outcome of one record of `commands`, written once Postgres has it."""

    partition: int
    offset: int
    outcome: Literal["posted", "rejected", "pending"]
    id: str | None = None
    transaction_id: str | None = None
    kind: str | None = None
    reason: Reason | None = None
    detail: str | None = None
    replay: bool = False
    entries: tuple[journal.Entry, ...] = ()
    trace: str | None = None
    sequence: int
    time_ms: int


class DeadLetter(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A command that could not be read. The original stays in `commands` at this position."""

    partition: int
    offset: int
    reason: Reason
    detail: str | None = None
    digest: str
    size: int
    head: str
    id: str | None = None
