"""From a command to its outcome, in four numbered steps.

If the process dies between two of them, the command is in Kafka or it is not, and a client that
repeats it with the same key makes it happen once. If step 3 is uncertain, the answer says so: it is
never an error that would make somebody pay twice. It knows no routes and no response models.
"""

import asyncio
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from ingress.http.problems import Code, HttpProblem
from ingress.ledger.client import ledger_client
from ingress.ledger.client.ledger_client import CommandPosition, LedgerClient, PendingCommand
from ingress.ledger.client.outcome_lookup import Outcome, OutcomeLookup
from ingress.ledger.views import transaction_view
from ingress.sql import queries
from plumbing.worker.crash_points import CrashPoints
from schemas.commands import Command
from schemas.published_records import Result
from schemas.reasons import Reason

# How long a request that does not wait for its outcome waits for the append.
APPEND_TIMEOUT_S: Final = 5.0
LOOKUP_INTERVAL_S: Final = 1.0
# How long the books are read after the client's wait is over.
FINAL_LOOKUP_TIMEOUT_S: Final = 1.0

log = structlog.stdlib.get_logger(__name__)


class Undecided(Struct, frozen=True):
    """`position` None: it is not certain that Kafka has the command."""

    transaction_id: str
    position: CommandPosition | None
    pending: bool = False


class Submission:
    def __init__(self, client: LedgerClient, outcomes: OutcomeLookup, crash: CrashPoints) -> None:
        self._client = client
        self._outcomes = outcomes
        self._crash = crash

    async def outcome(self, command: Command, currency: str, wait_s: float) -> Outcome | Undecided:
        """Sends the command and waits for its outcome. Raises a Problem only if it was not sent."""
        deadline = asyncio.get_running_loop().time() + wait_s
        # 1. The request is checked, and nothing is written yet.
        self._crash.reach("submit.1-checked")
        try:
            pending = self._client.send(command)
        except ledger_client.QueueFull:
            raise _busy() from None
        except ledger_client.CommandTooLarge:
            raise HttpProblem(Reason.TOO_LARGE) from None
        # 2. The producer has the command: from here on the answer carries its transaction id.
        self._crash.reach("submit.2-handed-over")
        try:
            # 3. Kafka has the command (acks=all); LedgerClient reaches that crash point.
            result = await pending.wait_for_result(wait_s)
            if pending.refused:
                raise _busy()
            if result is None:
                return await self._without_result(pending, command, wait_s, deadline)
            # 4. The command is decided, and the books have its outcome.
            self._crash.reach("submit.4-decided")
            return await self._from_result(pending, command, currency, result, deadline)
        except HttpProblem:
            raise
        except (*queries.UNAVAILABLE, TimeoutError):
            return _undecided(pending)
        except Exception:
            # A bug must not cost the client the id: repeating without a key would pay twice.
            log.exception("reading an outcome failed", transaction_id=pending.transaction_id)
            return _undecided(pending)
        finally:
            self._client.forget(pending)

    async def _from_result(
        self,
        pending: PendingCommand,
        command: Command,
        currency: str,
        result: Result,
        deadline: float,
    ) -> Outcome | Undecided:
        if result.transaction_id is None or (result.outcome == "rejected" and not result.replay):
            return Outcome(
                status="rejected",
                transaction_id=result.transaction_id,
                reason=result.reason,
                detail=result.detail,
            )
        position = (result.partition, result.offset)
        if not result.replay and isinstance(command, transaction_view.COMPLETE_IN_RESULT):
            view = transaction_view.from_result(command, result.transaction_id, currency, result)
            return Outcome(status="posted", transaction_id=view.id, view=view, position=position)
        async with asyncio.timeout_at(deadline + FINAL_LOOKUP_TIMEOUT_S):
            outcome = await self.wait_until_decided(result.transaction_id, None, deadline)
        if outcome is None or outcome.status == "pending":
            return _undecided(pending, pending=outcome is not None)
        return _as_first_answered(outcome, command, position, replayed=result.replay)

    async def _without_result(
        self, pending: PendingCommand, command: Command, wait_s: float, deadline: float
    ) -> Outcome | Undecided:
        """The result is late, or the client does not wait for it."""
        position = await pending.wait_for_position(APPEND_TIMEOUT_S if wait_s == 0 else 0)
        if pending.refused:
            raise _busy()
        if position is None or wait_s == 0:
            return _undecided(pending)
        async with asyncio.timeout_at(deadline + FINAL_LOOKUP_TIMEOUT_S):
            outcome = await self._at_position(position, pending.transaction_id)
        if outcome is None or outcome.status == "pending":
            return _undecided(pending, pending=outcome is not None)
        return _as_first_answered(outcome, command, position, replayed=outcome.replayed)

    async def _at_position(self, position: CommandPosition, transaction_id: str) -> Outcome | None:
        """None: not decided, or the books have another command there, which is a bug."""
        outcome = await self._outcomes.by_position(*position)
        if outcome is None or outcome.transaction_id in (None, transaction_id):
            return outcome
        log.error(
            "the books have another command at this position",
            transaction_id=transaction_id,
            partition=position[0],
            offset=position[1],
        )
        return None

    async def wait_until_decided(
        self,
        transaction_id: str,
        position: CommandPosition | None,
        deadline: float,
        party: str | None = None,
    ) -> Outcome | None:
        """Waits for the outcome at a position, or else of a transaction. If it is late, the answer
        is a pending outcome, or None; also if `party` has no part in the transaction."""
        loop = asyncio.get_running_loop()
        keys: list[str | CommandPosition] = [transaction_id]
        if position is not None:
            keys.append(position)
        with self._client.watching(*keys) as watch:
            while True:
                if position is None:
                    outcome = await self._outcomes.by_transaction(transaction_id, party)
                else:
                    outcome = await self._at_position(position, transaction_id)
                left_s = deadline - loop.time()
                if (outcome is not None and outcome.status != "pending") or left_s <= 0:
                    return outcome
                # The books are read again even if the result was missed.
                await watch.wait(min(left_s, LOOKUP_INTERVAL_S))


def _as_first_answered(
    outcome: Outcome, command: Command, position: CommandPosition, *, replayed: bool
) -> Outcome:
    view = outcome.view
    if view is not None:
        view = transaction_view.as_first_answered(view, command)
    return msgspec.structs.replace(outcome, view=view, replayed=replayed, position=position)


def _busy() -> HttpProblem:
    return HttpProblem(Code.BUSY, headers={"Retry-After": "1"})


def _undecided(command: PendingCommand, *, pending: bool = False) -> Undecided:
    result, position = command.result, command.position
    if position is None and result is not None:
        position = (result.partition, result.offset)
    return Undecided(command.transaction_id, position, pending)
