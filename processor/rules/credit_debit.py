"""Credit and debit: money enters and leaves the ledger through the partition's own funding account.

These are by far the most frequent commands and always need one account and one step. So they are
written as one straight line, without a plan. They must not know other partitions.
"""

from msgspec.structs import replace

from processor.rules import checks, outcomes, state_view
from processor.rules.decision import Decision, DecisionContext
from schemas import commands, ids
from schemas.field_types import Direction
from schemas.journal import Entry
from schemas.published_records import TransactionRecord
from schemas.reasons import Reason
from schemas.state import AccountState


def move(
    context: DecisionContext,
    command: commands.Credit | commands.Debit,
    account: AccountState,
    direction: Direction,
    opposite: Direction,
) -> Decision:
    amount = command.amount
    currency = command.currency or account.currency
    reason = checks.standing(account, currency) or checks.funds(account, direction, amount)
    if reason is not None:
        return outcomes.rejected(context, reason)
    outgoing = checks.is_outgoing(account.type, direction)
    balance = account.balance - amount if outgoing else account.balance + amount
    available = balance - account.held
    if not outcomes.conditions_hold(command, account.version, available):
        return outcomes.rejected(context, Reason.CONDITION_FAILED)

    header, transaction_id = context.header, context.transaction_id
    shard = ids.system_shard(ids.FUNDING, currency, header.partition)
    before = state_view.system_account(context.state, shard)
    funded = int(before.balance) + (amount if opposite == "debit" else -amount)
    funding = Entry(shard, opposite, amount, str(funded), before.version + 1)
    version = account.version + 1
    own = Entry(
        command.account, direction, amount, balance, version, account.held, account.incoming
    )
    return Decision(
        replace(
            header,
            step="posted",
            command=command,
            body_hash=context.body_hash,
            transaction_id=transaction_id,
            entries=(funding, own) if direction == "credit" else (own, funding),
        ),
        transactions=(
            TransactionRecord(
                account.owner,
                direction,
                amount,
                balance,
                outcomes.rfc3339(header.time_ms),
                command.account,
                currency,
                transaction_id,
                direction,
                account.held,
                available,
                version,
                None,
                0,
                command.reference,
                command.description,
                command.metadata,
                header.partition,
                header.sequence,
            ),
        ),
    )
