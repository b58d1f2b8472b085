"""An account after a command that opens or changes it, derived from the command alone.

It takes as given that the ledger posted the command. It must not know the rules.
"""

from typing import Final

from msgspec.structs import replace

from schemas import commands
from schemas.commands import Command
from schemas.field_types import AccountStatus
from schemas.journal import AccountChange

FIELDS: Final = ("type", "currency", "status", "owner", "min_balance", "metadata")
_STATUS_AFTER: Final[dict[type, AccountStatus]] = {
    commands.Freeze: "frozen",
    commands.Unfreeze: "open",
    commands.Close: "closed",
}


def opened(command: commands.OpenAccount) -> AccountChange:
    limit = command.min_balance
    return AccountChange(
        id=command.account,
        type=command.type,
        currency=command.currency,
        status="open",
        owner=command.owner,
        min_balance=0 if limit is None and command.type == "wallet" else limit,
        metadata=command.metadata,
    )


def changed(before: AccountChange, command: Command | None) -> AccountChange:
    """Unchanged if the command changes no account."""
    if isinstance(command, commands.SetLimit):
        return replace(before, min_balance=command.min_balance)
    if isinstance(command, commands.ChangeAccount):
        limit = before.min_balance if command.min_balance is None else command.min_balance
        metadata = dict(before.metadata)
        for name, text in command.metadata.items():
            if text:
                metadata[name] = text
            else:
                metadata.pop(name, None)
        return replace(before, min_balance=None if command.no_limit else limit, metadata=metadata)
    status = _STATUS_AFTER.get(type(command))
    return before if status is None else replace(before, status=status)
