"""The cost of parsing is linear in the size of the request, even for hostile input."""

import itertools
import json
import string
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from pydantic import TypeAdapter

from ingress.auth import cookies
from ingress.auth.registration import Register
from ingress.auth.sign_in import Login
from ingress.http import request_parsing
from ingress.http.problems import Code, HttpProblem
from ingress.http.routes import Query
from ingress.users import emails

# Generous, so that a busy machine does not fail.
MOST_S = 0.05
TRIES = 5
LONGEST_HEADER = 8_000

LETTERS = string.ascii_letters
NAMES = ["".join(each) for size in (1, 2, 3) for each in itertools.product(LETTERS, repeat=size)]


def filled(head: bytes, part: Callable[[int], bytes], end: bytes) -> bytes:
    """A body of the maximum size."""
    parts, number = [head], 0
    size = len(head) + len(end)
    while size + len(part(number)) <= request_parsing.MAX_BODY_BYTES:
        parts.append(part(number))
        size += len(parts[-1])
        number += 1
    return b"".join(parts) + end


SHORT_NAMES = filled(b"{", lambda n: f'"{NAMES[n]}":1,'.encode(), b'"ZZZ":1}')
TWICE = SHORT_NAMES[: -len(b'"ZZZ":1}')] + f'"{NAMES[7_000]}":1}}'.encode()


def refused(act: Callable[[], object]) -> HttpProblem:
    with pytest.raises(HttpProblem) as caught:
        act()
    return caught.value


class Name(str):
    """A string that counts how often it is hashed or compared."""

    looks = 0

    def __hash__(self) -> int:
        Name.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Name.looks += 1
        return super().__eq__(other)


def test_the_duplicate_check_looks_at_each_name_once() -> None:
    names = [Name(each) for each in NAMES[: request_parsing.MAX_MEMBERS - 1]]
    Name.looks = 0
    found = refused(
        lambda: request_parsing._object([(each, 1) for each in [*names, Name(names[-1])]])
    )
    assert found.code == Code.MALFORMED_BODY
    assert repr(names[-1]) in (found.detail or "")
    assert Name.looks <= 6 * len(names)


def test_an_object_has_a_limited_number_of_members() -> None:
    most = dict.fromkeys(NAMES[: request_parsing.MAX_MEMBERS], 1)
    assert request_parsing.parse(json.dumps({"a": most}).encode()) == {"a": most}
    more = json.dumps({"a": {**most, "one more": 1}}).encode()
    found = refused(lambda: request_parsing.parse(more))
    assert found.code == Code.MALFORMED_BODY
    assert str(request_parsing.MAX_MEMBERS) in (found.detail or "")


def test_brackets_in_strings_do_not_count_as_depth() -> None:
    deepest = request_parsing.MAX_DEPTH
    for data in (
        b"[" * deepest + b"]" * deepest,
        b'["' + b"[" * 100 + b'"]',
        b'["\\"' + b"[{" * 100 + b'\\\\"]',
        b"[" + b"[]," * 100 + b"1]",
        b'{"a":"\\"","b":' + b"[" * (deepest - 1) + b"]" * (deepest - 1) + b"}",
    ):
        request_parsing.parse(data)
    for data in (
        b"[" * (deepest + 1) + b"]" * (deepest + 1),
        b'["\\\\",' + b"[" * deepest + b"]" * (deepest + 1),
        b'["' + b"]" * 100 + b'",' + b"[" * deepest + b"]" * (deepest + 1),
        b'{"a":"\\"","b":' + b"[" * deepest + b"]" * deepest + b"}",
    ):
        found = refused(lambda data=data: request_parsing.parse(data))  # type: ignore[misc]
        assert f"more than {deepest} levels deep" in (found.detail or ""), data


def request(**headers: str) -> web.Request:
    return make_mocked_request(
        "POST", "/", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        (" application/json ;a;b", True),
        ("application/json, text/plain", False),
        ("text/plain", False),
        ("", False),
        ("application/problem+json", False),
    ],
)
def test_a_body_is_json_by_its_content_type(given: str, taken: bool) -> None:
    assert request_parsing.is_json(request(Content_Type=given)) == taken


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("ledger_session=slc_a-b_c", "slc_a-b_c"),
        ("a=b; ledger_session=slc_1;c=d", "slc_1"),
        (" ledger_session = slc_1 ", "slc_1"),
        ("ledger_session=slc_1; ledger_session=slc_2", "slc_2"),
        ("xledger_session=slc_1", None),
        ("ledger_session", None),
        ("", None),
    ],
)
def test_the_session_cookie_is_found_among_others(given: str, found: str | None) -> None:
    assert cookies.session_token(request(Cookie=given)) == found


def test_duplicate_query_fields_are_named() -> None:
    query = "&".join(f"{name}=1" for name in NAMES[:300] * 2)
    found = refused(
        lambda: request_parsing.query(make_mocked_request("GET", f"/?{query}"), TypeAdapter(Query))
    )
    assert len(found.errors) == request_parsing.MAX_ERRORS
    assert {each.code for each in found.errors} == {"twice"}


def header(name: str, value: str, act: Callable[[web.Request], object]) -> Callable[[], object]:
    numbers = itertools.count(1_000)

    def sent() -> object:
        # A different value each time, like an attacker, so that no cache helps.
        return act(request(**{name: f"{value[:LONGEST_HEADER]}{next(numbers)}"}))

    return sent


def body(data: bytes, model: Any = None) -> Callable[[], object]:
    def act() -> object:
        value = request_parsing.parse(data)
        if model is not None:
            return request_parsing.validated(TypeAdapter(model), value, Code.FIELDS_INVALID)
        return value

    return act


def long_query(query: str) -> Callable[[], object]:
    query_request = make_mocked_request("GET", f"/?{query[:LONGEST_HEADER]}")
    return lambda: request_parsing.query(query_request, TypeAdapter(Query))


# Input that anybody can send, without any rights.
HOSTILE: dict[str, Callable[[], object]] = {
    "short names": body(SHORT_NAMES, Login),
    "a short name twice": body(TWICE),
    "many objects": body(filled(b"[", lambda _: b"{},", b"1]")),
    "many members in all": body(filled(b"[", lambda n: b'{"a":1,"b":2,"c":3,"d":4},', b"1]")),
    "brackets": body(filled(b"[", lambda _: b"[],", b"1]")),
    "brackets in a text": body(filled(b'{"a":"', lambda _: b"[{", b'"}')),
    "a text without end": body(filled(b'{[[[[[[[[[[[[[[[[[[[["a":"', lambda _: b'\\"', b"")),
    "quotes": body(filled(b"[[[[[[[[[[[[[[[[[[[[", lambda _: b'"', b"")),
    "long numbers": body(filled(b"[", lambda _: 4_000 * b"9" + b",", b"1]")),
    "a long fraction": body(filled(b"[1.", lambda _: b"9", b"]")),
    "an e-mail address of ligatures": lambda: emails.parse_email("a@" + "\ufdfa" * 318),
    "an e-mail address as long as a body": lambda: emails.parse_email("a@" + "\u00e9" * 30_000),
    "a registration's address": body(
        json.dumps({"name": "a", "password": "x" * 10, "email": "a@" + "\ufdfa" * 252}).encode(),
        Register,
    ),
    "parameters of a content type": header(
        "Content_Type", "a/b" + 8_000 * ";", request_parsing.is_json
    ),
    "quotes in a content type": header(
        "Content_Type", "a/b" + 4_000 * ';"', request_parsing.is_json
    ),
    "cookies": header("Cookie", ";".join(f"{n}=1" for n in NAMES[:2_000]), cookies.session_token),
    "no cookies": header("Cookie", 4_000 * "a ", cookies.session_token),
    "query fields twice": long_query("&".join(f"{name}=" for name in NAMES[:1_000] * 2)),
    "one query field often": long_query("&".join(4_000 * ["a="])),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_is_read_fast(name: str) -> None:
    def seconds() -> float:
        started = time.perf_counter()
        with suppress(HttpProblem):
            HOSTILE[name]()
        return time.perf_counter() - started

    took = min(seconds() for _ in range(TRIES))
    assert took < MOST_S, f"{1000 * took:.0f} ms"
