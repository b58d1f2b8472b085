"""Messages between partitions: two-phase commit, and what an owner sends to its own partition.

Between two partitions messages are numbered from 1 without gaps, so that one that arrives twice is
known.
"""

from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from schemas import field_types
from schemas.ledger_parameters import Genesis, LedgerParameters


class CoordinatedEntry(Struct, frozen=True, gc=False, array_like=True):
    """An entry of the transaction, with its place among all of them."""

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
    # The sender's owner where it is a wallet: between wallets of one owner there is no commission.
    owner: field_types.Owner | None = None
    # The command's: only wallets may take part.
    wallets_only: bool = False


class Prepared(_Numbered, frozen=True, kw_only=True, gc=False, tag="prepared"):
    same_owner: bool = False


class Refused(_Numbered, frozen=True, kw_only=True, gc=False, tag="refused"):
    reason: str
    index: int


class Commit(_Numbered, frozen=True, kw_only=True, gc=False, tag="commit"):
    # What the participant's `transactions` records tell; the entries it has kept itself.
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
    """An operator's decision: records of this partition from `first` to `last` are of this time,
    where the log's own is later."""

    topic: Literal["commands", "coordination"]
    first: Annotated[int, Meta(ge=0)]
    last: Annotated[int, Meta(ge=0)]
    time_ms: Annotated[int, Meta(ge=0)]


CoordinationMessage = Prepare | Prepared | Refused | Commit | Abort | Tick | Configure | LogTime
NumberedMessage = Prepare | Prepared | Refused | Commit | Abort


class Undecodable(NamedTuple):
    """A coordination message that another version wrote and this one cannot read. It has an effect
    that is not known here: nobody may pass over it."""

    detail: str
