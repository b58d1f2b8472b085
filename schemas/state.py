"""State: what a partition knows, as key and value in RocksDB and in the `state` topic.

A key's first byte tells its kind. Values are msgpack arrays: fields are only ever added, at the
end, with defaults.
"""

from typing import Final, Literal

from msgspec import Struct

from schemas import commands, fields, ids
from schemas.commands import Command
from schemas.journal import HoldStatus, Pending
from schemas.legs import LegEntry
from schemas.reasons import Reason
from schemas.settings import Settings

POSITION_KEY: Final = b"p"
ACCOUNT: Final = b"a"
SYSTEM_ACCOUNT: Final = b"s"
TRANSACTION: Final = b"t"
HOLD: Final = b"h"
PREPARED: Final = b"r"
DUE: Final = b"x"


def account_key(account: str) -> bytes:
    return b"a" + account.encode()


def system_key(shard: str) -> bytes:
    return b"s" + shard.encode()


def transaction_key(id: str) -> bytes:
    return b"t" + ids.to_key(id)


def transaction_id_in(key: bytes) -> ids.TransactionId:
    return ids.to_text(key[1:])


def own_transaction_key(command: Command) -> bytes:
    """Of the transaction that a command asks for."""
    return b"t" + ids.transaction_bytes(command.account, commands.key(command))


def hold_key(hold: str) -> bytes:
    return b"h" + ids.to_key(hold)


def prepared_key(transaction: str) -> bytes:
    return b"r" + ids.to_key(transaction)


def due_key(time_ms: int, id: str) -> bytes:
    return b"x" + time_ms.to_bytes(8, "big") + ids.to_key(id)


def due_bound(time_ms: int) -> bytes:
    """Every key of what is due at a time is less than this one."""
    return b"x" + (time_ms + 1).to_bytes(8, "big")


class Account(Struct, frozen=True, gc=False, array_like=True):
    type: fields.AccountType
    currency: str
    status: fields.AccountStatus
    owner: str | None
    min_balance: int | None
    balance: int = 0
    held: int = 0
    incoming: int = 0
    version: int = 0
    metadata: fields.Metadata = {}

    @property
    def available(self) -> int:
        return self.balance - self.held


class SystemAccount(Struct, frozen=True, gc=False, array_like=True):
    """The balance is decimal text: it has no bound."""

    balance: str = "0"
    version: int = 0


class Transaction(Struct, frozen=True, gc=False, array_like=True):
    """The outcome of an idempotency key, frozen once it is no longer pending."""

    body_hash: bytes
    status: Literal["pending", "posted", "rejected"]
    kind: str
    account: str
    reason: Reason | None = None
    currency: str | None = None
    # Of a credit or debit its amount is all; of others all entries, those of other partitions too:
    # a reversal turns them round.
    amount: int = 0
    entries: tuple[LegEntry, ...] = ()
    fee: int = 0
    commission_bps: int = 0
    # The id of the reversal that is under way or posted.
    reversal: str | None = None
    reversed: bool = False
    command: Command | None = None
    pending: Pending | None = None


def moved_money(transaction: Transaction) -> bool:
    return transaction.amount > 0 or bool(transaction.entries)


class Hold(Struct, frozen=True, gc=False, array_like=True):
    account: str
    currency: str
    amount: int
    expires_at_ms: int
    status: HoldStatus
    captured: int = 0


class Prepared(Struct, frozen=True, gc=False, array_like=True):
    """What a participant has reserved for a coordinator, until it says commit or abort."""

    coordinator: int
    kind: str
    currency: str
    account: str
    entries: tuple[LegEntry, ...]


class Due(Struct, frozen=True, gc=False, array_like=True):
    """An index entry: what comes due at the time in its key."""

    what: Literal["hold", "pending"]


class Partition(Struct, frozen=True, gc=False, array_like=True):
    """What the rules know of the partition itself."""

    partition: int
    partitions: int = 0
    ledger_id: str = ""
    sequence: int = 0
    time_ms: int = 0
    settings_version: int = 0
    settings: Settings | None = None
    pending: int = 0
    sent: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()


class InputPosition(Struct, frozen=True, gc=False, array_like=True):
    """Where to go on in an input topic, and a digest of the last record that was read from it."""

    next_offset: int = 0
    last_offset: int = -1
    last_digest: bytes = b""


class Position(Struct, frozen=True, gc=False, array_like=True):
    """Where a partition stands: the last changelog record of each transaction."""

    partition: Partition
    commands: InputPosition
    legs: InputPosition
    last_hash: str


StateValue = Account | SystemAccount | Transaction | Hold | Prepared | Due
