"""What is answered about a command that was handed over, when all goes wrong after that."""

import asyncio
from typing import NoReturn

import pytest

from ingress.ledger.channel import Channel, Submission
from ingress.ledger.outcomes import Outcomes
from ingress.ledger.submissions import Submissions, Undecided
from ingress.problems import Code, Problem
from plumbing.crashpoints import CrashPoints
from plumbing.settings import KafkaSettings
from schemas.commands import Command, Credit
from schemas.messages import Result

ID = "6f2a4c3e-0000-5000-8000-000000000000"
CREDIT = Credit(account="ada", amount=5, idempotency_key="k")
CRASH = CrashPoints("")


class Books(Outcomes):
    """They have a defect."""

    def __init__(self) -> None:
        pass

    async def of(self, transaction_id: str) -> NoReturn:
        raise KeyError(transaction_id)


class Line(Channel):
    """Not started: its commands go nowhere."""

    def __init__(self, *, taken: bool) -> None:
        settings = KafkaSettings.model_validate({"KAFKA_BROKERS": "nowhere:1"})
        super().__init__(settings, "test", CRASH)
        self._taken = taken

    def submit(self, command: Command) -> Submission:
        made = Submission("label", ID)
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
    told = await Submissions(Line(taken=True), Books(), CRASH).submit(CREDIT, "NGN", 2)
    assert told == Undecided(ID, (3, 14))


@pytest.mark.parametrize("wait_s", [0, 2])
async def test_what_the_producer_refuses_is_told_as_not_sent(wait_s: float) -> None:
    with pytest.raises(Problem) as told:
        await Submissions(Line(taken=False), Books(), CRASH).submit(CREDIT, "NGN", wait_s)
    assert told.value.code == Code.BUSY
