"""Requests that are refused before anything happens: with a problem, and nothing is written."""

import json
import re
from typing import Any

import psycopg
import pytest

from ingress.http.request_parsing import MAX_BODY_BYTES, MAX_DEPTH
from tests.testkit.ledger_api import HOSTILE, PASSWORD, Api, Ingress, Person

ASKED = {"first_name": "Eve", "email": "eve@example.com", "password": PASSWORD}
JSON = json.dumps(ASKED).encode()


@pytest.fixture
def ada(ingress: Ingress) -> Person:
    return ingress.person()


def users(api: Api) -> int:
    with psycopg.connect(api.database) as connection:
        row = connection.execute("SELECT count(*) FROM ledger.users").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed_body"),
        (b"{", "malformed_body"),
        (JSON + b"x", "malformed_body"),
        (b"\xef\xbb\xbf" + JSON, "malformed_body"),
        (JSON.decode().encode("utf-16"), "malformed_body"),
        (b'{"first_name": "\xff"}', "malformed_body"),
        (b'{"first_name": "\xed\xa0\x80"}', "malformed_body"),
        (b'{"first_name": "\\ud800"}', "malformed_body"),
        (b'{"first_name": "\\u0000"}', "malformed_body"),
        (b'{"first_name": "a\x00b"}', "malformed_body"),
        (JSON[:-1] + b', "email": "other@example.com"}', "malformed_body"),
        (JSON[:-1] + b', "email": "eve@example.com"}', "malformed_body"),
        (b'{"first_name": NaN}', "malformed_body"),
        (b'{"first_name": -Infinity}', "malformed_body"),
        (b'{"first_name": ' + b"9" * 5_000 + b"}", "malformed_body"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "malformed_body"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "malformed_body"),
        (b"{" * MAX_BODY_BYTES, "malformed_body"),
        (JSON + b" " * MAX_BODY_BYTES, "body_too_large"),
        (b"null", "fields_invalid"),
        (b"[]", "fields_invalid"),
        (b'"text"', "fields_invalid"),
        (b'{"' + b"x" * 60_000 + b'": 1}', "unknown_field"),
        (JSON[:-1] + b', "\\u202e": "text"}', "unknown_field"),
    ],
)
def test_ambiguous_json_is_refused(api: Api, body: bytes, code: str) -> None:
    before = users(api)
    answer = api.ingress.post("/register", body)
    assert answer.code == code, answer.text[:300]
    assert answer.status == answer.json["status"] < 500
    assert answer.json["type"] == f"/problems/{code}"
    assert users(api) == before
    assert api.ingress.get(answer.json["type"], prefix="").status == 200


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"],
)
def test_a_body_needs_a_json_content_type(api: Api, content_type: str | None) -> None:
    before = users(api)
    answer = api.ingress.post("/register", JSON, headers={"Content-Type": content_type or ""})
    assert answer.code == "unsupported_media_type"
    assert users(api) == before


def test_a_too_large_body_is_refused_without_being_read(ingress: Ingress) -> None:
    head = b"POST /api/v1/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    status, _, body = ingress.raw(head + b"Content-Length: 999999999999\r\n\r\n{")
    assert (status, json.loads(body)["code"]) == (413, "body_too_large")
    chunks = b"Transfer-Encoding: chunked\r\n\r\n" + 20 * (b"1000\r\n" + b" " * 4096 + b"\r\n")
    status, _, body = ingress.raw(head + chunks + b"0\r\n\r\n")
    assert (status, json.loads(body)["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\x00b\r\n\r\n",
        b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_malformed_http_is_answered_with_a_problem(ingress: Ingress, data: bytes) -> None:
    status, headers, body = ingress.raw(data)
    assert 400 <= status < 500
    assert headers["Content-Type"] == "application/problem+json"
    assert json.loads(body)["code"] == "malformed_request"


def test_a_header_cannot_inject_a_line(ingress: Ingress) -> None:
    odd = {"X-Request-Id": "a b\tc", "traceparent": "00-" + "0" * 32 + "-" + "1" * 16 + "-01"}
    answer = ingress.get("/health", prefix="", headers=odd)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])
    assert answer.headers["X-Request-Id"] != "0" * 32
    ours = ingress.get("/health", prefix="", headers={"X-Request-Id": "order-7"})
    assert ours.headers["X-Request-Id"] == "order-7"
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    traced = ingress.get("/nowhere", prefix="", headers={"traceparent": trace})
    assert traced.json["request_id"] == "ab" * 16


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/docs/files/..%2f..%2fapp.py",
        "/docs/files/%2e%2e%2fswagger.html",
        "/docs/files/redoc.html",
        "/docs//files/swagger-ui.css",
        "/problems/%00",
        "/problems/not_a_code",
        "/problems/..%2fhealth",
        "//health",
        "/health/",
        "/api/v1/me/",
        "/API/V1/me",
        "/api/v1/users/%2e%2e/me",
    ],
)
def test_a_path_is_not_normalized(ingress: Ingress, path: str) -> None:
    assert ingress.get(path, prefix="").code in ("not_found", "unauthenticated"), path


def test_a_wrong_method_gets_the_allowed_ones(ingress: Ingress) -> None:
    answer = ingress.call("PUT", "/register", ASKED)
    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"
    made_up = ingress.call("TRANSFER", "/register")
    assert made_up.status in (400, 405)


def test_unknown_and_repeated_query_fields_are_refused(ingress: Ingress, ada: Person) -> None:
    admin = ingress.admin()
    for query in ("pge=1", "limit=0", "limit=101", "limit=1&limit=2", "limit=x", "role=%00", "x"):
        assert ingress.get(f"/users?{query}", admin.token).code in (
            *("query_invalid", "unknown_field"),
        ), query
    assert ingress.get("/me?x=1", ada.token).status == 422
    both = ingress.get("/users?limit=0&role=king", admin.token).json["errors"]
    assert sorted(item["field"] for item in both) == ["limit", "role"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_stored_as_they_are(ingress: Ingress, text: str) -> None:
    person = ingress.person(first_name=text, last_name=text)
    me = ingress.get("/me", person.token).json
    assert (me["first_name"], me["last_name"]) == (text, text)
    key = {"name": text, "scopes": ["read"], "current_password": PASSWORD}
    created = ingress.post("/api-keys", key, person.token)
    assert created.json["name"] == text
    for attempt in (
        ingress.login(text),
        ingress.login(person.email, text[:128]),
        ingress.post("/auth/refresh", {"refresh_token": text}),
        ingress.get("/me", headers={"Authorization": "Bearer " + text.encode().hex()}),
    ):
        assert attempt.status == 401


def test_a_problem_reveals_no_internals(ingress: Ingress, ada: Person) -> None:
    answers: list[Any] = [
        ingress.get("/users", ada.token),
        ingress.get("/sessions/x", ada.token),
        ingress.post("/register", b"{"),
        ingress.get("/me", "x.y.z"),
    ]
    for answer in answers:
        assert answer.code
        text = answer.text.lower()
        for inside in ("traceback", "psycopg", "pydantic", "aiohttp", "select ", "errors.pydantic"):
            assert inside not in text
        assert "python" not in answer.headers.get("Server", "").lower()
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
