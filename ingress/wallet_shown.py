"""A wallet as the API answers it, from the books.

Amounts are minor units, and beside them decimal text. It decides nothing: what is not in the books
yet is shown as it will be, empty.
"""

from typing import Any, Literal

from ingress.openings import Wallet
from ingress.people import User
from ingress.queries import Connection
from ingress.routes import Instant, Shown
from schemas import money
from sinks.reads import accounts, history


class WalletShown(Shown):
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
    status: Literal["opening", "open", "frozen", "closed"]
    created_at: Instant
    updated_at: Instant


def amounts(balance: int, held: int, currency: str) -> dict[str, Any]:
    """What an account has, in both ways."""
    minor = {"balance": balance, "held": held, "available": balance - held}
    major = {f"{name}_decimal": money.to_major(has, currency) for name, has in minor.items()}
    return {**minor, **major}


async def read(connection: Connection, wallet: Wallet, owner: User) -> WalletShown:
    account = await accounts.account(connection, wallet.id)
    last = None
    if account is not None and account.version > 0:
        last = await history.entries(connection, wallet.id, limit=1)
    balance, held = (account.balance, account.held) if account is not None else (0, 0)
    return WalletShown(
        id=wallet.id,
        user_id=owner.number,
        currency=wallet.currency,
        **amounts(balance, held, wallet.currency),
        version=account.version if account is not None else 0,
        status=account.status if account is not None else "opening",
        created_at=wallet.created_at,
        updated_at=last.items[0].time if last is not None else wallet.created_at,
    )
