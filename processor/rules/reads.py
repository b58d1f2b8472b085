"""Which keys a decision will read, told before it is made, so that all can be fetched in one go.

Two rounds: what the input names, then what the values of the first round name. A key that is told
too much costs a look-up; one that is missed is read when it is asked for.
"""

from processor.rules import state
from processor.rules.decision import Input
from schemas import commands, ids, legs, state_keys
from schemas.door import Unreadable

Key = bytes

# The kinds of input that have a second round.
NAMING = frozenset(
    (commands.Reverse, legs.Prepared, legs.Refused, legs.Commit, legs.Abort),
)


def keys_read(input: Input) -> list[Key]:
    message = input.message
    if isinstance(message, Unreadable):
        return []
    if input.topic == "commands":
        return _command_keys(input, message)  # type: ignore[arg-type]  # by the topic
    match message:
        case legs.Prepare():
            return [state_keys.account(entry.account) for entry in message.entries]
        case legs.Prepared() | legs.Refused():
            return [state_keys.transaction(message.transaction_id)]
        case legs.Commit() | legs.Abort():
            return [state_keys.prepared(message.transaction_id)]
        case _:
            return []


def _command_keys(input: Input, command: commands.Command) -> list[Key]:
    keys = [input.transaction_key, state_keys.account(command.account)]
    match command:
        case commands.Credit() | commands.Debit():
            pass
        case commands.Transfer():
            keys.append(state_keys.account(command.to))
        case commands.Post():
            keys.extend(state_keys.account(entry.account) for entry in command.entries)
        case commands.Capture():
            keys.append(state_keys.hold(command.hold_id))
            if command.to is not None:
                keys.append(state_keys.account(command.to))
        case commands.Void():
            keys.append(state_keys.hold(command.hold_id))
        case commands.Reverse():
            keys.append(state_keys.transaction(command.transaction_id))
        case _:
            pass
    return keys


def keys_named(of: state.State, input: Input) -> list[Key]:
    """The second round: entries of what the first round found."""
    message = input.message
    keys: list[Key] = []
    match message:
        case commands.Reverse() | legs.Prepared() | legs.Refused():
            transaction = state.transaction(of, message.transaction_id)
            if transaction is None:
                return []
            pending = transaction.pending
            entries = transaction.entries if pending is None else pending.entries
            keys.extend(_named_by(transaction.command))
        case legs.Commit() | legs.Abort():
            reserved = state.prepared(of, message.transaction_id)
            if reserved is None:
                return []
            entries = reserved.entries
        case _:
            return []
    keys.extend(state_keys.account(e.account) for e in entries if not ids.is_system(e.account))
    return keys


def _named_by(pending: commands.Command | None) -> list[Key]:
    """What the decision on a pending command changes beside its entries."""
    match pending:
        case commands.Capture():
            return [state_keys.hold(pending.hold_id)]
        case commands.Reverse():
            return [state_keys.transaction(pending.transaction_id)]
        case _:
            return []
