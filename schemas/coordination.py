"""The messages of two-phase commit between partitions, and those to an owner's own partition.

Messages between two partitions are numbered from 1 without gaps, so that duplicates are detected.
"""

from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from schemas import field_types
from schemas.ledger_parameters import Genesis, LedgerParameters


class CoordinatedEntry(Struct, frozen=True, gc=False, array_like=True):
    """An entry of the transaction, with its index among all entries."""

    index: int
    account: field_types.AccountId
    direction: field_types.Direction
    amount: int


class _Numbered(
    Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="message",
):
    source: int
    number: int
    transaction_id: field_types.TransactionId


class Prepare(_Numbered, frozen=True, kw_only=True, gc=False, tag="prepare"):
    kind: str
    currency: field_types.Currency
    account: field_types.AccountId
    entries: tuple[CoordinatedEntry, ...]
    # The owner of a sending wallet: transfers between wallets of one owner cost no commission.
    owner: field_types.Owner | None = None
    # Copied from the command: only wallets may take part.
    wallets_only: bool = False


class Prepared(_Numbered, frozen=True, kw_only=True, gc=False, tag="prepared"):
    same_owner: bool = False


class Refused(_Numbered, frozen=True, kw_only=True, gc=False, tag="refused"):
    reason: str
    index: int


class Commit(_Numbered, frozen=True, kw_only=True, gc=False, tag="commit"):
    # For the participant's `transactions` records; it has kept the entries itself.
    counterparty: field_types.AccountId | None = None
    reference: field_types.Label | None = None
    description: field_types.Text | None = None
    metadata: field_types.Metadata = {}


class Abort(_Numbered, frozen=True, kw_only=True, gc=False, tag="abort"):
    pass


class _Own(
    Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="message",
):
    pass


class Tick(_Own, frozen=True, kw_only=True, gc=False, tag="tick"):
    """Time has passed: written by a partition's owner to its own partition."""


class Configure(_Own, frozen=True, kw_only=True, gc=False, tag="configure"):
    settings: LedgerParameters
    genesis: Genesis | None = None


class LogTime(_Own, frozen=True, kw_only=True, gc=False, tag="log_time"):
    """An operator's decision: records of this partition from `first` to `last` have this time if
    their broker timestamp is later."""

    topic: Literal["commands", "coordination"]
    first: Annotated[int, Meta(ge=0)]
    last: Annotated[int, Meta(ge=0)]
    time_ms: Annotated[int, Meta(ge=0)]


CoordinationMessage = Prepare | Prepared | Refused | Commit | Abort | Tick | Configure | LogTime
NumberedMessage = Prepare | Prepared | Refused | Commit | Abort


class Undecodable(NamedTuple):
    """A message of another version that this one cannot read. Its effect is unknown, so it must
    not be skipped."""

    detail: str
