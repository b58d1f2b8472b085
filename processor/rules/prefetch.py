"""The state keys that a decision will read, so that they can be fetched in one batch beforehand.

There are two rounds: the keys that the input names, then those that the values of the first round
name. A superfluous key costs a look-up; a missed one is read on demand.
"""

from processor.rules import state_view
from processor.rules.decision import DecisionInput
from schemas import commands, coordination, ids, state_keys
from schemas.validation.command_validation import UnreadableRecord

Key = bytes

# The kinds of input that need the second round.
NEEDS_SECOND_ROUND = frozenset(
    (
        commands.Reverse,
        coordination.Prepared,
        coordination.Refused,
        coordination.Commit,
        coordination.Abort,
    ),
)


def keys_read(input: DecisionInput) -> list[Key]:
    message = input.message
    if isinstance(message, UnreadableRecord):
        return []
    if input.topic == "commands":
        return _command_keys(input, message)  # type: ignore[arg-type]  # by the topic
    match message:
        case coordination.Prepare():
            return [state_keys.account(entry.account) for entry in message.entries]
        case coordination.Prepared() | coordination.Refused():
            return [state_keys.transaction(message.transaction_id)]
        case coordination.Commit() | coordination.Abort():
            return [state_keys.prepared(message.transaction_id)]
        case _:
            return []


def _command_keys(input: DecisionInput, command: commands.Command) -> list[Key]:
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


def keys_named(state: state_view.StateView, input: DecisionInput) -> list[Key]:
    """The second round: the entries of the transactions found in the first."""
    message = input.message
    keys: list[Key] = []
    match message:
        case commands.Reverse() | coordination.Prepared() | coordination.Refused():
            transaction = state_view.transaction(state, message.transaction_id)
            if transaction is None:
                return []
            pending = transaction.pending
            entries = transaction.entries if pending is None else pending.entries
            keys.extend(_named_by(transaction.command))
        case coordination.Commit() | coordination.Abort():
            reserved = state_view.prepared(state, message.transaction_id)
            if reserved is None:
                return []
            entries = reserved.entries
        case _:
            return []
    keys.extend(state_keys.account(e.account) for e in entries if not ids.is_system(e.account))
    return keys


def _named_by(pending: commands.Command | None) -> list[Key]:
    """What the decision on a pending command changes besides its entries."""
    match pending:
        case commands.Capture():
            return [state_keys.hold(pending.hold_id)]
        case commands.Reverse():
            return [state_keys.transaction(pending.transaction_id)]
        case _:
            return []
