"""Every operation of the OpenAPI document, asked as everybody in turn with what the document allows
and with what it does not: there is no answer that it does not tell of.

A few cases of each, always the same ones; FUZZ_EXAMPLES and FUZZ_SEED ask more, and others.
"""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from ingress.http.request_headers import MAX_WAIT_S
from ingress.http.roles import UserRole
from tests.testkit.ledger_api import NEW_KEY, PREFIX, TIMEOUT_S, Ingress, Person

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "6"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
NOBODY = "nobody"
SHOWN = 5
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]
# What is told of a thing by its id waits until the books have it; here many are not there.
AT_ONCE = {"Prefer": "wait=0"}
SIGNS_OUT = (f"{PREFIX}/logout", f"{PREFIX}/auth/logout")
USERS = f"{PREFIX}/users/{{user}}"
NOTHING = "00000000-0000-4000-8000-000000000000"


class Asker(NamedTuple):
    """Somebody, and what is there for them: the parameters of a path, by how it begins."""

    person: Person
    known: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def askers(request: pytest.FixtureRequest) -> Iterator[dict[str, Asker]]:
    ingress: Ingress = request.getfixturevalue("api").ingress
    admin = ingress.admin()
    made = {}
    for role in (UserRole.USER, UserRole.OPERATOR, UserRole.ADMIN):
        person = ingress.person()
        if role is not UserRole.USER:
            person = ingress.becomes(person, role, admin)
        made[role.value] = Asker(person, dict(known(ingress, person, role)))
    made[NOBODY] = Asker(made[UserRole.USER].person, made[UserRole.USER].known)
    yield made
    # Other tests count on who is an admin. It may be long since the first of them signed in.
    admin = ingress.admin()
    for asker in made.values():
        for number in (str(asker.person.number), asker.known["/users/"]["user"]):
            back = ingress.call("PATCH", f"/users/{number}", {"role": "user"}, admin.token)
            assert back.status == 200, back


def known(ingress: Ingress, person: Person, role: UserRole) -> Iterator[tuple[str, dict[str, str]]]:
    yield "/users/", {"user": str(ingress.person().number), "id": NOTHING}
    yield "/problems/", {"code": "not_found"}
    key = ingress.post("/api-keys", NEW_KEY, person.token)
    yield "/api-keys/", {"id": key.json["id"]}
    if role is UserRole.ADMIN:
        return
    credit = {"entry": "credit", "amount": 1_000_000, "wallet_id": person.wallet_id}
    posted = ingress.post("/transactions", credit, person.token).json["id"]
    yield "/transactions/", {"id": posted}
    yield "/commands/", {"id": posted}
    hold = {"amount": 500_000, "wallet_id": person.wallet_id}
    yield "/holds/", {"id": ingress.post("/holds", hold, person.token).json["id"]}
    yield "/wallets/", {"id": person.wallet_id}
    yield "/accounts/", {"id": person.wallet_id}


@pytest.mark.parametrize("who", [NOBODY, UserRole.USER, UserRole.OPERATOR, UserRole.ADMIN])
def test_there_is_no_answer_that_the_document_does_not_tell(
    ingress: Ingress, askers: dict[str, Asker], who: str
) -> None:
    asker = askers[who]
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{ingress.port}/openapi.json")
    failures: list[str] = []
    statuses: Counter[int] = Counter()
    with requests.Session() as session:
        for found in document.get_all_operations():
            assert isinstance(found, Ok), f"no operation: {found.err()}"
            operation = found.ok()
            headers = dict(AT_ONCE)
            if who != NOBODY:
                headers["Authorization"] = f"Bearer {token(ingress, asker.person, operation)}"
            # Who is nobody gets no further in the rest, whatever they send.
            public = operation.definition.raw["security"] == []
            examples = EXAMPLES if public or who != NOBODY else 1
            for case in drawn(cases(operation, asker.known), examples):
                if changes_others(case, asker.known):
                    continue
                answer = at_once(case).call(session=session, headers=headers, timeout=TIMEOUT_S)
                statuses[answer.status_code] += 1
                try:
                    case.validate_response(answer, CHECKS, headers=headers)
                except FailureGroup as failed:
                    failures.append(f"{operation.label} as {who}, seed {SEED}: {failed}")
    told = "\n".join(failures[:SHOWN])
    assert not failures, (
        f"{len(failures)} answers, the first of them:\n{told}\n{ingress.log_tail()}"
    )
    # It did get somewhere.
    assert statuses[200]
    # What an admin makes are API keys, and those need the current password.
    assert statuses[201] or who in (NOBODY, UserRole.ADMIN)


def changes_others(case: Case[Any], known: dict[str, dict[str, str]]) -> bool:
    """A path may be made up in every way of making one."""
    return is_only_for_known(case.operation) and case.path_parameters != parameters(
        case.operation, known["/users/"]
    )


def is_only_for_known(operation: Any) -> bool:
    """What changes a user, or ends what they hold, would do so to who signed in for other tests."""
    return operation.method.upper() != "GET" and str(operation.full_path).startswith(USERS)


def parameters(operation: Any, known: dict[str, str]) -> dict[str, str]:
    return {name: given for name, given in known.items() if f"{{{name}}}" in operation.full_path}


def at_once(case: Case[Any]) -> Case[Any]:
    """The same, without waiting for what is not there."""
    given = case.query.get("wait") if case.query else None
    if type(given) is int and 0 < given <= MAX_WAIT_S:
        case.query = {**case.query, "wait": 0}
    return case


def token(ingress: Ingress, person: Person, operation: Any) -> str:
    if operation.full_path in SIGNS_OUT:
        return str(ingress.login(person.email).json["access_token"])
    return person.token


def cases(operation: Any, known: dict[str, dict[str, str]]) -> st.SearchStrategy[Case[Any]]:
    """What is allowed and what is not, and both of what is there."""
    ways = []
    if not is_only_for_known(operation):
        ways += [operation.as_strategy(mode) for mode in GenerationMode]
    begins = operation.full_path.removeprefix(PREFIX)
    for beginning, path in known.items():
        if begins.startswith(f"{beginning}{{"):
            path = parameters(operation, path)
            ways.append(operation.as_strategy(GenerationMode.POSITIVE, path_parameters=path))
            if operation.body:
                ways.append(operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=path))
    return st.one_of(ways)


def drawn(strategy: st.SearchStrategy[Case[Any]], examples: int) -> list[Case[Any]]:
    made: list[Case[Any]] = []

    @hypothesis.seed(SEED)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def draw(case: Case[Any]) -> None:
        made.append(case)

    draw()
    return made
