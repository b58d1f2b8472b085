"""From a command to its answer, in this order:

1. what can be checked here was checked: nothing is written yet;
2. the command is handed to the producer: from here on the answer always has its transaction id;
3. Kafka has it (acks=all);
4. it is decided, and the books have the outcome: its result has come, or is read in the books.

An end of the process between any two leaves a command that is in Kafka or not, and a client that
repeats it with the same key: it happens once. Where 3 is not certain that is said, never an error
that would make somebody pay twice.
"""

import asyncio
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from ingress import queries
from ingress.http.problems import Code, HttpProblem
from ingress.ledger.client import ledger_client
from ingress.ledger.client.ledger_client import LedgerClient, PendingCommand, Position
from ingress.ledger.client.outcome_lookup import Outcome, OutcomeLookup
from ingress.ledger.views import transaction_view
from plumbing.worker.crash_points import CrashPoints
from schemas.commands import Command
from schemas.published_records import Result
from schemas.reasons import Reason

# How long the append alone is waited for, where the outcome is not.
APPEND_TIMEOUT_S: Final = 5.0
LOOKUP_INTERVAL_S: Final = 1.0
# How long the books are looked in once the wait is over: no answer of theirs keeps back ours.
FINAL_LOOKUP_TIMEOUT_S: Final = 1.0

log = structlog.stdlib.get_logger(__name__)


class Undecided(Struct, frozen=True):
    """`position` None: it is not certain that Kafka has it."""

    transaction_id: str
    position: Position | None
    pending: bool = False


class Submission:
    def __init__(self, line: LedgerClient, outcomes: OutcomeLookup, crash: CrashPoints) -> None:
        self._channel = line
        self._outcomes = outcomes
        self._crash = crash

    async def submit(self, command: Command, currency: str, wait_s: float) -> Outcome | Undecided:
        deadline = asyncio.get_running_loop().time() + wait_s
        self._crash.reach("submit.1-checked")
        try:
            submission = self._channel.submit(command)
        except ledger_client.QueueFull:
            raise _busy() from None
        except ledger_client.CommandTooLarge:
            raise HttpProblem(Reason.TOO_LARGE) from None
        self._crash.reach("submit.2-handed-over")
        try:
            result = await submission.decided(wait_s)
            if submission.refused:
                raise _busy()
            if result is None:
                return await self._without_result(submission, command, wait_s, deadline)
            self._crash.reach("submit.4-decided")
            return await self._of_result(submission, command, currency, result, deadline)
        except HttpProblem:
            raise
        except (*queries.AWAY, TimeoutError):
            return _undecided(submission)
        except Exception:
            # A defect, and no answer without the id: whoever repeats without a key would pay twice.
            log.exception("an outcome was not found out", transaction_id=submission.transaction_id)
            return _undecided(submission)
        finally:
            self._channel.forget(submission)

    async def _of_result(
        self,
        submission: PendingCommand,
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
        if not result.replay and isinstance(command, transaction_view.COMPLETE_IN_RESULT):
            told = transaction_view.from_result(command, result.transaction_id, currency, result)
            position = (result.partition, result.offset)
            return Outcome(status="posted", transaction_id=told.id, facts=told, position=position)
        async with asyncio.timeout_at(deadline + FINAL_LOOKUP_TIMEOUT_S):
            found = await self.until_decided(result.transaction_id, None, deadline)
        if found is None or found.status == "pending":
            return _undecided(submission, pending=found is not None)
        position = (result.partition, result.offset)
        return _as_first_told(found, command, position, replayed=result.replay)

    async def _without_result(
        self, submission: PendingCommand, command: Command, wait_s: float, deadline: float
    ) -> Outcome | Undecided:
        """It is late, or nobody wanted to wait."""
        position = await submission.placed(APPEND_TIMEOUT_S if wait_s == 0 else 0)
        if submission.refused:
            raise _busy()
        if position is None or wait_s == 0:
            return _undecided(submission)
        async with asyncio.timeout_at(deadline + FINAL_LOOKUP_TIMEOUT_S):
            found = await self._at(position, submission.transaction_id)
        if found is None or found.status == "pending":
            return _undecided(submission, pending=found is not None)
        return _as_first_told(found, command, position, replayed=found.replayed)

    async def _at(self, position: Position, transaction_id: str) -> Outcome | None:
        """None: not decided, or the books have another command there, which is a defect."""
        found = await self._outcomes.at(*position)
        if found is None or found.transaction_id in (None, transaction_id):
            return found
        log.error(
            "the books have another command at this position",
            transaction_id=transaction_id,
            partition=position[0],
            offset=position[1],
        )
        return None

    async def until_decided(
        self,
        transaction_id: str,
        position: Position | None,
        deadline: float,
        party: str | None = None,
    ) -> Outcome | None:
        """The outcome of a transaction, or of a position where that is given, waited for; pending,
        or None, where it is late. One that is not `party`'s is waited for as if it never came."""
        loop = asyncio.get_running_loop()
        keys: list[str | Position] = [transaction_id]
        if position is not None:
            keys.append(position)
        with self._channel.watching(*keys) as watch:
            while True:
                if position is None:
                    found = await self._outcomes.of(transaction_id, party)
                else:
                    found = await self._at(position, transaction_id)
                left_s = deadline - loop.time()
                if (found is not None and found.status != "pending") or left_s <= 0:
                    return found
                # Should a result have been missed, it is looked for all the same.
                await watch.wait(min(left_s, LOOKUP_INTERVAL_S))


def _as_first_told(
    found: Outcome, command: Command, position: Position, *, replayed: bool
) -> Outcome:
    told = None if found.facts is None else transaction_view.as_first_answered(found.facts, command)
    return msgspec.structs.replace(found, facts=told, replayed=replayed, position=position)


def _busy() -> HttpProblem:
    return HttpProblem(Code.BUSY, headers={"Retry-After": "1"})


def _undecided(submission: PendingCommand, *, pending: bool = False) -> Undecided:
    result, position = submission.result, submission.position
    if position is None and result is not None:
        position = (result.partition, result.offset)
    return Undecided(submission.transaction_id, position, pending)
