"""The status of a command: polled by its transaction id, or by the signed URL from its submission.

Keeps two rules. An undecided command is never reported as rejected. Another user's command looks
like a missing one, in the answer and in the waiting time, although anybody who knows a wallet can
compute the id of any key.
"""

import asyncio
from typing import Final

from pydantic import Field

from ingress.http import problems, request_headers, routes
from ingress.http.problems import Code, HttpProblem, ProblemDocument
from ingress.http.roles import UserRole
from ingress.http.routes import Answer, Call, Caller, Query, Route
from ingress.ledger import request_fields
from ingress.ledger.client.outcome_lookup import Outcome, party_filter
from ingress.ledger.client.status_url import StatusUrls
from ingress.ledger.client.submission import Submission
from ingress.ledger.routes import submit
from ingress.ledger.views.responses import CommandResponse, TransactionPresenter

POLLERS: Final = frozenset({UserRole.USER, UserRole.OPERATOR, UserRole.AUDITOR})


class CommandPath(Query):
    id: request_fields.TransactionId


class StatusQuery(request_headers.WaitQuery):
    position: str | None = Field(
        default=None,
        max_length=200,
        description="As in `Location`: ledger, epoch and position of the command.",
    )
    signature: str | None = Field(default=None, max_length=100, description="As in `Location`.")


class CommandRoutes:
    def __init__(
        self,
        submission: Submission,
        status_urls: StatusUrls,
        presenter: TransactionPresenter,
    ) -> None:
        self._submission = submission
        self._status_urls = status_urls
        self._presenter = presenter

    def routes(self) -> list[Route]:
        return [
            routes.reading(
                "/commands/{id}",
                self.poll,
                "Get the status of a command",
                "Transactions",
                POLLERS,
                CommandResponse,
                params=CommandPath,
                query=StatusQuery,
                problems=(
                    Code.NOT_DECIDED_OR_UNKNOWN,
                    Code.POSITION_OF_ANOTHER_EPOCH,
                    Code.POSITION_OF_ANOTHER_LEDGER,
                ),
                description="Takes the `Location` of the submission, or the transaction's id alone."
                " `wait` is for long polling.",
            )
        ]

    async def poll(self, call: Call[None, StatusQuery]) -> Answer:
        id, query = call.path["id"], call.query
        deadline = asyncio.get_running_loop().time() + query.wait
        if query.position is None:
            if query.signature is not None:
                raise HttpProblem(Code.NOT_DECIDED_OR_UNKNOWN)
            party = party_filter(call.caller)
            outcome = await self._submission.wait_until_decided(id, None, deadline, party)
            if outcome is None:
                raise HttpProblem(Code.NOT_DECIDED_OR_UNKNOWN)
            return Answer(await self._response(call.caller, id, outcome))
        position = self._status_urls.verify(call.caller.id, id, query.position, query.signature)
        outcome = await self._submission.wait_until_decided(id, position, deadline)
        if outcome is None:
            return Answer(CommandResponse(id=id, status="accepted", uncertain=position is None))
        return Answer(await self._response(call.caller, id, outcome))

    async def _response(self, caller: Caller, id: str, outcome: Outcome) -> CommandResponse:
        if outcome.status == "rejected":
            problem = _problem_document(submit.rejection_problem(outcome))
            return CommandResponse(id=id, status="rejected", problem=problem)
        view = submit.posted_view(outcome)
        side = await self._presenter.side_of(caller, view)
        response = await self._presenter.present(view, caller, side)
        return CommandResponse(id=id, status=outcome.status, transaction=response)


def _problem_document(problem: HttpProblem) -> ProblemDocument:
    code = problem.code
    return ProblemDocument(
        type=f"{problems.PAGES}{code}",
        title=problems.title(code),
        status=problems.status(code),
        code=code,
        detail=problem.detail,
        errors=None,
        request_id=None,
        transaction_id=None if problem.more is None else problem.more.get("transaction_id"),
    )
