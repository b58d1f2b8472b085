"""The answer to a command that the producer has, if anything fails after that."""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

import msgspec
import pytest

from ingress.http.problems import Code, HttpProblem
from ingress.ledger.client.ledger_client import LedgerClient, PendingCommand
from ingress.ledger.client.outcome_lookup import Outcome, OutcomeLookup
from ingress.ledger.client.submission import Submission, Undecided
from plumbing.settings import KafkaSettings
from plumbing.worker.crash_points import CrashPoints
from schemas.commands import Command, Credit
from schemas.published_records import Result
from schemas.reasons import Reason

ID = "6f2a4c3e-0000-5000-8000-000000000000"
CREDIT = Credit(account="ada", amount=5, idempotency_key="k")
CRASH = CrashPoints("")


class BrokenBooks(OutcomeLookup):
    """Every look-up fails with a bug."""

    def __init__(self) -> None:
        pass

    async def by_transaction(self, transaction_id: str, party: str | None = None) -> NoReturn:
        raise KeyError(transaction_id)


class OfflineClient(LedgerClient):
    """Never started: its commands go nowhere."""

    def __init__(self, *, accepts: bool) -> None:
        settings = KafkaSettings.model_validate({"KAFKA_BROKERS": "nowhere:1"})
        super().__init__(settings, "test", CRASH)
        self._accepts = accepts

    def send(self, command: Command) -> PendingCommand:
        pending = PendingCommand("label", ID)
        if self._accepts:
            result = Result(
                partition=3,
                offset=14,
                outcome="posted",
                transaction_id=ID,
                replay=True,
                sequence=15,
                time_ms=0,
            )
            pending.take_result(result)
        else:
            asyncio.get_running_loop().call_soon(pending.refuse, "its queue is full")
        return pending


async def test_a_bug_after_step_2_still_answers_with_the_id() -> None:
    outcome = await Submission(OfflineClient(accepts=True), BrokenBooks(), CRASH).outcome(
        CREDIT, "NGN", 2
    )
    assert outcome == Undecided(ID, (3, 14))


@pytest.mark.parametrize("wait_s", [0, 2])
async def test_a_command_that_the_producer_refuses_answers_busy(wait_s: float) -> None:
    with pytest.raises(HttpProblem) as raised:
        await Submission(OfflineClient(accepts=False), BrokenBooks(), CRASH).outcome(
            CREDIT, "NGN", wait_s
        )
    assert raised.value.code == Code.BUSY


OTHER_ID = "11111111-0000-5000-8000-000000000000"
POSTED = Result(
    partition=3, offset=14, outcome="posted", transaction_id=ID, sequence=15, time_ms=0, id="label"
)
REFUSED = msgspec.structs.replace(
    POSTED, outcome="rejected", transaction_id=None, reason=Reason.MALFORMED
)


def at(result: Result, offset: int) -> Result:
    return msgspec.structs.replace(result, offset=offset)


class ScriptedClient(LedgerClient):
    """Kafka and the ledger answer a command with these steps, one after the other."""

    def __init__(self, *steps: Callable[[PendingCommand], object]) -> None:
        settings = KafkaSettings.model_validate({"KAFKA_BROKERS": "nowhere:1"})
        super().__init__(settings, "test", CRASH)
        self._steps = steps

    def send(self, command: Command) -> PendingCommand:
        pending = PendingCommand("label", ID)
        for step in self._steps:
            asyncio.get_running_loop().call_soon(step, pending)
        return pending


class DeliveryReport:
    """What the client reports of an append; the real message turns negative values into None."""

    def __init__(self, partition: int | None, offset: int | None) -> None:
        self.partition = lambda: partition
        self.offset = lambda: offset


def appended(partition: int | None, offset: int | None) -> Callable[[PendingCommand], object]:
    message: Any = DeliveryReport(partition, offset)
    return lambda pending: pending.delivered(None, message)


def result_arrives(result: Result) -> Callable[[PendingCommand], object]:
    return lambda pending: pending.take_result(result)


class RejectingBooks(OutcomeLookup):
    """The books have a rejection at each of these positions, of these transactions."""

    def __init__(self, **ids: str | None) -> None:
        self._ids = ids

    async def by_position(self, partition: int, offset: int) -> Outcome | None:
        id = self._ids.get(f"at_{partition}_{offset}", "missing")
        if id == "missing":
            return None
        return Outcome(status="rejected", transaction_id=id, reason=Reason.INSUFFICIENT_FUNDS)

    async def by_transaction(self, transaction_id: str, party: str | None = None) -> Outcome | None:
        return None


NO_BOOKS = RejectingBooks()


async def submitted(
    wait_s: float, *steps: Callable[[PendingCommand], object], books: OutcomeLookup = NO_BOOKS
) -> Outcome | Undecided:
    return await Submission(ScriptedClient(*steps), books, CRASH).outcome(CREDIT, "NGN", wait_s)


@pytest.mark.parametrize(("partition", "offset"), [(3, None), (None, 14), (3, -1001), (-1, 14)])
async def test_an_unknown_offset_is_uncertain_and_not_offset_0(
    partition: int | None, offset: int | None
) -> None:
    # The outcome of another command at offset 0 is not the answer.
    books = RejectingBooks(at_3_0=None, at_0_14=None, at_0_0=OTHER_ID)
    for wait_s in (0, 0.05):
        outcome = await submitted(wait_s, appended(partition, offset), books=books)
        assert outcome == Undecided(ID, None), wait_s


async def test_the_result_of_a_command_at_an_unknown_offset_is_still_its_answer() -> None:
    outcome = await submitted(5, appended(3, None), result_arrives(POSTED))
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.transaction_id, outcome.position) == ("posted", ID, (3, 14))


@pytest.mark.parametrize(
    "foreign",
    [
        msgspec.structs.replace(POSTED, transaction_id=OTHER_ID),
        msgspec.structs.replace(REFUSED, transaction_id=OTHER_ID),
        at(REFUSED, 15),
        at(POSTED, 15),
    ],
)
async def test_a_result_with_our_label_of_another_command_is_no_answer(foreign: Result) -> None:
    """Any producer may use any label."""
    assert await submitted(0.05, appended(3, 14), result_arrives(foreign)) == Undecided(ID, (3, 14))
    outcome = await submitted(5, appended(3, 14), result_arrives(foreign), result_arrives(POSTED))
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.position) == ("posted", (3, 14))


async def test_a_refusal_that_comes_before_the_position_waits_for_it() -> None:
    outcome = await submitted(5, result_arrives(REFUSED), appended(3, 14))
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.reason) == ("rejected", Reason.MALFORMED)
    assert await submitted(0.05, result_arrives(at(REFUSED, 15)), appended(3, 14)) == Undecided(
        ID, (3, 14)
    )
    # Without an id and a position, the result cannot be attributed.
    assert await submitted(0.05, result_arrives(REFUSED), appended(3, None)) == Undecided(ID, None)


async def test_an_outcome_of_another_command_in_the_books_is_no_answer() -> None:
    books = RejectingBooks(at_3_14=OTHER_ID)
    assert await submitted(0.05, appended(3, 14), books=books) == Undecided(ID, (3, 14))
    submissions = Submission(ScriptedClient(), books, CRASH)
    deadline = asyncio.get_running_loop().time()
    assert await submissions.wait_until_decided(ID, (3, 14), deadline) is None
    own = await submissions.wait_until_decided(OTHER_ID, (3, 14), deadline)
    assert own is not None and own.reason == Reason.INSUFFICIENT_FUNDS
