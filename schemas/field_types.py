"""The kinds of field that messages share, with the bounds that each has on the wire.

Whatever these accept, Postgres can hold. Knows no message.
"""

from typing import Annotated, Literal

from msgspec import Meta

from schemas import ids, money

Direction = Literal["debit", "credit"]
AccountType = Literal["wallet", "asset", "liability", "equity", "revenue", "expense"]
AccountStatus = Literal["open", "frozen", "closed"]

AccountId = Annotated[str, Meta(pattern=ids.ACCOUNT_ID_PATTERN)]
TransactionId = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
]
Key = Annotated[str, Meta(min_length=1, max_length=200)]
Label = Annotated[str, Meta(min_length=1, max_length=200)]
Owner = Annotated[str, Meta(min_length=1, max_length=64)]
Currency = Annotated[str, Meta(min_length=1, max_length=8)]
Text = Annotated[str, Meta(max_length=1_000)]
Metadata = dict[str, str]

Amount = Annotated[int, Meta(ge=1, le=money.MAX_AMOUNT)]
Balance = Annotated[int, Meta(ge=-money.MAX_AMOUNT, le=money.MAX_AMOUNT)]
Version = Annotated[int, Meta(ge=0, le=money.MAX_AMOUNT)]
# Unix milliseconds within the years 2000 to 2200.
EARLIEST_MS = 946_684_800_000
LATEST_MS = 7_289_654_399_999
Time = Annotated[int, Meta(ge=EARLIEST_MS, le=LATEST_MS)]

MAX_COMMAND_BYTES = 64 * 1024
MAX_METADATA_BYTES = 4 * 1024
MAX_REFUSED_BYTES = 16 * 1024
