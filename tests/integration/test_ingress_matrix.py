"""Every route against every role: the reference page must agree with the running ingress."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from ingress.http.roles import Scope, UserRole
from tests.testkit.ledger_api import NEW_KEY, PREFIX, Answer, Ingress, Person

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "routes.md"
ROW = re.compile(r"\| ([A-Z]+) \| `([^`]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \| .* \|")
NOTHING = "00000000-0000-4000-8000-000000000000"
# Signing out needs its own session.
ENDS = ("/logout", "/auth/logout")


class Row(NamedTuple):
    method: str
    path: str
    may: dict[UserRole, bool]
    public: bool
    scope: Scope | None


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if match := ROW.fullmatch(line):
            method, path, *roles, scope = match.groups()
            if method == "METHOD":
                continue
            may = {
                role: listed in ("yes", "all") for role, listed in zip(UserRole, roles, strict=True)
            }
            named = None if scope == "-" else Scope(scope.strip("`"))
            path = path.replace("{prefix}", PREFIX)
            found.append(Row(method, path, may, roles[0] == "all", named))
    return found


@pytest.fixture(scope="module")
def people(api: "object", request: pytest.FixtureRequest) -> dict[UserRole, Person]:
    """A person of each role, including the admin."""
    ingress: Ingress = request.getfixturevalue("api").ingress
    admin = ingress.admin()
    people = {UserRole.ADMIN: admin}
    for role in (UserRole.USER, UserRole.OPERATOR, UserRole.AUDITOR):
        person = ingress.person()
        people[role] = person if role is UserRole.USER else ingress.becomes(person, role, admin)
    return people


def ask(ingress: Ingress, row: Row, token: str | None) -> Answer:
    """Names only missing things and does not wait, so that an allowed call changes nothing."""
    path = re.sub(r"\{\w+\}", NOTHING, row.path)
    return ingress.call(row.method, path, token=token, headers={"Prefer": "wait=0"}, prefix="")


def allowed(answer: Answer) -> bool:
    if answer.status not in (401, 403):
        return True
    assert answer.code in ("unauthenticated", "forbidden")
    return False


def test_the_reference_page_has_every_route(ingress: Ingress) -> None:
    paths = ingress.get("/openapi.json", prefix="").json["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    listed = {(row.method, row.path) for row in rows()}
    assert len(listed) == len(rows())
    assert listed - served == {("GET", "/docs/files/{name}")}  # for the pages, not in the document
    assert served <= listed


@pytest.mark.parametrize("role", list(UserRole))
def test_a_role_reaches_the_routes_that_the_page_says(
    ingress: Ingress, people: dict[UserRole, Person], role: UserRole
) -> None:
    wrong = []
    for row in rows():
        token = people[role].token
        if row.path.removeprefix(PREFIX) in ENDS:
            token = ingress.login(people[role].email).json["access_token"]
        answer = ask(ingress, row, token)
        assert answer.status < 500, (row, answer)
        if allowed(answer) != row.may[role]:
            wrong.append((row.method, row.path, answer.status))
    assert wrong == []


def test_without_a_token_only_public_routes_are_reached(ingress: Ingress) -> None:
    for row in rows():
        answer = ask(ingress, row, None)
        assert allowed(answer) == row.public, (row, answer)
        if not row.public:
            assert (answer.status, answer.code) == (401, "unauthenticated")


@pytest.mark.parametrize("scope", list(Scope))
def test_an_api_key_reaches_the_routes_of_its_scope(
    ingress: Ingress, people: dict[UserRole, Person], scope: Scope
) -> None:
    keys = {}
    for role, person in people.items():
        request_body = {**NEW_KEY, "scopes": [scope]}
        keys[role] = ingress.post("/api-keys", request_body, person.token).json["key"]
    for row in rows():
        if row.public:
            continue
        for role, key in keys.items():
            answer = ask(ingress, row, key)
            reaches = row.may[role] and row.scope is scope
            assert allowed(answer) == reaches, (row, role, answer)
