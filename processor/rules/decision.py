"""The values of the rules: their input, the context of a command, a plan, and a decision.

These are plain classes because compiled code accesses their attributes directly, unlike those of a
Struct, a dataclass or a NamedTuple: docs/decisions/0035-a-wheel-may-be-compiled.md. They must not
know any rule.
"""

from typing import Final, Literal, final

from processor.rules.checks import CheckRefusal
from processor.rules.state_view import StateView
from schemas.commands import Command
from schemas.coordination import CoordinatedEntry, CoordinationMessage, Undecodable
from schemas.field_types import Metadata
from schemas.journal import JournalRecord
from schemas.published_records import DeadLetter, TransactionRecord
from schemas.state import HoldState
from schemas.validation.command_validation import UnreadableRecord


class BrokenInvariant(Exception):
    """An invariant is broken: the log is corrupt or there is a bug. Processing must stop."""


Topic = Literal["commands", "coordination", "genesis", "operator"]


@final
class DecisionInput:
    """One record as read, its decoded message, and what follows from the message alone."""

    __slots__ = (
        "body_hash",
        "key",
        "message",
        "offset",
        "time_ms",
        "topic",
        "transaction_key",
        "value",
        "value_digest",
    )

    def __init__(
        self,
        topic: Topic,
        offset: int,
        key: bytes | None,
        value: bytes,
        time_ms: int,
        message: Command | CoordinationMessage | UnreadableRecord | Undecodable,
        value_digest: str,
        transaction_key: bytes = b"",
        body_hash: bytes = b"",
    ) -> None:
        self.topic: Final = topic
        self.offset: Final = offset
        self.key: Final = key
        self.value: Final = value
        self.time_ms: Final = time_ms
        self.message: Final = message
        # SHA-256 of the value, in hex.
        self.value_digest: Final = value_digest
        # For a command: the state key of its transaction, and the hash of its body.
        self.transaction_key: Final = transaction_key
        self.body_hash: Final = body_hash


@final
class Decision:
    __slots__ = ("dead_letter", "messages", "record", "transactions")

    def __init__(
        self,
        record: JournalRecord,
        messages: tuple[tuple[int, CoordinationMessage], ...] = (),
        transactions: tuple[TransactionRecord, ...] = (),
        dead_letter: DeadLetter | None = None,
    ) -> None:
        self.record: Final = record
        self.messages: Final = messages
        self.transactions: Final = transactions
        self.dead_letter: Final = dead_letter


@final
class DecisionContext:
    """A command that owns its transaction id, with the state and header for its decision."""

    __slots__ = ("body_hash", "command", "header", "state", "transaction_id")

    def __init__(
        self,
        state: StateView,
        header: JournalRecord,
        command: Command,
        transaction_id: str,
        body_hash: str,
    ) -> None:
        self.state: Final = state
        self.header: Final = header
        self.command: Final = command
        self.transaction_id: Final = transaction_id
        self.body_hash: Final = body_hash


@final
class TransactionDetails:
    """The fields that all `transactions` records of one transaction share."""

    __slots__ = (
        "currency",
        "description",
        "fee",
        "kind",
        "metadata",
        "parties",
        "payer",
        "reference",
        "transaction_id",
    )

    def __init__(
        self,
        transaction_id: str,
        kind: str,
        currency: str,
        reference: str | None,
        description: str | None,
        metadata: Metadata,
        payer: str | None = None,
        fee: int = 0,
        parties: tuple[str, ...] = (),
    ) -> None:
        self.transaction_id: Final = transaction_id
        self.kind: Final = kind
        self.currency: Final = currency
        self.reference: Final = reference
        self.description: Final = description
        self.metadata: Final = metadata
        # The account that pays the fee, and the fee.
        self.payer: Final = payer
        self.fee: Final = fee
        # The two ordinary accounts, if the transaction has exactly two.
        self.parties: Final = parties


@final
class Plan:
    __slots__ = ("commission_bps", "currency", "entries", "fee", "hold", "refusal")

    def __init__(
        self,
        entries: tuple[CoordinatedEntry, ...],
        currency: str,
        refusal: CheckRefusal | None = None,
        fee: int = 0,
        commission_bps: int = 0,
        hold: HoldState | None = None,
    ) -> None:
        self.entries: Final = entries
        self.currency: Final = currency
        self.refusal: Final = refusal
        self.fee: Final = fee
        self.commission_bps: Final = commission_bps
        # The hold that a capture uses; it covers the entry of its account.
        self.hold: Final = hold
