"""Every route against every role, as the page in docs has it and as the running ingress does it."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from ingress.http.roles import Scope, UserRole
from tests.testkit.ledger_api import NEW_KEY, PREFIX, Answer, Ingress, Person

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "routes.md"
ROW = re.compile(r"\| ([A-Z]+) \| `([^`]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \| (.*?) \| .* \|")
NOTHING = "00000000-0000-4000-8000-000000000000"
# What signs out is asked with a session of its own.
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
            may = {role: told in ("yes", "all") for role, told in zip(UserRole, roles, strict=True)}
            named = None if scope == "-" else Scope(scope.strip("`"))
            path = path.replace("{prefix}", PREFIX)
            found.append(Row(method, path, may, roles[0] == "all", named))
    return found


@pytest.fixture(scope="module")
def people(api: "object", request: pytest.FixtureRequest) -> dict[UserRole, Person]:
    """One of each role, the admin among them."""
    ingress: Ingress = request.getfixturevalue("api").ingress
    admin = ingress.admin()
    made = {UserRole.ADMIN: admin}
    for role in (UserRole.USER, UserRole.OPERATOR, UserRole.AUDITOR):
        person = ingress.person()
        made[role] = person if role is UserRole.USER else ingress.becomes(person, role, admin)
    return made


def ask(ingress: Ingress, row: Row, token: str | None) -> Answer:
    """Of nothing that is there, and is not waited for: what comes after being allowed changes
    nothing."""
    path = re.sub(r"\{\w+\}", NOTHING, row.path)
    return ingress.call(row.method, path, token=token, headers={"Prefer": "wait=0"}, prefix="")


def allowed(answer: Answer) -> bool:
    if answer.status not in (401, 403):
        return True
    assert answer.code in ("unauthenticated", "forbidden")
    return False


def test_the_page_has_every_route_that_is_served(ingress: Ingress) -> None:
    paths = ingress.get("/openapi.json", prefix="").json["paths"]
    served = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    told = {(row.method, row.path) for row in rows()}
    assert len(told) == len(rows())
    assert told - served == {("GET", "/docs/files/{name}")}  # for the pages, not in the document
    assert served <= told


@pytest.mark.parametrize("role", list(UserRole))
def test_a_role_reaches_what_the_page_says(
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


def test_who_is_nobody_reaches_what_is_public(ingress: Ingress) -> None:
    for row in rows():
        answer = ask(ingress, row, None)
        assert allowed(answer) == row.public, (row, answer)
        if not row.public:
            assert (answer.status, answer.code) == (401, "unauthenticated")


@pytest.mark.parametrize("scope", list(Scope))
def test_an_api_key_reaches_what_its_scope_says(
    ingress: Ingress, people: dict[UserRole, Person], scope: Scope
) -> None:
    keys = {}
    for role, person in people.items():
        asked = {**NEW_KEY, "scopes": [scope]}
        keys[role] = ingress.post("/api-keys", asked, person.token).json["key"]
    for row in rows():
        if row.public:
            continue
        for role, key in keys.items():
            answer = ask(ingress, row, key)
            reaches = row.may[role] and row.scope is scope
            assert allowed(answer) == reaches, (row, role, answer)
