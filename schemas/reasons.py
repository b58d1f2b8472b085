"""The catalogue of reasons for which the ledger refuses or rejects a command.

The order of the catalogue is the precedence: if several reasons apply, the first is reported, for
every kind of command. A reason is never renamed or reused. The HTTP status is that of the ingress'
response.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class Reason(StrEnum):
    TOO_LARGE = "too_large"
    SCHEMA_UNKNOWN = "schema_unknown"
    MALFORMED = "malformed"
    UNKNOWN_FIELD = "unknown_field"
    AMOUNT_INVALID = "amount_invalid"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    MISROUTED = "misrouted"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    CURRENCY_UNKNOWN = "currency_unknown"
    SYSTEM_ACCOUNT = "system_account"
    TOO_FEW_ENTRIES = "too_few_entries"
    TOO_MANY_ENTRIES = "too_many_entries"
    DUPLICATE_ACCOUNT = "duplicate_account"
    SELF_TRANSFER = "self_transfer"
    UNBALANCED = "unbalanced"
    LIMIT_OUT_OF_BOUNDS = "limit_out_of_bounds"
    ACCOUNT_EXISTS = "account_exists"
    ACCOUNT_NOT_FOUND = "account_not_found"
    TRANSACTION_NOT_FOUND = "transaction_not_found"
    HOLD_NOT_FOUND = "hold_not_found"
    ACCOUNT_TYPE_NOT_ALLOWED = "account_type_not_allowed"
    ACCOUNT_CLOSED = "account_closed"
    ACCOUNT_FROZEN = "account_frozen"
    CURRENCY_MISMATCH = "currency_mismatch"
    NOT_REVERSIBLE = "not_reversible"
    ALREADY_REVERSED = "already_reversed"
    REVERSAL_PENDING = "reversal_pending"
    HOLD_CLOSED = "hold_closed"
    HOLD_BUSY = "hold_busy"
    HOLD_EXPIRED = "hold_expired"
    CAPTURE_EXCEEDS_HOLD = "capture_exceeds_hold"
    ACCOUNT_NOT_EMPTY = "account_not_empty"
    METADATA_TOO_LARGE = "metadata_too_large"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    BALANCE_OVERFLOW = "balance_overflow"
    CONDITION_FAILED = "condition_failed"
    TOO_MANY_PENDING = "too_many_pending"
    PARTICIPANT_TIMEOUT = "participant_timeout"


class ReasonMeaning(NamedTuple):
    """A reason's HTTP status, whether a new command may succeed later, and its text."""

    status: int
    may_succeed_later: bool
    sentence: str


CATALOGUE: Final[dict[Reason, ReasonMeaning]] = {
    Reason.TOO_LARGE: ReasonMeaning(413, False, "The command is larger than 64 KiB."),
    Reason.SCHEMA_UNKNOWN: ReasonMeaning(400, True, "The command names an unknown Avro schema."),
    Reason.MALFORMED: ReasonMeaning(400, False, "The record is not a valid command."),
    Reason.UNKNOWN_FIELD: ReasonMeaning(
        422, False, "The command has a field that is unknown for its kind."
    ),
    Reason.AMOUNT_INVALID: ReasonMeaning(
        422, False, "An amount must be an integer from 1 to 9007199254740991 minor units."
    ),
    Reason.TIME_OUT_OF_RANGE: ReasonMeaning(
        422, False, "A time must lie in the years 2000 to 2200."
    ),
    Reason.MISROUTED: ReasonMeaning(
        400, False, "The command's key or partition does not match its coordinating account."
    ),
    Reason.IDEMPOTENCY_KEY_REUSED: ReasonMeaning(
        409, False, "The idempotency key was already used with a different body."
    ),
    Reason.CURRENCY_UNKNOWN: ReasonMeaning(422, False, "The currency is not an ISO 4217 currency."),
    Reason.SYSTEM_ACCOUNT: ReasonMeaning(403, False, "A system account cannot be used this way."),
    Reason.TOO_FEW_ENTRIES: ReasonMeaning(422, False, "A transaction needs at least 2 entries."),
    Reason.TOO_MANY_ENTRIES: ReasonMeaning(
        422, False, "A transaction may have at most 100 entries."
    ),
    Reason.DUPLICATE_ACCOUNT: ReasonMeaning(
        422, False, "An account appears twice among the entries."
    ),
    Reason.SELF_TRANSFER: ReasonMeaning(422, False, "Sender and receiver are the same account."),
    Reason.UNBALANCED: ReasonMeaning(422, False, "Debits and credits are not equal."),
    Reason.LIMIT_OUT_OF_BOUNDS: ReasonMeaning(
        422, False, "The limit is outside the allowed range."
    ),
    Reason.ACCOUNT_EXISTS: ReasonMeaning(409, False, "An account with this id already exists."),
    Reason.ACCOUNT_NOT_FOUND: ReasonMeaning(404, True, "Account not found."),
    Reason.TRANSACTION_NOT_FOUND: ReasonMeaning(404, True, "The account has no such transaction."),
    Reason.HOLD_NOT_FOUND: ReasonMeaning(404, True, "The account has no such hold."),
    Reason.ACCOUNT_TYPE_NOT_ALLOWED: ReasonMeaning(
        422, False, "The command cannot use an account of this type."
    ),
    Reason.ACCOUNT_CLOSED: ReasonMeaning(409, False, "The account is closed."),
    Reason.ACCOUNT_FROZEN: ReasonMeaning(409, True, "The account is frozen."),
    Reason.CURRENCY_MISMATCH: ReasonMeaning(
        422, False, "The currency differs from the account's currency."
    ),
    Reason.NOT_REVERSIBLE: ReasonMeaning(409, False, "This transaction cannot be reversed."),
    Reason.ALREADY_REVERSED: ReasonMeaning(
        409, False, "The transaction has already been reversed."
    ),
    Reason.REVERSAL_PENDING: ReasonMeaning(
        409, True, "Another reversal of the transaction is in progress."
    ),
    Reason.HOLD_CLOSED: ReasonMeaning(409, False, "The hold has already been captured or voided."),
    Reason.HOLD_BUSY: ReasonMeaning(409, True, "A capture of the hold is in progress."),
    Reason.HOLD_EXPIRED: ReasonMeaning(409, False, "The hold has expired."),
    Reason.CAPTURE_EXCEEDS_HOLD: ReasonMeaning(
        422, False, "The capture exceeds the amount of the hold."
    ),
    Reason.ACCOUNT_NOT_EMPTY: ReasonMeaning(
        409, True, "The account has a balance, an open hold or a pending transaction."
    ),
    Reason.METADATA_TOO_LARGE: ReasonMeaning(
        422, True, "The account's metadata would exceed 4096 bytes."
    ),
    Reason.INSUFFICIENT_FUNDS: ReasonMeaning(
        422, True, "The available balance would fall below the account's limit."
    ),
    Reason.BALANCE_OVERFLOW: ReasonMeaning(
        422, True, "The balance would exceed the range of exact amounts."
    ),
    Reason.CONDITION_FAILED: ReasonMeaning(409, True, "A condition of the command is not met."),
    Reason.TOO_MANY_PENDING: ReasonMeaning(
        409, True, "Too many transactions of the partition are waiting for other partitions."
    ),
    Reason.PARTICIPANT_TIMEOUT: ReasonMeaning(
        409, True, "Another partition did not answer before the deadline."
    ),
}

PRECEDENCE: Final[dict[Reason, int]] = {reason: place for place, reason in enumerate(Reason, 1)}

# Reasons of a command that never owned its transaction id: it was unreadable or misrouted, or its
# key belongs to another command. Their outcome is found by position and never frozen.
NEVER_FROZEN: Final = frozenset(
    reason for reason in Reason if PRECEDENCE[reason] <= PRECEDENCE[Reason.IDEMPOTENCY_KEY_REUSED]
)
