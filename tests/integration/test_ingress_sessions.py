"""Who asks: registering, signing in and out, tokens that end when they must."""

import secrets
import statistics
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import psycopg
import pytest
from psycopg import sql

from ingress.auth import client_secrets
from ingress.auth.access_tokens import ALGORITHM
from ingress.auth.cleanup import Cleanup
from ingress.auth.signing_keys import SigningKeys
from plumbing.postgres import connection_pool
from tests.testkit.ledger_api import NEW_KEY, PASSWORD, SIGNING_KEY, Api, Ingress, beside
from tests.testkit.waiting import eventually

ASKED = {
    "first_name": "Ada",
    "last_name": "Obi",
    "email": "Ada.Obi@Example.com",
    "password": PASSWORD,
}

# A client that may repeat its refresh.
RETRY = {"Idempotency-Key": "k7Qe2-0vXr9"}


@pytest.fixture(scope="module")
def proxied(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    """One that believes what this machine says of who asks."""
    folder = tmp_path_factory.mktemp("proxied")
    with beside(api.pipeline, folder, TRUSTED_PROXIES="127.0.0.1") as ingress:
        yield ingress


def rows(api: Api, query: str, *given: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(api.database) as connection:
        return connection.execute(query.encode(), given).fetchall()


def test_registering_makes_a_user_with_an_open_wallet(ingress: Ingress) -> None:
    answer = ingress.post("/register", {**ASKED, "password_confirmation": PASSWORD})
    assert answer.status == 201, ingress.log_tail()
    told = answer.json
    assert set(told) == {
        *("user", "wallet", "access_token", "token_type", "expires_in", "refresh_token", "token")
    }
    assert told["user"]["email"] == "Ada.Obi@example.com"
    assert isinstance(told["user"]["id"], int)
    assert told["wallet"]["status"] == "open"
    assert (told["wallet"]["balance"], told["wallet"]["currency"]) == (0, "NGN")
    assert told["token"] == told["access_token"]
    me = ingress.get("/me", told["token"])
    assert (me.status, me.json) == (200, told["user"])

    # The same address, however it is written, is the same person's.
    assert ingress.post("/auth/signup", {**ASKED, "email": "ada.obi@EXAMPLE.com"}).code == (
        "email_taken"
    )
    signed_in = ingress.post("/auth/login", {"email": "ADA.OBI@example.com", "password": PASSWORD})
    assert signed_in.status == 200
    assert signed_in.json["user"] == told["user"]
    assert signed_in.json["wallet"]["id"] == told["wallet"]["id"]


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"email": "ada"}, ["email"]),
        ({"email": "\u0430da@example.com"}, ["email"]),  # the first letter is Cyrillic
        ({"email": "ada@example.com\r\nBcc: all@example.com"}, ["email"]),
        ({"email": "a@b@example.com"}, ["email"]),
        ({"password": "short"}, ["password"]),
        ({"password": "x" * 129}, ["password"]),
        ({"password_confirmation": "another one"}, ["password_confirmation"]),
        ({"first_name": ""}, ["first_name"]),
        ({"first_name": None}, ["name"]),
        ({"name": "Ada Obi"}, ["name"]),
        ({"role": "admin"}, ["role"]),
        ({"first_name": 7, "email": 8, "password": None}, ["first_name", "email", "password"]),
    ],
)
def test_all_bad_fields_are_named_and_nobody_is_made(
    api: Api, change: dict[str, Any], fields: list[str]
) -> None:
    before = rows(api, "SELECT count(*) FROM ledger.users")
    answer = api.ingress.post("/register", {**ASKED, "email": "new@example.com", **change})
    code = "unknown_field" if "role" in change else "fields_invalid"
    assert (answer.status, answer.code) == (422, code)
    assert [each["field"] for each in answer.json["errors"]] == fields
    assert rows(api, "SELECT count(*) FROM ledger.users") == before


def test_a_single_name_is_taken_apart(ingress: Ingress) -> None:
    asked = {"name": "Chinua Albert Achebe", "email": "chinua@example.com", "password": PASSWORD}
    user = ingress.post("/register", asked).json["user"]
    assert (user["first_name"], user["last_name"]) == ("Chinua", "Albert Achebe")


def test_unknown_and_wrong_are_told_alike(ingress: Ingress) -> None:
    email = ingress.person().email
    wrong = ingress.login(email, "not this one")
    unknown = ingress.login("nobody@example.com", "not this one")
    malformed = ingress.login("nobody", "not this one")
    assert wrong.code == unknown.code == malformed.code == "credentials_wrong"
    kept = [{k: v for k, v in a.json.items() if k != "request_id"} for a in (wrong, unknown)]
    assert kept[0] == kept[1]

    def seconds(whose: str) -> float:
        started = time.perf_counter()
        ingress.login(whose, "not this one")
        return time.perf_counter() - started

    # In turns, so that what else the machine does falls on both.
    took = [(seconds(email), seconds("nobody@example.com")) for _ in range(12)]
    of_wrong, of_unknown = (statistics.median(each) for each in zip(*took, strict=True))
    assert 0.5 < of_wrong / of_unknown < 2


def test_a_refresh_token_is_used_once(ingress: Ingress) -> None:
    ada = ingress.person()
    first = ingress.post("/auth/refresh", {"refresh_token": ada.refresh_token})
    assert first.status == 200
    assert ingress.get("/me", first.json["access_token"]).status == 200
    # It comes again from another client: somebody has copied it. The session ends, for both.
    used = {"refresh_token": ada.refresh_token}
    again = ingress.post("/auth/refresh", used, headers={"User-Agent": "thief"})
    assert (again.status, again.code) == (401, "refresh_invalid")
    next_one = {"refresh_token": first.json["refresh_token"]}
    assert ingress.post("/auth/refresh", next_one).code == "refresh_invalid"
    eventually(lambda: ingress.get("/me", first.json["access_token"]).status == 401)
    assert ingress.get("/me", ada.token).status == 401


def test_a_lost_answer_to_a_refresh_is_given_again_to_the_same_client(ingress: Ingress) -> None:
    ada = ingress.person()
    used = {"refresh_token": ada.refresh_token}
    lost = ingress.post("/auth/refresh", used, headers=RETRY)
    again = ingress.post("/auth/refresh", used, headers=RETRY)
    assert (lost.status, again.status) == (200, 200)
    # One token, not two: whoever uses it second is found out.
    assert again.json["refresh_token"] == lost.json["refresh_token"]
    assert ingress.get("/me", again.json["access_token"]).status == 200
    following = ingress.post("/auth/refresh", {"refresh_token": again.json["refresh_token"]})
    assert following.status == 200
    # The answer to the first one was not lost, as its token was used.
    assert ingress.post("/auth/refresh", used, headers=RETRY).code == "refresh_invalid"
    kept = {"refresh_token": following.json["refresh_token"]}
    assert ingress.post("/auth/refresh", kept).code == "refresh_invalid"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({**RETRY, "User-Agent": "phone"}, {**RETRY, "User-Agent": "thief"}),
        (RETRY, {}),
        ({}, RETRY),
        (RETRY, {"Idempotency-Key": "another"}),
        (
            {**RETRY, "X-Forwarded-For": "203.0.113.7"},
            {**RETRY, "X-Forwarded-For": "203.0.113.8"},
        ),
    ],
)
def test_another_client_is_not_given_a_lost_answer(
    proxied: Ingress, first: dict[str, str], second: dict[str, str]
) -> None:
    ada = proxied.person()
    used = {"refresh_token": ada.refresh_token}
    lost = proxied.post("/auth/refresh", used, headers=first)
    assert proxied.post("/auth/refresh", used, headers=second).code == "refresh_invalid"
    kept = {"refresh_token": lost.json["refresh_token"]}
    assert proxied.post("/auth/refresh", kept, headers=first).code == "refresh_invalid"


def test_a_lost_answer_is_not_given_again_after_ten_seconds(api: Api) -> None:
    ada = api.ingress.person()
    used = {"refresh_token": ada.refresh_token}
    assert api.ingress.post("/auth/refresh", used, headers=RETRY).status == 200
    with psycopg.connect(api.database) as connection:
        connection.execute(
            "UPDATE ledger.spent_tokens SET spent_at = spent_at - interval '11 s' WHERE session_id"
            " IN (SELECT id FROM ledger.tokens WHERE user_id = %s)",
            (ada.uuid,),
        )
    assert api.ingress.post("/auth/refresh", used, headers=RETRY).code == "refresh_invalid"


def test_nobody_is_given_a_lost_answer_of_a_session_that_ended(ingress: Ingress) -> None:
    ada = ingress.person()
    used = {"refresh_token": ada.refresh_token}
    lost = ingress.post("/auth/refresh", used, headers=RETRY).json
    assert ingress.post("/logout", token=lost["access_token"]).status == 204
    assert ingress.post("/auth/refresh", used, headers=RETRY).code == "refresh_invalid"


def test_many_refreshes_at_once_by_one_client_have_one_answer(ingress: Ingress) -> None:
    ada = ingress.person()
    asked = {"refresh_token": ada.refresh_token}
    with ThreadPoolExecutor(8) as pool:
        done = list(
            pool.map(lambda _: ingress.post("/auth/refresh", asked, headers=RETRY), range(8))
        )
    assert [each.status for each in done] == 8 * [200]
    assert len({each.json["refresh_token"] for each in done}) == 1


def test_of_many_clients_that_refresh_at_once_none_keeps_the_session(ingress: Ingress) -> None:
    ada = ingress.person()
    asked = {"refresh_token": ada.refresh_token}

    def refresh(number: int) -> int:
        agent = {**RETRY, "User-Agent": f"client {number}"}
        return ingress.post("/auth/refresh", asked, headers=agent).status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(refresh, range(8))) == [200] + 7 * [401]


def test_without_a_key_a_lost_answer_to_a_refresh_is_not_given_again(ingress: Ingress) -> None:
    """Everybody behind one proxy may have the same address and the same browser."""
    ada = ingress.person()
    used = {"refresh_token": ada.refresh_token}
    assert ingress.post("/auth/refresh", used).status == 200
    assert ingress.post("/auth/refresh", used).code == "refresh_invalid"


@pytest.mark.parametrize("kind", ["session", "api_key"])
def test_a_user_with_hundreds_of_sessions_or_keys_signs_in_and_ends_them(
    api: Api, kind: str
) -> None:
    """A lowered limit leaves more of them than one notification holds."""
    ada, ingress = api.ingress.person(), api.ingress
    secret = f"{'slk_' if kind == 'api_key' else 'slc_'}{secrets.token_urlsafe(32)}"
    with psycopg.connect(api.database) as connection:
        connection.execute(
            "INSERT INTO ledger.tokens (hash, kind, user_id, name, scopes, created_at, expires_at)"
            " SELECT CASE number WHEN 300 THEN %s ELSE sha256(number::text::bytea || %s) END,"
            " %s::ledger.token_kind, %s, 'many',"
            " CASE %s WHEN 'api_key' THEN ARRAY['read'] ELSE '{}' END,"
            " now() - interval '1 day' * number, now() + interval '1 day'"
            " FROM generate_series(1, 300) AS number",
            (client_secrets.hashed(secret), secrets.token_bytes(8), kind, ada.uuid, kind),
        )
    headers = (
        {"Authorization": f"Bearer {secret}"}
        if kind == "api_key"
        else {"Cookie": f"ledger_session={secret}"}
    )
    assert ingress.get("/me", headers=headers).status == 200
    if kind == "session":
        assert ingress.login(ada.email).status == 200
    else:
        made = ingress.post("/api-keys", NEW_KEY, ada.token)
        assert (made.status, len(made.json["ended"])) == (201, 251)
    # The oldest ended, and every ingress has heard of it.
    eventually(lambda: ingress.get("/me", headers=headers).status == 401)


def test_a_password_change_ends_hundreds_of_sessions_and_keys(api: Api) -> None:
    ada, ingress = api.ingress.person(), api.ingress
    with psycopg.connect(api.database) as connection:
        for kind in ("session", "api_key"):
            connection.execute(
                "INSERT INTO ledger.tokens (hash, kind, user_id, name, scopes, expires_at)"
                " SELECT sha256(number::text::bytea || %s), %s::ledger.token_kind, %s, 'many',"
                " CASE %s WHEN 'api_key' THEN ARRAY['read'] ELSE '{}' END, now() + interval '1 day'"
                " FROM generate_series(1, 300) AS number",
                (secrets.token_bytes(8), kind, ada.uuid, kind),
            )
    change = {"current_password": PASSWORD, "password": "battery staple", "end_api_keys": True}
    assert ingress.post("/auth/password", change, ada.token).status == 204
    assert len(ingress.get("/sessions", ada.token).json["data"]) == 1
    assert ingress.get("/api-keys", ada.token).json["data"] == []


def test_signing_out_ends_the_session(ingress: Ingress) -> None:
    ada = ingress.person()
    assert ingress.post("/logout", token=ada.token).status == 204
    eventually(lambda: ingress.get("/me", ada.token).status == 401)
    asked = {"refresh_token": ada.refresh_token}
    assert ingress.post("/auth/refresh", asked).code == "refresh_invalid"


def test_a_new_password_ends_the_other_sessions(ingress: Ingress) -> None:
    ada = ingress.person()
    other = ingress.login(ada.email).json["access_token"]
    asked = {"current_password": "not this one", "password": "battery staple"}
    assert ingress.post("/auth/password", asked, ada.token).code == "credentials_wrong"
    asked["current_password"] = PASSWORD
    assert ingress.post("/auth/password", {**asked, "password": "short"}, ada.token).status == 422
    assert ingress.post("/auth/password", asked, ada.token).status == 204
    eventually(lambda: ingress.get("/me", other).status == 401)
    assert ingress.get("/me", ada.token).status == 200
    assert ingress.login(ada.email).code == "credentials_wrong"
    assert ingress.login(ada.email, "battery staple").status == 200


def test_sessions_are_listed_and_ended_by_their_own_user_only(ingress: Ingress) -> None:
    ada, eve = ingress.person(), ingress.person()
    other = ingress.login(ada.email).json["access_token"]
    listed = ingress.get("/sessions", ada.token).json["data"]
    assert [each["current"] for each in listed] == [False, True]
    path = f"/sessions/{listed[0]['id']}"
    assert ingress.call("DELETE", path, token=eve.token).code == "not_found"
    assert ingress.call("DELETE", "/sessions/none", token=ada.token).code == "query_invalid"
    assert ingress.call("DELETE", path, token=ada.token).status == 204
    assert ingress.call("DELETE", path, token=ada.token).code == "not_found"
    eventually(lambda: ingress.get("/me", other).status == 401)
    assert len(ingress.get("/sessions", ada.token).json["data"]) == 1


def test_a_browser_is_signed_in_by_a_cookie_and_a_token_of_its_page(ingress: Ingress) -> None:
    ada = ingress.person()
    answer = ingress.post("/auth/cookie", {"email": ada.email, "password": PASSWORD})
    assert answer.status == 200
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (morsel["httponly"], morsel["secure"], morsel["samesite"]) == (True, True, "Strict")
    assert morsel["path"] == "/"
    assert "token" not in {*answer.json} and "access_token" not in {*answer.json}
    browser = {"Cookie": f"{morsel.key}={morsel.value}"}
    assert ingress.get("/me", headers=browser).json["uuid"] == ada.uuid
    csrf = ingress.get("/auth/cookie", headers=browser).json["csrf_token"]
    assert csrf == answer.json["csrf_token"]

    new = {**NEW_KEY, "name": "till"}
    assert ingress.post("/api-keys", new, headers=browser).code == "csrf_failed"
    wrong = {**browser, "X-CSRF-Token": csrf[::-1]}
    assert ingress.post("/api-keys", new, headers=wrong).code == "csrf_failed"
    right = {**browser, "X-CSRF-Token": csrf}
    elsewhere = {**right, "Sec-Fetch-Site": "cross-site"}
    assert ingress.post("/api-keys", new, headers=elsewhere).code == "csrf_failed"
    assert ingress.post("/api-keys", new, headers=right).status == 201

    # A cookie is no bearer token and no refresh token.
    assert ingress.get("/me", morsel.value).status == 401
    assert ingress.post("/auth/refresh", {"refresh_token": morsel.value}).status == 401
    assert ingress.post("/auth/logout", headers=right).status == 204
    eventually(lambda: ingress.get("/me", headers=browser).status == 401)


def test_an_api_key_reaches_as_far_as_its_scopes(api: Api) -> None:
    ingress, ada, eve = api.ingress, api.ingress.person(), api.ingress.person()
    asked = {**NEW_KEY, "name": "reports"}
    made = ingress.post("/api-keys", asked, ada.token)
    assert made.status == 201
    key, id = made.json["key"], made.json["id"]
    assert ingress.get("/me", key).json["uuid"] == ada.uuid
    # Keys make no keys, and end no sessions.
    assert ingress.post("/api-keys", asked, key).code == "forbidden"
    assert ingress.get("/sessions", key).code == "forbidden"
    assert rows(api, "SELECT 1 FROM ledger.tokens WHERE hash = %s", key.encode()) == []
    listed = ingress.get("/api-keys", ada.token)
    assert key not in listed.text
    assert [each["id"] for each in listed.json["data"]] == [id]
    assert ingress.call("DELETE", f"/api-keys/{id}", token=eve.token).code == "not_found"
    assert ingress.call("DELETE", f"/api-keys/{id}", token=ada.token).status == 204
    eventually(lambda: ingress.get("/me", key).status == 401)
    past = {**asked, "expires_at": "2020-01-01T00:00:00Z"}
    assert ingress.post("/api-keys", past, ada.token).status == 422
    assert ingress.post("/api-keys", {**asked, "scopes": ["all"]}, ada.token).status == 422


def forged(token: str) -> list[str]:
    """Tokens that say the right thing and are not ours."""
    head = jwt.get_unverified_header(token)
    claims = jwt.decode(token, options={"verify_signature": False})
    keys = SigningKeys([SIGNING_KEY.encode()])
    kid, key = keys.access_key(claims["iat"])
    admin = {**claims, "role": "admin"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the key is short for it
        by_another_algorithm = jwt.encode(claims, key, "HS512", {"kid": kid})
    return [
        jwt.encode(claims, None, "none", {"kid": kid}),
        jwt.encode(claims, "a key of somebody else's, long enough", ALGORITHM, {"kid": kid}),
        by_another_algorithm,
        jwt.encode({**claims, "exp": claims["iat"] - 60}, key, ALGORITHM, {"kid": kid}),
        jwt.encode({**claims, "iss": "another"}, key, ALGORITHM, {"kid": kid}),
        jwt.encode(claims, key, ALGORITHM),
        jwt.encode(claims, key, ALGORITHM, {"kid": f"{kid[:8]}-1"}),
        jwt.encode(claims, key, ALGORITHM, {"kid": "../../dev/null"}),
        jwt.encode({k: v for k, v in claims.items() if k != "exp"}, key, ALGORITHM, {"kid": kid}),
        jwt.encode({k: v for k, v in claims.items() if k != "cnt"}, key, ALGORITHM, {"kid": kid}),
        ".".join([token.split(".")[0], jwt.encode(admin, key, ALGORITHM).split(".")[1], ""]),
        token[:-2],
        token + "." + token,
        "x" * 4_000,
        "",
        str(head),
    ]


def test_what_is_not_ours_is_not_taken(ingress: Ingress) -> None:
    ada = ingress.person()
    claims = jwt.decode(ada.token, options={"verify_signature": False})
    kid, key = SigningKeys([SIGNING_KEY.encode()]).access_key(claims["iat"])
    # The rest differs in one thing only from this one, which is taken.
    assert ingress.get("/me", jwt.encode(claims, key, ALGORITHM, {"kid": kid})).status == 200
    for token in forged(ada.token):
        answer = ingress.get("/me", token)
        assert (answer.status, answer.code) == (401, "unauthenticated"), token
    assert ingress.get("/me").headers["WWW-Authenticate"] == "Bearer"
    for scheme in ("Basic", "Bear er", ""):
        refused = ingress.get("/me", headers={"Authorization": f"{scheme} {ada.token}"})
        assert refused.code == "unauthenticated"


def test_what_one_ingress_ends_no_other_takes(api: Api, tmp_path: Path) -> None:
    ada = api.ingress.person()
    with beside(api.pipeline, tmp_path / "other") as other:
        # Any ingress takes what another has signed.
        assert other.get("/me", ada.token).status == 200
        assert api.ingress.post("/logout", token=ada.token).status == 204
        eventually(lambda: other.get("/me", ada.token).status == 401)
        # One that starts after it knows, too.
        other.process.stop()
        other.start()
        eventually(lambda: other.get("/me", ada.token).status == 401)


def test_a_changed_role_ends_what_was_handed_out_under_the_old_one(ingress: Ingress) -> None:
    admin, ada = ingress.admin(), ingress.person()
    key = ingress.post("/api-keys", NEW_KEY, ada.token).json["key"]
    assert ingress.get("/users", ada.token).code == "forbidden"
    assert ingress.get("/users", key).code == "forbidden"
    ingress.becomes(ada, "auditor", admin)
    eventually(lambda: ingress.get("/me", ada.token).status == 401)
    token = ingress.post("/auth/refresh", {"refresh_token": ada.refresh_token}).json["access_token"]
    found = ingress.get(f"/users?email={ada.email}", token).json["data"]
    assert [(each["id"], each["role"]) for each in found] == [(ada.number, "auditor")]
    assert ingress.get("/users", key).status == 200

    assert ingress.call("PATCH", f"/users/{ada.uuid}", {"disabled": True}, token).code == (
        "forbidden"
    )
    shut_out = ingress.call("PATCH", f"/users/{ada.uuid}", {"disabled": True}, admin.token)
    assert shut_out.json["disabled"] is True
    eventually(lambda: ingress.get("/me", token).status == 401)
    eventually(lambda: ingress.get("/me", key).status == 401)
    assert ingress.login(ada.email).code == "credentials_wrong"
    asked = {"refresh_token": ada.refresh_token}
    assert ingress.post("/auth/refresh", asked).code == "refresh_invalid"


def test_a_change_of_a_user_that_changes_nothing_writes_and_ends_nothing(api: Api) -> None:
    ingress, admin, ada = api.ingress, api.ingress.admin(), api.ingress.person()
    key = ingress.post(
        "/api-keys", {"name": "k", "scopes": ["read"], "current_password": PASSWORD}, ada.token
    ).json["key"]

    def written() -> list[tuple[Any, ...]]:
        return [
            *rows(api, "SELECT xmin::text, ctid::text FROM ledger.users WHERE id = %s", ada.uuid),
            *rows(api, "SELECT count(*) FROM ledger.audit WHERE subject = %s", ada.uuid),
        ]

    before = written()
    for same in ({}, {"role": "user"}, {"disabled": False}, {"role": "user", "disabled": False}):
        answer = ingress.call("PATCH", f"/users/{ada.uuid}", same, admin.token)
        assert (answer.status, answer.json["role"], answer.json["disabled"]) == (200, "user", False)
        assert written() == before, same
    # A change does, and what was told of it before is told by then: the old token is still taken.
    eve = ingress.person()
    ingress.becomes(eve, "auditor", admin)
    eventually(lambda: ingress.get("/me", eve.token).status == 401)
    assert ingress.get("/me", ada.token).status == 200
    assert ingress.get("/me", key).status == 200
    asked = {"refresh_token": ada.refresh_token}
    assert ingress.post("/auth/refresh", asked).status == 200


def test_there_is_always_an_admin(ingress: Ingress) -> None:
    admin = ingress.admin()
    path = f"/users/{admin.uuid}"
    assert ingress.call("PATCH", path, {"role": "user"}, admin.token).code == "last_admin"
    assert ingress.call("PATCH", path, {"disabled": True}, admin.token).code == "last_admin"
    assert ingress.get("/me", admin.token).json["role"] == "admin"


def test_an_admin_is_made_at_the_command_line(api: Api) -> None:
    words = ("users", "create-admin", "--email", "root@example.com")
    refused = api.pipeline.streamledger(*words, given="short\n", exit_code=1)
    assert refused.stderr == "streamledger: a password must have 8 to 128 characters\n"
    made = api.pipeline.streamledger(*words, given=f"{PASSWORD}\n")
    assert made.stdout == "root@example.com is an admin\n"
    told = api.ingress.login("root@example.com").json
    assert (told["user"]["role"], told["wallet"]) == ("admin", None)
    again = api.pipeline.streamledger(*words, given=f"{PASSWORD}\n", exit_code=1)
    assert "exists already" in again.stderr
    # So that there is one admin again, for the other tests.
    path = f"/users/{told['user']['id']}"
    admin = told["access_token"]
    assert api.ingress.call("PATCH", path, {"role": "user"}, admin).status == 200


async def test_what_ended_long_ago_is_swept_away(api: Api) -> None:
    ada = api.ingress.person()
    eve = api.ingress.person()
    assert api.ingress.post("/auth/refresh", {"refresh_token": ada.refresh_token}).status == 200
    with psycopg.connect(api.database) as connection:
        connection.execute(
            "UPDATE ledger.tokens SET revoked_at = now() - interval '31 days' WHERE user_id = %s",
            (ada.uuid,),
        )
    async with connection_pool.pool(api.database, 1, "test") as pool:
        assert await Cleanup(pool).sweep() >= 1
    left = rows(api, "SELECT user_id FROM ledger.tokens WHERE user_id IN (%s, %s)", ada[2], eve[2])
    assert left == [(eve.uuid,)]


def test_the_rights_of_its_role_in_postgres_are_enough(api: Api, tmp_path: Path) -> None:
    name = f"somebody_{secrets.token_hex(5)}"
    who = sql.Identifier(name)
    parts = urlsplit(api.database)
    database = parts._replace(netloc=f"{name}:{name}@{parts.hostname}:{parts.port}").geturl()
    with psycopg.connect(api.database, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(who, name))
        connection.execute(sql.SQL("GRANT streamledger_ingress TO {}").format(who))
        try:
            with beside(api.pipeline, tmp_path, DATABASE_URL=database) as ingress:
                ada = ingress.person()
                made = ingress.post("/api-keys", NEW_KEY, ada.token).json
                assert ingress.get("/me", made["key"]).status == 200
                revoked = ingress.call("DELETE", f"/api-keys/{made['id']}", token=ada.token)
                assert revoked.status == 204
                asked = {"refresh_token": ada.refresh_token}
                assert ingress.post("/auth/refresh", asked).status == 200
                thief = {"User-Agent": "thief"}
                assert ingress.post("/auth/refresh", asked, headers=thief).status == 401
                told = ingress.get(f"/audit?user={ada.number}", ingress.admin().token).json
                actions = [each["action"] for each in told["data"]]
                assert actions == [
                    "refresh token reused",
                    "revoked an API key",
                    "made an API key",
                    "registered",
                ]
                assert "permission denied" not in ingress.process.log_text()
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(who))
            connection.execute(sql.SQL("DROP ROLE {}").format(who))


def test_users_are_read_page_by_page(ingress: Ingress) -> None:
    admin = ingress.admin()
    made = [ingress.person().number for _ in range(3)]
    found: list[int] = []
    path = "/users?limit=2"
    while path:
        page = ingress.get(path, admin.token).json
        assert len(page["data"]) <= 2
        found += [each["id"] for each in page["data"]]
        more = page["meta"]["next_cursor"]
        path = f"/users?limit=2&cursor={more}" if more else ""
    assert found == sorted(set(found))
    assert set(made) <= set(found)
    assert ingress.get(f"/users/{made[0]}", admin.token).json["id"] == made[0]
    for nobody in ("0", "99999999999999999999", "x", "%00"):
        assert ingress.get(f"/users/{nobody}", admin.token).code == "not_found"
