"""A wallet as the API presents it, read from the books.

Amounts are minor units, with decimal text beside them. A wallet that is not in the books yet is
shown as empty.
"""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from ingress.http.routes import Instant, ResponseModel
from ingress.sql import queries
from ingress.sql.queries import Connection
from ingress.users.directory import User
from ingress.wallets.directory import Wallet
from schemas import money

Status = Literal["opening", "open", "frozen", "closed"]


class WalletResponse(ResponseModel):
    id: str
    user_id: int
    currency: str
    balance: int
    held: int
    available: int
    balance_decimal: str
    held_decimal: str
    available_decimal: str
    version: int
    status: Status
    created_at: Instant
    updated_at: Instant


def amount_fields(balance: int, held: int, currency: str) -> dict[str, Any]:
    """Balance, held and available, in minor units and as decimal text."""
    minor = {"balance": balance, "held": held, "available": balance - held}
    major = {f"{name}_decimal": money.to_major(amount, currency) for name, amount in minor.items()}
    return {**minor, **major}


class _Row(Struct, frozen=True, kw_only=True):
    id: str
    currency: str
    created_at: datetime
    balance: int
    held: int
    version: int
    status: Status
    updated_at: datetime


async def read(connection: Connection, wallet: Wallet, owner: User) -> WalletResponse:
    (response,) = await _read(connection, wallet.user_id, owner.number, wallet.id)
    return response


async def read_all(connection: Connection, user_id: str, number: int) -> list[WalletResponse]:
    """All wallets of a user in one query, the default one first."""
    return await _read(connection, user_id, number, None)


async def _read(
    connection: Connection, user_id: str, number: int, id: str | None
) -> list[WalletResponse]:
    rows = await queries.every(connection, "wallet_responses", _Row, user_id=user_id, id=id)
    return [
        WalletResponse(
            id=row.id,
            user_id=number,
            currency=row.currency,
            **amount_fields(row.balance, row.held, row.currency),
            version=row.version,
            status=row.status,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )
        for row in rows
    ]
