"""How an outcome is answered: 201 with the transaction, the reason of a rejection, or 202 with the
address to poll at; a replay as the first time.
"""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from ingress import queries
from ingress.audit import entries
from ingress.audit.trail import AuditTrail
from ingress.http import problems
from ingress.http.problems import HttpProblem
from ingress.http.roles import UserRole
from ingress.http.routes import Answer, Call, Caller, ResponseModel
from ingress.ledger import request_fields
from ingress.ledger.account_directory import AccountDirectory
from ingress.ledger.client.outcome_lookup import Outcome
from ingress.ledger.client.status_url import StatusUrls
from ingress.ledger.client.submission import Submission, Undecided
from ingress.ledger.views import responses
from ingress.ledger.views.responses import AcceptedResponse, TransactionResponse
from ingress.ledger.views.transaction_view import TransactionView
from schemas import commands
from schemas.commands import Command
from schemas.reasons import Reason

REPLAYED_HEADER: Final = "Idempotent-Replayed"
ETAG_DIGEST_LENGTH: Final = 16
# What the audit log has of a command, where it has that.
_AUDITED_FIELDS: Final = ("amount", "to", "min_balance", "no_limit", "hold_id")

log = structlog.stdlib.get_logger(__name__)


class CommandSubmitter:
    def __init__(
        self,
        known: AccountDirectory,
        submissions: Submission,
        locations: StatusUrls,
        trail: AuditTrail,
    ) -> None:
        self._known = known
        self._submissions = submissions
        self._locations = locations
        self._trail = trail

    async def of(self, call: Call[Any, Any], command: Command, currency: str) -> Answer:
        """`currency` is that of the command's account."""

        async def show(found: Outcome) -> Answer:
            facts = posted_view(found)
            told = await self.shown(facts, call.caller, facts.account)
            return with_etag(told, facts.version, 201, replay_headers(found))

        return await self.submitted(call, command, currency, show)

    async def submitted(
        self,
        call: Call[Any, Any],
        command: Command,
        currency: str,
        show: Callable[[Outcome], Awaitable[Answer]],
    ) -> Answer:
        """What is shown of one that was posted, or where to poll: also where it cannot be shown
        now, as who has submitted is always told the id. Raises the Problem of a rejection.

        What staff sends is in the audit log before it is sent; what keeps it from there keeps it
        from Kafka, too."""
        wait_s = request_fields.wait_s(call.request)
        if call.caller.role is not UserRole.USER:
            await self._trail.add(_audit_event(call, command, currency))
        found = await self._submissions.submit(command, currency, wait_s)
        if isinstance(found, Outcome):
            if found.status == "rejected":
                raise rejection_problem(found)
            try:
                return await show(found)
            except Exception as error:
                id = posted_view(found).id
                if not isinstance(error, queries.AWAY):  # a defect
                    log.exception(
                        "an outcome was not shown", request_id=call.request_id, transaction_id=id
                    )
            found = Undecided(id, found.position)
        return self._accepted(call.caller, found, command.external_id)

    def _accepted(self, caller: Caller, found: Undecided, trans_id: str | None) -> Answer:
        location = self._locations.of(caller.id, found.transaction_id, found.position)
        told = AcceptedResponse(
            id=found.transaction_id,
            trans_id=trans_id,
            status="pending" if found.pending else "accepted",
            uncertain=found.position is None,
            location=location,
        )
        return Answer(told, 202, {"Location": location, "Retry-After": "1"})

    async def view(self, caller: Caller, facts: TransactionView) -> str | None:
        """From whose side the caller looks at it: their own, where they have one."""
        known = await self._known.all_of([facts.account, facts.counterparty])
        for id in (facts.account, facts.counterparty):
            if id in known and known[id].owner == caller.id:
                return id
        return None

    async def shown(
        self, facts: TransactionView, caller: Caller, view: str | None
    ) -> TransactionResponse:
        wanted = [facts.account, facts.counterparty, *(line.account for line in facts.entries)]
        known = await self._known.all_of(wanted)
        return responses.transaction_response(facts, view, known, caller)


def _audit_event(call: Call[Any, Any], command: Command, currency: str) -> entries.Event:
    """The command's kind is the action; its outcome is the ledger's, under the transaction id."""
    detail = {name: getattr(command, name, None) for name in _AUDITED_FIELDS}
    known = {name: value for name, value in detail.items() if value is not None}
    if isinstance(command, commands.Post):
        debits = (each.amount for each in command.entries if each.direction == "debit")
        known |= {"amount": sum(debits), "entries": len(command.entries)}
    if isinstance(command, commands.Reverse):
        known["reverses"] = command.transaction_id
    known["transaction_id"] = commands.transaction_id(command)
    known["currency"] = currency
    return entries.event(call, commands.kind(command), command.account, detail=known)


def posted_view(found: Outcome) -> TransactionView:
    assert found.facts is not None, "what was posted owns its id"
    return found.facts


def replay_headers(found: Outcome) -> dict[str, str]:
    return {REPLAYED_HEADER: "true"} if found.replayed else {}


def rejection_problem(found: Outcome) -> HttpProblem:
    assert found.reason is not None, "a rejection has a reason"
    more = {} if found.transaction_id is None else {"transaction_id": found.transaction_id}
    return HttpProblem(Reason(found.reason), found.detail, headers=replay_headers(found), more=more)


def problem_text(problem: HttpProblem) -> str:
    return problem.detail or problems.title(problem.code)


def with_etag(
    told: ResponseModel, version: int, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """With its ETag: the version, which If-Match takes, and a digest of all that is told, as a
    version does not count every change."""
    body = told.encoded()
    tag = f'"{version}-{hashlib.sha256(body).hexdigest()[:ETAG_DIGEST_LENGTH]}"'
    return Answer(body, status, {"ETag": tag, **(headers or {})})


def with_etag_or_304(call: Call[Any, Any], told: ResponseModel, version: int) -> Answer:
    """With its ETag; 304 where who asks has it already."""
    answer = with_etag(told, version)
    assert answer.headers is not None, "an ETag"
    given = call.request.headers.get("If-None-Match", "")
    known = [each.strip().removeprefix("W/") for each in given.split(",")]
    if given == "*" or answer.headers["ETag"] in known:
        return Answer(None, 304, answer.headers)
    return answer
