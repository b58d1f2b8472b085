"""The ledger parameters: part of each partition's state, changed only by a journaled configure
message.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

# The rules version of a new ledger, and all versions that this program supports: history is
# re-decided with the version that decided it.
RULES_VERSION: Final = 2
RULES_VERSIONS: Final = frozenset({1, 2})
# The highest format level that this program reads and writes. A program sends and journals nothing
# above the level in the ledger's settings. docs/upgrading.md
FORMAT_LEVEL = 1

Milliseconds = Annotated[int, Meta(ge=1, le=10 * 365 * 24 * 3_600_000)]


class LedgerParameters(Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True):
    # A new ledger names RULES_VERSION.
    rules_version: Annotated[int, Meta(ge=1)] = 1
    format_level: Annotated[int, Meta(ge=1)] = FORMAT_LEVEL
    # How many lanes the partitions form: partition p is in lane p % lanes.
    lanes: Annotated[int, Meta(ge=1, le=10_000)] = 1
    commission_bps: Annotated[int, Meta(ge=0, le=10_000)] = 150
    max_overdraft: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 100_000_000
    hold_ttl_ms: Milliseconds = 7 * 24 * 3_600_000
    participant_timeout_ms: Milliseconds = 60_000
    max_pending: Annotated[int, Meta(ge=1, le=10_000_000)] = 100_000


class Genesis(Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True):
    """What a partition's first record sets for good."""

    ledger_id: Annotated[str, Meta(min_length=1, max_length=100)]
    partitions: Annotated[int, Meta(ge=1, le=10_000)]
