"""What became of a command: polled for by its transaction id, or by the signed address that its
submission was answered with.

Keeps the rules that what is not decided is never told as rejected, and that another's command is
not there: whoever knows a wallet can compute the id of any key, and learns from no answer and no
waiting time whether it was used.
"""

import asyncio
from typing import Final

from pydantic import Field

from ingress.http import problems, routes
from ingress.http.problems import Code, HttpProblem, ProblemDocument
from ingress.http.roles import UserRole
from ingress.http.routes import Answer, Call, Query, Route
from ingress.ledger import request_fields
from ingress.ledger.client.outcome_lookup import Outcome, party_filter
from ingress.ledger.client.status_url import StatusUrls
from ingress.ledger.client.submission import Submission
from ingress.ledger.routes import submit
from ingress.ledger.routes.submit import CommandSubmitter
from ingress.ledger.views.responses import CommandResponse

POLLERS: Final = frozenset({UserRole.USER, UserRole.OPERATOR, UserRole.AUDITOR})


class CommandPath(Query):
    id: request_fields.TransactionId


class StatusQuery(request_fields.WaitQuery):
    position: str | None = Field(
        default=None,
        max_length=200,
        description="As in `Location`: the ledger, its epoch, and where the command lies.",
    )
    signature: str | None = Field(default=None, max_length=100, description="As in `Location`.")


class CommandRoutes:
    def __init__(
        self,
        submissions: Submission,
        locations: StatusUrls,
        told: CommandSubmitter,
    ) -> None:
        self._submissions = submissions
        self._locations = locations
        self._answers = told

    def routes(self) -> list[Route]:
        return [
            routes.reading(
                "/commands/{id}",
                self.poll,
                "What became of a command",
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
                description="By the `Location` of its submission, or by the transaction's id"
                " alone. `wait` polls long.",
            )
        ]

    async def poll(self, call: Call[None, StatusQuery]) -> Answer:
        id, query = call.path["id"], call.query
        deadline = asyncio.get_running_loop().time() + query.wait
        if query.position is None:
            if query.signature is not None:
                raise HttpProblem(Code.NOT_DECIDED_OR_UNKNOWN)
            mine = party_filter(call.caller)
            found = await self._submissions.until_decided(id, None, deadline, mine)
            if found is None:
                raise HttpProblem(Code.NOT_DECIDED_OR_UNKNOWN)
            return Answer(await self._shown(call, id, found))
        position = self._locations.read(call.caller.id, id, query.position, query.signature)
        found = await self._submissions.until_decided(id, position, deadline)
        if found is None:
            return Answer(CommandResponse(id=id, status="accepted", uncertain=position is None))
        return Answer(await self._shown(call, id, found))

    async def _shown(
        self, call: Call[None, StatusQuery], id: str, found: Outcome
    ) -> CommandResponse:
        if found.status == "rejected":
            refused = _document(submit.rejection_problem(found))
            return CommandResponse(id=id, status="rejected", problem=refused)
        facts = submit.posted_view(found)
        view = await self._answers.view(call.caller, facts)
        told = await self._answers.shown(facts, call.caller, view)
        return CommandResponse(id=id, status=found.status, transaction=told)


def _document(problem: HttpProblem) -> ProblemDocument:
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
