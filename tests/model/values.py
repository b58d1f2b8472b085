"""What the naive model keeps and says: plain records that anything may change, and tuples for its
coordination messages.

Knows no rule; shares nothing with the ledger's own messages but the names of reasons.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from schemas.reasons import PRECEDENCE, Reason
from tests.model import command_validation

# A fault is (precedence, entry index): the least of several is the reason.
Fault = tuple[int, int]
# A message is its kind, its transaction, and what else it tells.
Message = tuple[Any, ...]


class Item(NamedTuple):
    """An entry that a transaction wants: its place, account, direction, amount."""

    place: int
    account: str
    direction: str
    amount: int


@dataclass(slots=True)
class Settings:
    commission_bps: int
    max_overdraft: int
    hold_ttl_ms: int
    participant_timeout_ms: int
    max_pending: int
    rules_version: int


@dataclass(slots=True)
class Account:
    type: str
    currency: str
    owner: str | None
    min_balance: int | None
    metadata: dict[str, str]
    status: str = "open"
    balance: int = 0
    held: int = 0
    incoming: int = 0
    version: int = 0

    def facts(self) -> tuple[Any, ...]:
        """What it is, balances aside."""
        facts = (self.type, self.currency, self.status, self.owner, self.min_balance)
        return (*facts, self.metadata)


@dataclass(slots=True)
class Hold:
    account: str
    currency: str
    amount: int
    expires_at_ms: int
    status: str = "open"
    captured: int = 0

    def facts(self) -> tuple[Any, ...]:
        facts = (self.account, self.currency, self.amount, self.expires_at_ms)
        return (*facts, self.status, self.captured)


@dataclass(slots=True)
class Transaction:
    body: bytes
    kind: str
    account: str
    status: str
    reason: Reason | None = None
    currency: str | None = None
    items: tuple[Item, ...] = ()
    fee: int = 0
    bps: int = 0
    reversal: str | None = None
    reversed: bool = False
    pending: "Pending | None" = None


@dataclass(slots=True)
class Pending:
    """A transaction under way. `reserved` is what the coordinator's own accounts have set aside for
    it.
    """

    command: command_validation.Body
    offset: int
    deadline_ms: int
    items: list[Item]
    reserved: list[Item]
    waiting: set[int]
    participants: tuple[int, ...]
    fee_reserved: bool = True
    same_owner: bool = False
    refusals: dict[int, Fault] = field(default_factory=dict)


@dataclass(slots=True)
class Prepared:
    coordinator: int
    kind: str
    items: tuple[Item, ...]


@dataclass(slots=True)
class Said:
    """What one journal record must say."""

    step: str
    transaction: str | None = None
    reason: Reason | None = None
    # Of a decision that came later than its command: the command's offset.
    offset: int | None = None
    first_status: str | None = None
    kind: str | None = None
    # account, direction, amount, balance, version, held, incoming
    entries: list[tuple[str, str, int, int, int, int, int]] = field(default_factory=list)
    # account, direction, amount, held, incoming
    released: list[tuple[str, str, int, int, int]] = field(default_factory=list)
    reserved: list[tuple[str, str, int, int, int]] = field(default_factory=list)
    # The account and the hold that were changed, entries and reservations aside, as they are then.
    account: tuple[Any, ...] | None = None
    hold: tuple[Any, ...] | None = None
    # destination, number, message
    sent: list[tuple[int, int, Message]] = field(default_factory=list)
    fee: int = 0
    bps: int = 0
    about: command_validation.Body = field(default_factory=dict)


def fault(reason: Reason, index: int = 0) -> Fault:
    return PRECEDENCE[reason], index


def reason_of(one: Fault) -> Reason:
    return list(Reason)[one[0] - 1]
