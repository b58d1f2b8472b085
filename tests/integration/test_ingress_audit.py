"""The audit log over HTTP: refusals and every action of an operator stand in it, can be found, and
are there before Kafka has them.
"""

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest

from tests.testkit.ledger_api import PASSWORD, Api, Ingress, Person, beside
from tests.testkit.waiting import eventually

Rows = list[dict[str, Any]]


class Auditor:
    def __init__(self, ingress: Ingress, token: str) -> None:
        self._ingress = ingress
        self._token = token

    def rows(self, **query: str) -> Rows:
        """All pages of them, the latest first."""
        found: Rows = []
        cursor: dict[str, str] = {}
        while True:
            asked = urlencode({**query, **cursor})
            answer = self._ingress.get(f"/audit?{asked}", self._token)
            assert answer.status == 200, answer
            found += answer.json["data"]
            following = answer.json["meta"]["next_cursor"]
            if following is None:
                return found
            cursor = {"cursor": following}

    def actions(self, **query: str) -> list[str]:
        return [row["action"] for row in self.rows(**query)]


@pytest.fixture
def auditor(ingress: Ingress) -> Auditor:
    who = ingress.becomes(ingress.person(), "auditor", ingress.admin())
    return Auditor(ingress, who.token)


@pytest.fixture
def operator(ingress: Ingress) -> Person:
    return ingress.becomes(ingress.person(), "operator", ingress.admin())


def done(ingress: Ingress, path: str, body: Any, token: str, method: str = "POST") -> Any:
    answer = ingress.call(method, path, body, token)
    assert answer.status in (200, 201), answer
    return answer.json


def test_every_action_of_an_operator_on_the_ledger(
    ingress: Ingress, auditor: Auditor, operator: Person
) -> None:
    ada = ingress.person()
    wallet = f"/accounts/{ada.wallet_id}"
    income = done(
        ingress, "/accounts", {"account_type": "revenue", "name": "fees"}, operator.token
    )["id"]
    credit = {"entry": "credit", "amount": 500, "wallet_id": ada.wallet_id}
    credited = done(ingress, "/transactions", credit, operator.token)
    lines = [
        {"account_id": ada.wallet_id, "direction": "debit", "amount": 200},
        {"account_id": income, "direction": "credit", "amount": 200},
    ]
    post = {"entries": lines, "currency": "NGN"}
    posted = done(ingress, "/transactions", post, operator.token)
    done(ingress, f"/transactions/{posted['id']}/reverse", {}, operator.token)
    done(ingress, wallet, {"limit": -100}, operator.token, "PATCH")
    done(ingress, f"{wallet}/freeze", None, operator.token)
    done(ingress, f"{wallet}/unfreeze", None, operator.token)
    # What the ledger rejects was tried, too.
    assert ingress.post(f"{wallet}/close", None, operator.token).status == 409

    rows = auditor.rows(user=operator.uuid)
    assert [row["action"] for row in rows if row["action"] != "signed in"][:8] == [
        "close",
        "unfreeze",
        "freeze",
        "change_account",
        "reverse",
        "post",
        "credit",
        "open_account",
    ]
    by_action = {row["action"]: row for row in rows}
    for action in ("close", "freeze", "change_account", "credit"):
        assert by_action[action]["subject"] == ada.wallet_id
        assert by_action[action]["user_uuid"] == operator.uuid
        assert by_action[action]["key_id"] is None
        assert by_action[action]["address"] == "127.0.0.1"
    assert by_action["credit"]["detail"]["transaction_id"] == credited["id"]
    assert by_action["credit"]["detail"]["amount"] == 500
    assert by_action["post"]["detail"]["amount"] == 200
    assert by_action["reverse"]["detail"]["reverses"] == posted["id"]
    assert by_action["change_account"]["detail"]["min_balance"] == -100

    # What users do with their own money stands in the ledger alone.
    done(ingress, "/transactions", {"entry": "credit", "amount": 5}, ada.token)
    assert set(auditor.actions(user=ada.uuid)) == {"registered"}


def test_what_is_done_by_an_api_key_names_the_key(
    api: Api, auditor: Auditor, operator: Person
) -> None:
    ingress = api.ingress
    ada = ingress.person()
    body = {"name": "nightly", "scopes": ["read", "accounts"], "current_password": PASSWORD}
    made = ingress.post("/api-keys", body, operator.token)
    assert made.status == 201, made
    token, key_id = made.json["key"], made.json["id"]
    done(ingress, f"/accounts/{ada.wallet_id}/freeze", None, token)
    (row,) = auditor.rows(action="freeze", subject=ada.wallet_id)
    assert (row["user_uuid"], row["key_id"]) == (operator.uuid, key_id)
    # And so does what its scopes forbid.
    credit = {"entry": "credit", "amount": 5, "wallet_id": ada.wallet_id}
    assert ingress.post("/transactions", credit, token).status == 403
    eventually(lambda: auditor.rows(action="forbidden", user=operator.uuid), 10)
    (row,) = auditor.rows(action="forbidden", user=operator.uuid)
    assert (row["key_id"], row["subject"]) == (key_id, "POST /api/v1/transactions")


def test_refused_passwords_and_what_was_forbidden(ingress: Ingress, auditor: Auditor) -> None:
    ada = ingress.person()
    for _ in range(3):
        assert ingress.login(ada.email, "not the password").status == 401
    assert ingress.login(f"nobody-{secrets.token_hex(4)}@example.com").status == 401
    for _ in range(5):
        assert ingress.get("/audit", ada.token).status == 403

    def counted(**query: str) -> int:
        return sum(row["count"] for row in auditor.rows(**query))

    eventually(lambda: counted(action="password refused", subject=ada.uuid) == 3, 10)
    eventually(lambda: counted(action="forbidden", user=ada.uuid) == 5, 10)
    (first, *_) = auditor.rows(action="forbidden", user=ada.uuid)
    assert first["subject"] == "GET /api/v1/audit"
    # Nobody is signed in; and what was typed as an address may be anything.
    for row in auditor.rows(action="password refused", subject=ada.uuid):
        assert row["user_uuid"] is None
    for row in auditor.rows(action="password refused"):
        assert "example.com" not in str(row)


def test_a_refresh_token_that_was_used_before(ingress: Ingress, auditor: Auditor) -> None:
    ada = ingress.person()
    asked = {"refresh_token": ada.refresh_token}
    assert ingress.post("/auth/refresh", asked).status == 200
    thief = {"User-Agent": "another client"}
    for _ in range(4):
        assert ingress.post("/auth/refresh", asked, headers=thief).status == 401
    (row,) = auditor.rows(action="refresh token reused", user=ada.uuid)
    session = auditor.rows(action="registered", user=ada.uuid)[0]
    assert row["subject"] and row["address"] == session["address"]


def test_a_flood_of_the_same_refusal_is_a_few_rows(ingress: Ingress, auditor: Auditor) -> None:
    ada, before = ingress.person(), len(auditor.rows(action="forbidden"))
    for _ in range(300):
        assert ingress.get("/users", ada.token).status == 403

    def counted() -> int:
        return sum(row["count"] for row in auditor.rows(action="forbidden", user=ada.uuid))

    eventually(lambda: counted() == 300, 20)
    assert len(auditor.rows(action="forbidden")) - before < 60


def test_it_is_found_by_time_and_read_page_by_page(
    ingress: Ingress, auditor: Auditor, operator: Person
) -> None:
    ada = ingress.person()
    started = datetime.now(UTC)
    for _ in range(3):
        for step in ("freeze", "unfreeze"):
            done(ingress, f"/accounts/{ada.wallet_id}/{step}", None, operator.token)
    about = {"subject": ada.wallet_id}
    whole = auditor.rows(**about)
    assert [row["action"] for row in whole] == ["unfreeze", "freeze"] * 3
    assert auditor.rows(limit="1", **about) == whole
    assert auditor.rows(limit="2", action="freeze", **about) == whole[1::2]
    middle = whole[2]["time"]
    assert auditor.rows(since=middle, **about) == whole[:3]
    assert auditor.rows(until=middle, limit="1", **about) == whole[3:]
    assert auditor.rows(until=started.isoformat(), **about) == []
    assert auditor.rows(since="2200-01-01T00:00:00Z") == []
    for wrong in (
        "cursor=1",
        "cursor=9999999999999999-1",
        "since=yesterday",
        "action=" + "x" * 200,
    ):
        assert ingress.get(f"/audit?{wrong}", operator.token).status == 403
        refused = auditor._ingress.get(f"/audit?{wrong}", auditor._token)
        assert (refused.status, refused.code) == (422, "query_invalid")


def test_it_is_there_before_kafka_has_the_command(
    api: Api, auditor: Auditor, operator: Person, tmp_path: Path
) -> None:
    """The ingress is killed in the instant in which it has handed the command over."""
    ada = api.ingress.person()
    credit = {"entry": "credit", "amount": 700, "wallet_id": ada.wallet_id, "trans_id": "once"}
    with (
        beside(api.pipeline, tmp_path, CRASH_AT="submit.2-handed-over") as mortal,
        pytest.raises(OSError),
    ):
        mortal.post("/transactions", credit, operator.token)
    (row,) = auditor.rows(action="credit", subject=ada.wallet_id)
    assert row["user_uuid"] == operator.uuid
    again = done(api.ingress, "/transactions", credit, operator.token)
    assert row["detail"]["transaction_id"] == again["id"]


def test_what_cannot_be_written_down_is_not_sent(
    api: Api, auditor: Auditor, operator: Person
) -> None:
    ingress = api.ingress
    ada = ingress.person()
    credit = {"entry": "credit", "amount": 700, "wallet_id": ada.wallet_id}
    with psycopg.connect(api.database) as connection:
        connection.execute("LOCK TABLE ledger.audit IN ACCESS EXCLUSIVE MODE")
        refused = ingress.post("/transactions", credit, operator.token)
        assert (refused.status, refused.code) == (503, "unavailable")
        # A user's own money waits for no log.
        done(ingress, "/transactions", {"entry": "credit", "amount": 5}, ada.token)
    balance = ingress.get(f"/wallets/{ada.wallet_id}/balance", ada.token).json["balance"]
    assert balance == 5
    done(ingress, "/transactions", credit, operator.token)


def test_who_asked_is_shown_to_who_may_see_everything(
    ingress: Ingress, auditor: Auditor, operator: Person
) -> None:
    ada = ingress.person()
    credit = {"entry": "credit", "amount": 500, "wallet_id": ada.wallet_id}
    credited = done(ingress, "/transactions", credit, operator.token)
    assert credited["actor"] == operator.uuid
    own = done(ingress, "/transactions", {"entry": "credit", "amount": 5}, ada.token)
    assert own["actor"] is None
    for id, actor in ((credited["id"], operator.uuid), (own["id"], ada.uuid)):
        path = f"/transactions/{id}"
        assert ingress.get(path, operator.token).json["actor"] == actor
        assert ingress.get(path, auditor._token).json["actor"] == actor
        assert ingress.get(path, ada.token).json["actor"] is None
    for token, actors in (
        (operator.token, [ada.uuid, operator.uuid]),
        (ada.token, [None, None]),
    ):
        for path in (f"/transactions?wallet_id={ada.wallet_id}", "/transactions?limit=2"):
            seen = ingress.get(path, token).json["data"]
            assert [each["actor"] for each in seen] == actors, path
    listed = ingress.get(f"/transactions?user_id={ada.number}", operator.token).json["data"]
    assert [each["actor"] for each in listed] == [ada.uuid, operator.uuid]
