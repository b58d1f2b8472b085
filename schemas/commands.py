"""Commands: one type per kind of request, and the body that identifies a replay.

A value of these types is well-formed; the rules decide whether it is allowed. Unknown fields are
refused. They must not know any state.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct, field

from schemas import field_types, ids


class _Command(
    Struct,
    frozen=True,
    kw_only=True,
    gc=False,
    omit_defaults=True,
    forbid_unknown_fields=True,
    tag_field="kind",
):
    account: field_types.AccountId
    id: field_types.Label | None = None
    idempotency_key: field_types.Key | None = None
    reference: field_types.Label | None = None
    description: field_types.Text | None = None
    metadata: field_types.Metadata = field(default_factory=dict)
    actor: field_types.Label | None = None
    trace: field_types.Label | None = None
    expected_version: field_types.Version | None = None
    min_available_after: field_types.Balance | None = None
    effective_at_ms: field_types.Time | None = None
    external_id: field_types.Label | None = None
    # True for a user's command: every account that it uses must be a wallet, and its key belongs to
    # another key space than the keys of all other commands.
    wallets_only: bool | None = None


class OpenAccount(_Command, frozen=True, kw_only=True, gc=False, tag="open_account"):
    type: field_types.AccountType
    currency: field_types.Currency
    owner: field_types.Owner | None = None
    min_balance: field_types.Balance | None = None


class SetLimit(_Command, frozen=True, kw_only=True, gc=False, tag="set_limit"):
    min_balance: field_types.Balance | None = None


class ChangeAccount(_Command, frozen=True, kw_only=True, gc=False, tag="change_account"):
    """Changes the given fields only. Each name in `metadata` is set on the account; an empty text
    removes it. `no_limit` true removes the limit.
    """

    min_balance: field_types.Balance | None = None
    no_limit: bool | None = None


class Credit(_Command, frozen=True, kw_only=True, gc=False, tag="credit"):
    amount: field_types.Amount
    currency: field_types.Currency | None = None


class Debit(_Command, frozen=True, kw_only=True, gc=False, tag="debit"):
    amount: field_types.Amount
    currency: field_types.Currency | None = None


class Transfer(_Command, frozen=True, kw_only=True, gc=False, tag="transfer"):
    to: field_types.AccountId
    amount: field_types.Amount
    currency: field_types.Currency | None = None


class PostEntry(
    Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    account: field_types.AccountId
    direction: field_types.Direction
    amount: field_types.Amount


class Post(_Command, frozen=True, kw_only=True, gc=False, tag="post"):
    currency: field_types.Currency
    entries: Annotated[tuple[PostEntry, ...], Meta(max_length=1_000)]


class Hold(_Command, frozen=True, kw_only=True, gc=False, tag="hold"):
    amount: field_types.Amount
    currency: field_types.Currency | None = None
    expires_at_ms: field_types.Time | None = None


class Capture(_Command, frozen=True, kw_only=True, gc=False, tag="capture"):
    hold_id: field_types.TransactionId
    to: field_types.AccountId | None = None
    amount: field_types.Amount | None = None


class Void(_Command, frozen=True, kw_only=True, gc=False, tag="void"):
    hold_id: field_types.TransactionId


class Reverse(_Command, frozen=True, kw_only=True, gc=False, tag="reverse"):
    transaction_id: field_types.TransactionId


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
    """The idempotency key, which defaults to the id."""
    given = command.idempotency_key
    if given is not None:
        return given
    assert command.id is not None, "a well-formed command has a key or an id"
    return command.id


def body(command: Command) -> bytes:
    """The canonical bytes that two commands with one key must share to be the same command.

    Absent fields and defaults are equal; key order and encoding do not count. Neither do id, key,
    actor and trace, nor `wallets_only`: commands that differ in it never share a key.
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
