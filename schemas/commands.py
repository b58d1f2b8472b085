"""Commands: what anyone may ask of the ledger, one type for each kind, and the body that makes two
of them the same.

A value of these types is well-formed; whether it may happen is for the rules to say. Unknown fields
are refused.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from schemas import fields, ids


class _Command(
    Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
):
    account: fields.AccountId
    id: fields.Label | None = None
    idempotency_key: fields.Key | None = None
    reference: fields.Label | None = None
    description: fields.Text | None = None
    metadata: fields.Metadata = field(default_factory=dict)
    actor: fields.Label | None = None
    trace: fields.Label | None = None
    expected_version: fields.Version | None = None
    min_available_after: fields.Balance | None = None
    effective_at_ms: fields.Time | None = None
    external_id: fields.Label | None = None
    # True for a user's command: every account that it uses must be a wallet, and its key belongs to
    # another key space than the keys of all other commands.
    wallets_only: bool | None = None


class OpenAccount(_Command, frozen=True, kw_only=True, gc=False, tag="open_account"):
    type: fields.AccountType
    currency: fields.Currency
    owner: fields.Owner | None = None
    min_balance: fields.Balance | None = None


class SetLimit(_Command, frozen=True, kw_only=True, gc=False, tag="set_limit"):
    min_balance: fields.Balance | None = None


class ChangeAccount(_Command, frozen=True, kw_only=True, gc=False, tag="change_account"):
    """What is given is changed, all else stays. Each name in `metadata` is set in the account's, or
    with an empty text taken out of it; `no_limit` true takes the limit away.
    """

    min_balance: fields.Balance | None = None
    no_limit: bool | None = None


class Credit(_Command, frozen=True, kw_only=True, gc=False, tag="credit"):
    amount: fields.Amount
    currency: fields.Currency | None = None


class Debit(_Command, frozen=True, kw_only=True, gc=False, tag="debit"):
    amount: fields.Amount
    currency: fields.Currency | None = None


class Transfer(_Command, frozen=True, kw_only=True, gc=False, tag="transfer"):
    to: fields.AccountId
    amount: fields.Amount
    currency: fields.Currency | None = None


class PostEntry(
    Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    account: fields.AccountId
    direction: fields.Direction
    amount: fields.Amount


class Post(_Command, frozen=True, kw_only=True, gc=False, tag="post"):
    currency: fields.Currency
    entries: Annotated[tuple[PostEntry, ...], Meta(max_length=1_000)]


class Hold(_Command, frozen=True, kw_only=True, gc=False, tag="hold"):
    amount: fields.Amount
    currency: fields.Currency | None = None
    expires_at_ms: fields.Time | None = None


class Capture(_Command, frozen=True, kw_only=True, gc=False, tag="capture"):
    hold_id: fields.TransactionId
    to: fields.AccountId | None = None
    amount: fields.Amount | None = None


class Void(_Command, frozen=True, kw_only=True, gc=False, tag="void"):
    hold_id: fields.TransactionId


class Reverse(_Command, frozen=True, kw_only=True, gc=False, tag="reverse"):
    transaction_id: fields.TransactionId


class Freeze(_Command, frozen=True, kw_only=True, gc=False, tag="freeze"):
    pass


class Unfreeze(_Command, frozen=True, kw_only=True, gc=False, tag="unfreeze"):
    pass


class Close(_Command, frozen=True, kw_only=True, gc=False, tag="close"):
    pass


Command = (
    OpenAccount
    | SetLimit
    | ChangeAccount
    | Credit
    | Debit
    | Transfer
    | Post
    | Hold
    | Capture
    | Void
    | Reverse
    | Freeze
    | Unfreeze
    | Close
)

_canonical = msgspec.json.Encoder(order="deterministic")


def key(command: Command) -> str:
    """The idempotency key: the id stands in where none is given."""
    given = command.idempotency_key
    if given is not None:
        return given
    assert command.id is not None, "a well-formed command has a key or an id"
    return command.id


def body(command: Command) -> bytes:
    """Canonical bytes of what two commands with one key must have in common to be the same.

    Defaults and absent fields are alike; key order and encoding are gone; so are id, key, actor and
    trace, and `wallets_only`, as two commands that differ in it never share a key.
    """
    return _canonical.encode(
        msgspec.structs.replace(
            command, id=None, idempotency_key=None, actor=None, trace=None, wallets_only=None
        )
    )


def transaction_id(command: Command) -> ids.TransactionId:
    return ids.transaction_id(
        command.account, key(command), wallets_only=bool(command.wallets_only)
    )


_KINDS: dict[type[Struct], str] = {
    type: str(type.__struct_config__.tag) for type in Command.__args__
}


def kind(command: Command) -> str:
    return _KINDS[type(command)]
