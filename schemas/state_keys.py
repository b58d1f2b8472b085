"""The keys of a partition's state. The first byte of a key is the kind of its value."""

from typing import Final

from schemas import commands, ids
from schemas.commands import Command

POSITION: Final = b"p"
ACCOUNT: Final = b"a"
SYSTEM_ACCOUNT: Final = b"s"
TRANSACTION: Final = b"t"
HOLD: Final = b"h"
PREPARED: Final = b"r"
DUE: Final = b"x"


def account(id: str) -> bytes:
    return ACCOUNT + id.encode()


def system_account(shard: str) -> bytes:
    return SYSTEM_ACCOUNT + shard.encode()


def transaction(id: str) -> bytes:
    return TRANSACTION + ids.to_key(id)


def transaction_id_in(key: bytes) -> ids.TransactionId:
    return ids.to_text(key[1:])


def own_transaction(command: Command) -> bytes:
    """The key of the transaction that a command requests."""
    key = commands.key(command)
    return TRANSACTION + ids.transaction_bytes(command.account, key, bool(command.wallets_only))


def hold(id: str) -> bytes:
    return HOLD + ids.to_key(id)


def prepared(transaction: str) -> bytes:
    return PREPARED + ids.to_key(transaction)


def due(time_ms: int, id: str) -> bytes:
    return DUE + time_ms.to_bytes(8, "big") + ids.to_key(id)


def due_bound(time_ms: int) -> bytes:
    """The exclusive upper bound of the keys of everything due at a time."""
    return DUE + (time_ms + 1).to_bytes(8, "big")
