"""The answer to a submitted command: 201 with its transaction, the reason of a rejection, or 202
with the URL to poll. A replay is answered like the first submission.

Keeps the rule that a command of staff is in the audit log before it is sent. It does not know how a
command reaches Kafka.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from ingress.audit import entries
from ingress.audit.trail import AuditTrail
from ingress.http import problems, request_headers
from ingress.http.problems import HttpProblem
from ingress.http.roles import UserRole
from ingress.http.routes import Answer, Call, Caller
from ingress.ledger.client.outcome_lookup import Outcome
from ingress.ledger.client.status_url import StatusUrls
from ingress.ledger.client.submission import Submission, Undecided
from ingress.ledger.views.responses import AcceptedResponse, TransactionPresenter, with_etag
from ingress.ledger.views.transaction_view import TransactionView
from ingress.sql import queries
from schemas import commands
from schemas.commands import Command
from schemas.reasons import Reason

REPLAYED_HEADER: Final = "Idempotent-Replayed"
# The fields of a command that the audit log keeps.
_AUDITED_FIELDS: Final = ("amount", "to", "min_balance", "no_limit", "hold_id")

log = structlog.stdlib.get_logger(__name__)


class CommandSubmitter:
    def __init__(
        self,
        submission: Submission,
        presenter: TransactionPresenter,
        status_urls: StatusUrls,
        trail: AuditTrail,
    ) -> None:
        self._submission = submission
        self._presenter = presenter
        self._status_urls = status_urls
        self._trail = trail

    async def submit(self, call: Call[Any, Any], command: Command, currency: str) -> Answer:
        """Answers 201 with the transaction. `currency` is that of the command's account."""

        async def present(outcome: Outcome) -> Answer:
            view = posted_view(outcome)
            response = await self._presenter.present(view, call.caller, view.account)
            return with_etag(response, view.version, 201, replay_headers(outcome))

        return await self.submit_and_present(call, command, currency, present)

    async def submit_and_present(
        self,
        call: Call[Any, Any],
        command: Command,
        currency: str,
        present: Callable[[Outcome], Awaitable[Answer]],
    ) -> Answer:
        """Answers with what `present` makes of a posted command, or 202 if it is not decided or
        cannot be presented now: the client always gets the id. Raises the Problem of a rejection.
        """
        # The audit log comes first: if it cannot be written, nothing goes to Kafka.
        if call.caller.role is not UserRole.USER:
            await self._trail.add(_audit_event(call, command, currency))
        wait_s = request_headers.wait_s(call.request)
        outcome = await self._submission.outcome(command, currency, wait_s)
        if isinstance(outcome, Undecided):
            return self._accepted(call.caller, outcome, command)
        if outcome.status == "rejected":
            raise rejection_problem(outcome)
        try:
            return await present(outcome)
        except Exception as error:
            id = posted_view(outcome).id
            if not isinstance(error, queries.UNAVAILABLE):  # a bug
                log.exception(
                    "presenting an outcome failed", request_id=call.request_id, transaction_id=id
                )
            return self._accepted(call.caller, Undecided(id, outcome.position), command)

    def _accepted(self, caller: Caller, undecided: Undecided, command: Command) -> Answer:
        id, position = undecided.transaction_id, undecided.position
        location = self._status_urls.sign(caller.id, id, position)
        response = AcceptedResponse(
            id=id,
            trans_id=command.external_id,
            status="pending" if undecided.pending else "accepted",
            uncertain=position is None,
            location=location,
        )
        return Answer(response, 202, {"Location": location, "Retry-After": "1"})


def _audit_event(call: Call[Any, Any], command: Command, currency: str) -> entries.Event:
    """The action is the command's kind; its outcome is in the ledger, under the transaction id."""
    fields = {name: getattr(command, name, None) for name in _AUDITED_FIELDS}
    detail = {name: value for name, value in fields.items() if value is not None}
    if isinstance(command, commands.Post):
        debits = (entry.amount for entry in command.entries if entry.direction == "debit")
        detail |= {"amount": sum(debits), "entries": len(command.entries)}
    if isinstance(command, commands.Reverse):
        detail["reverses"] = command.transaction_id
    detail["transaction_id"] = commands.transaction_id(command)
    detail["currency"] = currency
    return entries.event(call, commands.kind(command), command.account, detail=detail)


def posted_view(outcome: Outcome) -> TransactionView:
    assert outcome.view is not None, "a posted command owns its id"
    return outcome.view


def replay_headers(outcome: Outcome) -> dict[str, str]:
    return {REPLAYED_HEADER: "true"} if outcome.replayed else {}


def rejection_problem(outcome: Outcome) -> HttpProblem:
    assert outcome.reason is not None, "a rejection has a reason"
    id = outcome.transaction_id
    more = {} if id is None else {"transaction_id": id}
    headers = replay_headers(outcome)
    return HttpProblem(Reason(outcome.reason), outcome.detail, headers=headers, more=more)


def problem_text(problem: HttpProblem) -> str:
    return problem.detail or problems.title(problem.code)
