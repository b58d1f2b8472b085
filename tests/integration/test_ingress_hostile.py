"""What is sent to hurt: money requests, headers, addresses and cursors. Each is answered by a
problem document and has written nothing, or is a text like any other.
"""

import gzip
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from sinks.reads import pages
from tests.testkit.ledger_api import HOSTILE, NEW_KEY, PASSWORD, TIMEOUT_S, Api, Ingress, Person
from tests.testkit.waiting import eventually

LOOK_ALIKES = {
    "a": "\u0430",  # Cyrillic
    "k": "\u212a",  # the Kelvin sign, which is k in lower case
    "i": "\u0131",  # without its dot, which is I in upper case
    "s": "\u017f",  # long, which is S in upper case
}


@pytest.fixture(scope="module")
def people(api: Api) -> dict[str, Person]:
    ingress = api.ingress
    admin = ingress.admin()
    made = {"user": ingress.person(), "other": ingress.person(), "admin": admin}
    made["operator"] = ingress.becomes(ingress.person(), "operator", admin)
    credit = {"entry": "credit", "amount": 1_000}
    assert ingress.post("/transactions", credit, made["user"].token).status == 201
    return made


TABLES = ("commands", "outbox", "users", "wallets", "accounts", "tokens")
OPENING = """
    SELECT
        (SELECT count(*) FROM ledger.outbox WHERE sent_at IS NULL)
        + (SELECT count(*) FROM ledger.wallets WHERE id NOT IN (SELECT id FROM ledger.accounts))
"""


def counted(api: Api, query: str) -> list[Any]:
    with psycopg.connect(api.database) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return list(row)


def written(api: Api) -> list[Any]:
    """All that a request may write; `commands` are there once a later one is answered."""
    counts = ", ".join(f"(SELECT count(*) FROM ledger.{table})" for table in TABLES)
    return counted(api, f"SELECT {counts}")


def settled(api: Api) -> list[Any]:
    """`written`, once all that others have asked for before is there."""
    eventually(lambda: counted(api, OPENING) == [0], TIMEOUT_S)
    pipeline = api.pipeline
    eventually(lambda: written(api)[0] == len(pipeline.read(pipeline.names.commands)), TIMEOUT_S)
    return written(api)


def bad_bodies(asked: dict[str, Any]) -> list[bytes]:
    good = json.dumps(asked).encode()
    name = next(iter(asked))
    return [
        b"",
        good[:-1],
        good + good,
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        good[:-1] + b', "%s": %s}' % (name.encode(), json.dumps(asked[name]).encode()),
        good[:-1] + b', "amount": NaN}',
        good[:-1] + b', "metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
        good[:-1] + b', "more": 1}',
        good[:-1] + b', "description": "\\ud800"}',
        good[:-1] + b', "description": "\\u0000"}',
        good[:-1] + b', "description": "' + b"x" * 70_000 + b'"}',
        b"[" + good + b"]",
        b"null",
    ]


def test_no_route_of_money_takes_a_body_that_is_not_one(
    api: Api, people: dict[str, Person]
) -> None:
    user, operator = people["user"], people["operator"]
    account = {"name": "x", "account_type": "asset", "currency": "NGN"}
    before = settled(api)
    version = api.ingress.get("/wallet", user.token).json["wallet"]["version"]
    for person, prefix, path, asked in (
        (user, "/api/v1", "/transactions", {"entry": "credit", "amount": 5}),
        (user, "/api/v1", "/holds", {"amount": 5}),
        (user, "/api/v1", "/wallets", {"currency": "NGN"}),
        (user, "/api", "/transactions", {"receiver_id": people["other"].number, "amount": 1}),
        (operator, "/api/v1", "/accounts", account),
    ):
        for body in bad_bodies(asked):
            answer = api.ingress.post(path, body, person.token, prefix=prefix)
            assert answer.status in (400, 413, 422), (path, body[:200], answer)
            if prefix == "/api" and "message" in answer.json:  # in its own words
                assert set(answer.json) == {"message", "errors"}
            else:
                assert answer.code in ("malformed_body", "body_too_large", "unknown_field") or (
                    answer.code == "fields_invalid" and body[:1] in b"[n"
                ), (path, body[:200], answer)
    # One that is good comes after all of them, in every partition that they could have been in.
    asked = {"entry": "credit", "amount": 1}
    assert api.ingress.post("/transactions", asked, user.token).status == 201
    assert api.ingress.get("/wallet", user.token).json["wallet"]["version"] == version + 1
    after = written(api)
    assert after == [before[0] + 1, *before[1:]]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_is_kept_as_it_is(ingress: Ingress, people: dict[str, Person], text: str) -> None:
    user, operator = people["user"], people["operator"]
    asked = {
        "entry": "credit",
        "amount": 1,
        "trans_id": text,
        "reference": text,
        "description": text,
        "metadata": {text: text},
    }
    posted = ingress.post("/transactions", asked, user.token)
    assert posted.status == 201, posted
    told = ingress.get(f"/transactions/{posted.json['id']}", user.token).json
    for name in ("trans_id", "reference", "description", "metadata"):
        assert told[name] == asked[name]
    found = ingress.get(f"/transactions?reference={quote(text)}", user.token).json["data"]
    assert [each["id"] for each in found] == [told["id"]]
    # Where no text belongs there is nothing of that name.
    for path in (
        f"/transactions/{quote(text, safe='')}",
        f"/commands/{quote(text, safe='')}",
        f"/holds/{quote(text, safe='')}",
        f"/wallets/{quote(text, safe='')}",
        f"/accounts/{quote(text, safe='')}",
        f"/accounts/{quote(text, safe='')}/entries",
        f"/transactions?cursor={quote(text)}",
        f"/transactions?wallet_id={quote(text)}",
        f"/transactions?user_id={quote(text)}",
        f"/transactions?kind={quote(text)}",
        f"/transactions?since={quote(text)}",
        f"/accounts?cursor={quote(text)}",
    ):
        answer = ingress.get(path, operator.token)
        assert answer.status in (404, 422), (path, answer)
        assert answer.code
    answer = ingress.get(f"/users/{quote(text, safe='')}", people["admin"].token)
    assert answer.code == "not_found"


@pytest.mark.parametrize(
    "head",
    [
        b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nZZ\r\n{}\r\n0",
        b"Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n1\r\n{}\r\n0",
        b"X-Request-Id: a\rSet-Cookie: b=1",
        b"X-Request-Id: a\nSet-Cookie: b=1",
        b"X-Request-Id: a\r\n Set-Cookie: b=1",
        b"X-Request-Id : a",
        b": a",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: xchunked",
        b"Content-Length: +3",
        b"Content-Length: 3, 3",
    ],
)
def test_no_header_is_another(ingress: Ingress, head: bytes) -> None:
    data = b"POST /api/v1/login HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n"
    status, headers, body = ingress.raw(data)
    assert headers["Content-Type"] == "application/problem+json", (status, headers, body)
    assert 400 <= status < 500
    assert "Set-Cookie" not in headers
    assert headers.get("X-Request-Id") != "a"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/commands/%0d%0aSet-Cookie:%20b=1",
        "/api/v1/transactions/x%0d%0aLocation:%20//evil.example",
        "/problems/%0d%0aSet-Cookie:%20b=1",
        "/api/v1/wallets/..%2f..%2fusers",
        "/api/v1/wallets/%2e%2e/%2e%2e/users",
        "/api/v1//me",
        "/api/v1/./me",
        "/api/v1/wallets/%252e%252e",
        "/api/v1/wallets/%ff%fe",
        "/api/v1/wallets/a;b=c",
        "/api/v1/me%00",
        "/api/v1/me%20",
        "/api/v1/me?%00=1",
        "//evil.example/api/v1/me",
        "http://evil.example/nowhere",
    ],
)
def test_no_address_is_another(ingress: Ingress, people: dict[str, Person], path: str) -> None:
    answer = ingress.get(path, people["user"].token, prefix="")
    assert answer.status in (400, 404, 422), answer
    assert answer.code
    assert "Set-Cookie" not in answer.headers
    assert "Location" not in answer.headers


def test_a_body_is_not_larger_than_it_seems(api: Api) -> None:
    before = settled(api)
    headers = {"Content-Encoding": "gzip"}
    bomb = gzip.compress(b" " * 50_000_000)
    for body in (bomb, gzip.compress(bomb), bomb[: len(bomb) // 2], b"no gzip at all"):
        answer = api.ingress.post("/login", body, headers=headers)
        assert answer.code == "unsupported_media_type"
    for other in ("br", "zstd", "compress", "gzip, gzip", "x" * 100):
        answer = api.ingress.post("/login", b"{}", headers={"Content-Encoding": other})
        assert (answer.status, answer.code) == (415, "unsupported_media_type"), other
    assert written(api) == before


def test_no_address_passes_for_another(api: Api, people: dict[str, Person]) -> None:
    ingress = api.ingress
    asked = {"first_name": "Kiasa", "email": "kiasa@look.example", "password": PASSWORD}
    assert ingress.post("/register", asked).status == 201
    before = settled(api)
    for written_otherwise in ("KIASA@LOOK.EXAMPLE", " kiasa@look.example", "Kiasa@look.Example"):
        taken = ingress.post("/register", {**asked, "email": written_otherwise})
        assert (taken.status, taken.code) == (409, "email_taken")
    for letter, alike in LOOK_ALIKES.items():
        email = asked["email"].replace(letter, alike, 1)
        refused = ingress.post("/register", {**asked, "email": email})
        assert [each["field"] for each in refused.json["errors"]] == ["email"]
        assert ingress.login(email).code == "credentials_wrong"
        sent = {"receiver_email": email, "amount": 1}
        assert ingress.post("/transactions", sent, people["user"].token).status in (404, 422)
        found = ingress.get(f"/users?email={quote(email)}", people["admin"].token)
        assert found.code == "query_invalid"
    assert written(api) == before


@pytest.mark.parametrize("time", ["0.5", "1700000000", "0", "2026-01-01", "2026-01-01T00:00:00"])
def test_a_time_is_written_out(ingress: Ingress, people: dict[str, Person], time: str) -> None:
    user = people["user"]
    for path in (
        f"/transactions?since={time}",
        f"/wallets/{user.wallet_id}/balance?at={time}",
        f"/wallets/{user.wallet_id}/statement?until={time}",
    ):
        assert ingress.get(path, user.token).code == "query_invalid", path
    for given in (time, 4_000_000_000):
        hold = {"amount": 1, "expires_at": given}
        assert ingress.post("/holds", hold, user.token).code == "fields_invalid"
        key = {**NEW_KEY, "expires_at": given}
        assert ingress.post("/api-keys", key, user.token).code == "fields_invalid"


FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def test_a_list_ends_whatever_is_asked_of_it(ingress: Ingress, people: dict[str, Person]) -> None:
    """Cursors are not signed: who holds one can make another."""
    asked = [
        f"/transactions?kind=close&{bound}={quote(time.isoformat())}"
        for bound in ("since", "until")
        for time in (FIRST, datetime(44, 11, 12, tzinfo=UTC), LAST)
    ]
    for backwards in (False, True):
        for path, name, key in (
            ("/transactions?kind=close", "transactions", (FIRST, 0, 0)),
            ("/transactions?kind=close", "transactions", (LAST, 2**63, 2**63)),
            ("/transactions?kind=close", "transactions", (datetime(2026, 1, 1), 0, 0)),
            ("/transactions?kind=close", "transactions", ("soon", "x", None)),
            ("/transactions?kind=close", "entries", (1,)),
            ("/accounts?limit=5", "accounts", ("a\0b",)),
            ("/accounts?limit=5", "accounts", ("\u202e'",)),
            ("/holds?limit=5", "holds", (datetime(2026, 1, 1), "x")),
            ("/holds?limit=5", "holds", (FIRST, "x")),
            ("/holds?limit=5", "holds", (LAST, "00000000-0000-4000-8000-000000000000")),
        ):
            cursor = ingress.cursor(pages.write(name, key, backwards=backwards))
            asked.append(f"{path}&cursor={cursor}")
    for path in asked:
        for who in ("operator", "user"):
            answer = ingress.get(path, people[who].token)
            assert answer.status in (200, 403, 404, 422), (path, answer)
            assert answer.status == 200 or answer.code
