"""What the audit log records of a refused request, and whose budget of rows it uses."""

from enum import Enum, auto
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import web

from ingress.audit.entries import Event
from ingress.http import problems
from ingress.http.client_address import address_of
from ingress.http.problems import Code, HttpProblem
from ingress.http.roles import UserRole
from ingress.http.routes import Caller
from ingress.http.server import CALLER, TRACE

# Actions for refused requests, by code. All others of status 403 are FORBIDDEN.
REFUSED: Final = {
    Code.CREDENTIALS_WRONG: "password refused",
    Code.TOO_MANY_ATTEMPTS: "password not tried",
}
FORBIDDEN: Final = "forbidden"


class Source(Enum):
    """Who caused a refusal, or whose password was refused. Each has a budget of its own."""

    STAFF = auto()
    USER = auto()
    STRANGER = auto()


class Refusal(NamedTuple):
    event: Event
    source: Source


def refusal_of(request: web.Request, problem: HttpProblem) -> Refusal | None:
    """What the audit log records of a refused request, if anything."""
    action = REFUSED.get(problem.code) if isinstance(problem.code, Code) else None
    subject = problem.subject
    if action is None and problems.status(problem.code) == HTTPStatus.FORBIDDEN:
        resource = request.match_info.route.resource
        action = FORBIDDEN
        subject = f"{request.method} {resource.canonical}" if resource is not None else None
    if action is None:
        return None
    caller = request.get(CALLER)
    event = Event(
        action=action,
        user_id=caller.id if caller is not None else None,
        key_id=caller.key_id if caller is not None else None,
        subject=subject,
        address=address_of(request),
        trace=request[TRACE],
    )
    return Refusal(event, _source(caller, problem))


def _source(caller: Caller | None, problem: HttpProblem) -> Source:
    """Whose budget a refusal uses. An unchecked password costs a stranger nothing, so it never uses
    the budget of the user it names."""
    role = caller.role if caller is not None else None
    if role is None and problem.code == Code.CREDENTIALS_WRONG:
        role = problem.subject_role
    if role is None:
        return Source.STRANGER
    return Source.USER if role == UserRole.USER else Source.STAFF
