"""Wrong passwords are taken so many times, by all ingresses together, and told alike."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.testkit.ledger_api import PASSWORD, TIMEOUT_S, Answer, Api, Ingress, beside
from tests.testkit.waiting import eventually

PER_EMAIL, PER_ADDRESS, WINDOW_S = 4, 9, 3_600
WRONG = "not this one"
LIMITS = {
    "LOGIN_FAILURES_PER_EMAIL": str(PER_EMAIL),
    "LOGIN_FAILURES_PER_ADDRESS": str(PER_ADDRESS),
    "LOGIN_WINDOW_S": str(WINDOW_S),
    "TRUSTED_PROXIES": "127.0.0.1, 10.9.0.0/16",
}


@pytest.fixture(scope="module")
def two(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ingress, Ingress]]:
    """Ingresses of one ledger, which keep the limits."""
    folder = tmp_path_factory.mktemp("attempts")
    with (
        beside(api.pipeline, folder / "one", **LIMITS) as one,
        beside(api.pipeline, folder / "other", **LIMITS) as other,
    ):
        yield one, other


def login(ingress: Ingress, email: str, password: str, place: str, path: str = "/login") -> Answer:
    """From anywhere, as a proxy says."""
    asked = {"email": email, "password": password}
    return ingress.post(path, asked, headers={"X-Forwarded-For": place})


def told(answer: Answer) -> dict[str, object]:
    return {name: value for name, value in answer.json.items() if name != "request_id"}


def refused(answer: Answer) -> int:
    """After how many seconds to ask again."""
    assert (answer.status, answer.code) == (429, "too_many_attempts"), answer
    return int(answer.headers["Retry-After"])


def test_an_address_is_tried_so_many_times_at_all_ingresses_together(
    two: tuple[Ingress, Ingress],
) -> None:
    one, other = two
    known = one.person()
    share_s = WINDOW_S / PER_EMAIL
    assert login(one, known.email, PASSWORD, "2001:db8:5:6::1").status == 200
    for email in (known.email, "nobody-1@example.com", "no address"):
        places = (f"203.0.113.{number}" for number in range(1, 100))
        written = (email, email.upper(), email, f" {email}")
        for ingress, text in zip((one, other, one, other), written, strict=True):
            text = text if "@" in email else email
            answer = login(ingress, text, WRONG, next(places))
            assert (answer.status, answer.code) == (401, "credentials_wrong")
        for ingress, path in ((other, "/login"), (one, "/auth/login"), (one, "/auth/cookie")):
            answer = login(ingress, email, WRONG, next(places), path)
            assert share_s - 60 < refused(answer) <= share_s
        # The right one is told nothing either.
        right = login(one, email, PASSWORD, next(places))
        assert told(right) == told(answer)
        assert refused(right) > 0
    # Who is signed in stays so, and so does who comes from where they have signed in before.
    assert one.get("/me", known.token).status == 200
    again = other.post("/auth/refresh", {"refresh_token": known.refresh_token})
    assert other.get("/me", again.json["access_token"]).status == 200
    assert login(other, known.email, PASSWORD, "").status == 200
    assert login(other, known.email, PASSWORD, "2001:db8:5:6:7::8").status == 200
    assert refused(login(other, known.email, PASSWORD, "2001:db8:5:7::1"))


def test_a_place_tries_so_many_times_whoever_it_names(
    two: tuple[Ingress, Ingress], api: Api
) -> None:
    one, other = two
    mine, theirs = one.person(), one.person()
    for number in range(PER_ADDRESS):
        # What is said before the proxies' own words is anybody's: it gives no other place.
        place = f"198.51.100.{number}, 2001:db8:1:2::{number:x}, 10.9.0.7"
        assert login(one, f"nobody-2-{number}@example.com", WRONG, place).status == 401
        # A success between does not reset it, or one's own account would buy guesses at others'.
        if number == 2:
            assert login(one, mine.email, PASSWORD, place).status == 200
    assert refused(login(other, "nobody-2-x@example.com", WRONG, "2001:db8:1:2:ffff::9"))
    assert refused(login(other, theirs.email, PASSWORD, "2001:db8:1:2:ffff::9"))
    assert login(other, theirs.email, PASSWORD, "2001:db8:1:3::9").status == 200
    # Who was there before is not kept out by their neighbours, nor has more guesses than their own.
    assert login(other, mine.email, PASSWORD, "2001:db8:1:2:ffff::9").status == 200
    for _ in range(PER_EMAIL):
        assert login(one, mine.email, WRONG, "2001:db8:1:2::9").status == 401
    assert refused(login(one, mine.email, PASSWORD, "2001:db8:1:2::9"))
    with psycopg.connect(api.database) as connection:
        places = connection.execute(
            "SELECT DISTINCT host(address) FROM ledger.tokens WHERE user_id = %s", [mine.uuid]
        ).fetchall()
    assert {place for (place,) in places} == {
        "127.0.0.1",
        "2001:db8:1:2::2",
        "2001:db8:1:2:ffff::9",
    }


def test_nobody_else_is_believed_about_who_asks(api: Api) -> None:
    person = api.ingress.person()
    login(api.ingress, person.email, PASSWORD, "203.0.113.77")
    with psycopg.connect(api.database) as connection:
        places = connection.execute(
            "SELECT DISTINCT host(address) FROM ledger.tokens WHERE user_id = %s", [person.uuid]
        ).fetchall()
    assert places == [("127.0.0.1",)]


def test_a_success_begins_anew(two: tuple[Ingress, Ingress]) -> None:
    one, other = two
    person = one.person()
    for number in range(3):
        place = f"192.0.2.{number}"
        for _ in range(PER_EMAIL - 1):
            assert login(one, person.email, WRONG, place).status == 401
        assert login(other, person.email, PASSWORD, place).status == 200


def test_of_many_at_once_no_more_are_told(two: tuple[Ingress, Ingress]) -> None:
    one, other = two
    person = one.person()

    def attempt(number: int) -> Answer:
        return login((one, other)[number % 2], person.email, WRONG, f"192.0.2.{100 + number}")

    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(attempt, range(24)))
    statuses = sorted(answer.status for answer in answers)
    assert statuses.count(401) == PER_EMAIL
    assert statuses.count(429) == 24 - statuses.count(401)
    # Many that are right are all taken.
    ada = one.person()
    with ThreadPoolExecutor(12) as threads:
        right = threads.map(lambda _: login(one, ada.email, PASSWORD, "192.0.2.90"), range(12))
        assert {answer.status for answer in right} == {200}


def test_a_restart_forgets_none(two: tuple[Ingress, Ingress]) -> None:
    other = two[1]
    email = "nobody-3@example.com"
    for _ in range(PER_EMAIL):
        assert login(other, email, WRONG, "192.0.2.200").status == 401
    other.process.kill()
    other.start()
    assert refused(login(other, email, WRONG, "192.0.2.200"))


def test_it_passes_with_time(api: Api, tmp_path: Path) -> None:
    short = {**LIMITS, "LOGIN_FAILURES_PER_EMAIL": "2", "LOGIN_WINDOW_S": "10"}
    with beside(api.pipeline, tmp_path, **short) as ingress:
        person = ingress.person()
        eventually(
            lambda: login(ingress, person.email, WRONG, "192.0.2.210").status == 429, TIMEOUT_S
        )
        answer = login(ingress, person.email, PASSWORD, "192.0.2.210")
        if answer.status != 200:  # a slow machine may have come to the next share
            assert 1 <= refused(answer) <= 5
        eventually(
            lambda: login(ingress, person.email, PASSWORD, "192.0.2.210").status == 200, TIMEOUT_S
        )


def test_the_current_password_is_not_guessed_with_a_session(two: tuple[Ingress, Ingress]) -> None:
    one, other = two
    person = one.person()
    asked = {"current_password": WRONG, "password": "battery staple"}
    for number in range(PER_EMAIL):
        answer = (one, other)[number % 2].post("/auth/password", asked, person.token)
        assert answer.code == "credentials_wrong"
    assert refused(one.post("/auth/password", asked, person.token))
    asked["current_password"] = PASSWORD
    assert refused(other.post("/auth/password", asked, person.token))
    assert other.get("/me", person.token).status == 200
    assert login(other, person.email, PASSWORD, "192.0.2.220").status == 200
