"""A partition's state: values in RocksDB and in the `state` topic. Their keys are in `state_keys`.

Values are msgpack arrays: fields are only ever added, at the end, with defaults.
"""

from typing import Literal

from msgspec import Struct

from schemas import field_types
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry
from schemas.journal import HoldStatus, PendingTransaction
from schemas.ledger_parameters import LedgerParameters
from schemas.reasons import Reason


class AccountState(Struct, frozen=True, gc=False, array_like=True):
    type: field_types.AccountType
    currency: str
    status: field_types.AccountStatus
    owner: str | None
    min_balance: int | None
    balance: int = 0
    held: int = 0
    incoming: int = 0
    version: int = 0
    metadata: field_types.Metadata = {}

    @property
    def available(self) -> int:
        return self.balance - self.held


class SystemAccountState(Struct, frozen=True, gc=False, array_like=True):
    """The balance is decimal text: it has no bound."""

    balance: str = "0"
    version: int = 0


class TransactionState(Struct, frozen=True, gc=False, array_like=True):
    """The outcome of an idempotency key, frozen once it is no longer pending."""

    body_hash: bytes
    status: Literal["pending", "posted", "rejected"]
    kind: str
    account: str
    reason: Reason | None = None
    currency: str | None = None
    # What a reversal needs. A credit or debit has only its amount; other kinds have all entries,
    # including those of other partitions.
    amount: int = 0
    entries: tuple[CoordinatedEntry, ...] = ()
    fee: int = 0
    commission_bps: int = 0
    # The id of the pending or posted reversal.
    reversal: str | None = None
    reversed: bool = False
    command: Command | None = None
    pending: PendingTransaction | None = None


def moved_money(transaction: TransactionState) -> bool:
    return transaction.amount > 0 or bool(transaction.entries)


class HoldState(Struct, frozen=True, gc=False, array_like=True):
    account: str
    currency: str
    amount: int
    expires_at_ms: int
    status: HoldStatus
    captured: int = 0


class PreparedTransaction(Struct, frozen=True, gc=False, array_like=True):
    """What a participant has reserved for a coordinator, until that sends commit or abort."""

    coordinator: int
    kind: str
    currency: str
    account: str
    entries: tuple[CoordinatedEntry, ...]


class Due(Struct, frozen=True, gc=False, array_like=True):
    """An index entry: the kind of item that is due at the time in its key."""

    what: Literal["hold", "pending"]


class LogTimeDecision(Struct, frozen=True, gc=False, array_like=True):
    """The time that an operator assigned to a range of records with later broker timestamps."""

    topic: Literal["commands", "coordination"]
    first: int
    last: int
    time_ms: int


class PartitionState(Struct, frozen=True, gc=False, array_like=True):
    """The partition-wide facts that the rules read."""

    partition: int
    partitions: int = 0
    ledger_id: str = ""
    sequence: int = 0
    time_ms: int = 0
    settings_version: int = 0
    settings: LedgerParameters | None = None
    pending: int = 0
    sent: tuple[int, ...] = ()
    seen: tuple[int, ...] = ()
    # For records not decided yet; the last one applies.
    log_times: tuple[LogTimeDecision, ...] = ()


class InputPosition(Struct, frozen=True, gc=False, array_like=True):
    """The next offset of an input topic, and a digest of the last record read."""

    next_offset: int = 0
    last_offset: int = -1
    last_digest: bytes = b""


class PartitionPosition(Struct, frozen=True, gc=False, array_like=True):
    """A partition's checkpoint position: the last changelog record of each Kafka transaction."""

    partition: PartitionState
    commands: InputPosition
    coordination: InputPosition
    last_hash: str
    # A random id of this changelog, new at genesis and at each rebuild. Offsets of one incarnation
    # mean nothing in another.
    incarnation: bytes = b""


StateValue = (
    AccountState | SystemAccountState | TransactionState | HoldState | PreparedTransaction | Due
)
