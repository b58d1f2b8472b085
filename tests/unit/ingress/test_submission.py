"""What is answered about a command that was handed over, when all goes wrong after that."""

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


class Books(OutcomeLookup):
    """They have a defect."""

    def __init__(self) -> None:
        pass

    async def of(self, transaction_id: str, party: str | None = None) -> NoReturn:
        raise KeyError(transaction_id)


class Line(LedgerClient):
    """Not started: its commands go nowhere."""

    def __init__(self, *, taken: bool) -> None:
        settings = KafkaSettings.model_validate({"KAFKA_BROKERS": "nowhere:1"})
        super().__init__(settings, "test", CRASH)
        self._taken = taken

    def submit(self, command: Command) -> PendingCommand:
        made = PendingCommand("label", ID)
        if self._taken:
            result = Result(
                partition=3,
                offset=14,
                outcome="posted",
                transaction_id=ID,
                replay=True,
                sequence=15,
                time_ms=0,
            )
            made.answered(result)
        else:
            asyncio.get_running_loop().call_soon(made.not_taken, "its queue is full")
        return made


async def test_a_defect_after_the_handing_over_takes_nobodys_id_away() -> None:
    told = await Submission(Line(taken=True), Books(), CRASH).submit(CREDIT, "NGN", 2)
    assert told == Undecided(ID, (3, 14))


@pytest.mark.parametrize("wait_s", [0, 2])
async def test_what_the_producer_refuses_is_told_as_not_sent(wait_s: float) -> None:
    with pytest.raises(HttpProblem) as told:
        await Submission(Line(taken=False), Books(), CRASH).submit(CREDIT, "NGN", wait_s)
    assert told.value.code == Code.BUSY


OTHER_ID = "11111111-0000-5000-8000-000000000000"
POSTED = Result(
    partition=3, offset=14, outcome="posted", transaction_id=ID, sequence=15, time_ms=0, id="label"
)
REFUSED = msgspec.structs.replace(
    POSTED, outcome="rejected", transaction_id=None, reason=Reason.MALFORMED
)


def at(result: Result, offset: int) -> Result:
    return msgspec.structs.replace(result, offset=offset)


class Answering(LedgerClient):
    """Kafka and the ledger answer a command by these steps, one after the other."""

    def __init__(self, *steps: Callable[[PendingCommand], object]) -> None:
        settings = KafkaSettings.model_validate({"KAFKA_BROKERS": "nowhere:1"})
        super().__init__(settings, "test", CRASH)
        self._steps = steps

    def submit(self, command: Command) -> PendingCommand:
        made = PendingCommand("label", ID)
        for step in self._steps:
            asyncio.get_running_loop().call_soon(step, made)
        return made


class Report:
    """What the client tells of an append; its own message turns what is negative into None."""

    def __init__(self, partition: int | None, offset: int | None) -> None:
        self.partition = lambda: partition
        self.offset = lambda: offset


def appended(partition: int | None, offset: int | None) -> Callable[[PendingCommand], object]:
    message: Any = Report(partition, offset)
    return lambda made: made.delivered(None, message)


def told(result: Result) -> Callable[[PendingCommand], object]:
    return lambda made: made.answered(result)


class Rejecting(OutcomeLookup):
    """Books that have a rejection at each position, of these transactions."""

    def __init__(self, **ids: str | None) -> None:
        self._ids = ids

    async def at(self, partition: int, offset: int) -> Outcome | None:
        id = self._ids.get(f"at_{partition}_{offset}", "not there")
        if id == "not there":
            return None
        return Outcome(status="rejected", transaction_id=id, reason=Reason.INSUFFICIENT_FUNDS)

    async def of(self, transaction_id: str, party: str | None = None) -> Outcome | None:
        return None


NO_BOOKS = Rejecting()


async def submitted(
    wait_s: float, *steps: Callable[[PendingCommand], object], books: OutcomeLookup = NO_BOOKS
) -> Outcome | Undecided:
    return await Submission(Answering(*steps), books, CRASH).submit(CREDIT, "NGN", wait_s)


@pytest.mark.parametrize(("partition", "offset"), [(3, None), (None, 14), (3, -1001), (-1, 14)])
async def test_an_unknown_offset_is_uncertain_and_not_offset_0(
    partition: int | None, offset: int | None
) -> None:
    # What another command at offset 0 became is nobody's answer here.
    books = Rejecting(at_3_0=None, at_0_14=None, at_0_0=OTHER_ID)
    for wait_s in (0, 0.05):
        found = await submitted(wait_s, appended(partition, offset), books=books)
        assert found == Undecided(ID, None), wait_s


async def test_the_result_of_a_command_at_an_unknown_offset_is_still_its_answer() -> None:
    found = await submitted(5, appended(3, None), told(POSTED))
    assert isinstance(found, Outcome)
    assert (found.status, found.transaction_id, found.position) == ("posted", ID, (3, 14))


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
    """Whoever may write to `commands` may use any label."""
    assert await submitted(0.05, appended(3, 14), told(foreign)) == Undecided(ID, (3, 14))
    found = await submitted(5, appended(3, 14), told(foreign), told(POSTED))
    assert isinstance(found, Outcome)
    assert (found.status, found.position) == ("posted", (3, 14))


async def test_a_refusal_that_comes_before_the_position_waits_for_it() -> None:
    found = await submitted(5, told(REFUSED), appended(3, 14))
    assert isinstance(found, Outcome)
    assert (found.status, found.reason) == ("rejected", Reason.MALFORMED)
    assert await submitted(0.05, told(at(REFUSED, 15)), appended(3, 14)) == Undecided(ID, (3, 14))
    # Without an id and a position nothing says whose it is.
    assert await submitted(0.05, told(REFUSED), appended(3, None)) == Undecided(ID, None)


async def test_what_the_books_have_of_another_command_is_no_answer() -> None:
    books = Rejecting(at_3_14=OTHER_ID)
    assert await submitted(0.05, appended(3, 14), books=books) == Undecided(ID, (3, 14))
    submissions = Submission(Answering(), books, CRASH)
    deadline = asyncio.get_running_loop().time()
    assert await submissions.until_decided(ID, (3, 14), deadline) is None
    mine = await submissions.until_decided(OTHER_ID, (3, 14), deadline)
    assert mine is not None and mine.reason == Reason.INSUFFICIENT_FUNDS
