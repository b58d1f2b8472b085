"""Positions that a client keeps, status URLs and cursors, are refused if they belong to another
ledger or epoch.
"""

import base64
from typing import Any

import pytest

from ingress.auth.signing_keys import SigningKeys
from schemas.ids import EPOCH
from tests.testkit.ledger_api import PREFIX, SIGNING_KEY, Answer, Api, Ingress, Person

OTHERS = {"epoch": "position_of_another_epoch", "ledger": "position_of_another_ledger"}


def other(text: str, what: str, ledger: str) -> str:
    """The same position, of another ledger or epoch."""
    assert text.count(f"{ledger}:{EPOCH}") == 1, text
    into = f"{ledger}:{EPOCH + 1}" if what == "epoch" else f"{ledger}2:{EPOCH}"
    return text.replace(f"{ledger}:{EPOCH}", into)


@pytest.fixture
def ledger(ingress: Ingress) -> str:
    return str(ingress.get("/health", prefix="").json["ledger"])


def refused(answer: Answer, what: str) -> None:
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.code, answer.status) == (OTHERS[what], 410 if what == "epoch" else 422)


@pytest.mark.parametrize("what", OTHERS)
def test_a_status_url_of_another_ledger_or_epoch_is_refused(
    ingress: Ingress, ledger: str, what: str
) -> None:
    ada = ingress.person()
    credit = {"entry": "credit", "amount": 100}
    answer = ingress.post("/transactions", credit, ada.token, headers={"Prefer": "respond-async"})
    id, path = answer.json["id"], answer.json["location"].removeprefix(PREFIX)
    polled = ingress.get(f"{path}&wait=20", ada.token)
    assert polled.json["status"] == "posted", polled
    moved = other(path, what, ledger)
    refused(ingress.get(moved, ada.token), what)
    # Also with a valid signature, as after a restore, or if ledgers share the key.
    place = moved.split("position=")[1].split("&")[0]
    mac = SigningKeys([SIGNING_KEY.encode()]).mac(
        "command location", f"{ada.uuid}|{id}|{place}".encode()
    )
    signature = base64.urlsafe_b64encode(mac).decode().rstrip("=")
    refused(ingress.get(f"/commands/{id}?position={place}&signature={signature}", ada.token), what)
    # A URL that was signed without ledger and epoch is unknown.
    bare = place.split(":", 2)[2]
    mac = SigningKeys([SIGNING_KEY.encode()]).mac(
        "command location", f"{ada.uuid}|{id}|{bare}".encode()
    )
    signature = base64.urlsafe_b64encode(mac).decode().rstrip("=")
    for query in (f"position={bare}&signature={signature}", f"signature={signature}"):
        assert ingress.get(f"/commands/{id}?{query}", ada.token).status in (404, 422)


LISTS = (
    "/transactions?limit=1",
    "/transactions?limit=1&kind=credit",
    "/accounts?limit=1",
    "/holds?limit=1",
    "/users?limit=1",
    "/audit?limit=1",
    "/accounts/{wallet}/entries?limit=1",
    "/wallets/{wallet}/statement?limit=1",
)


@pytest.fixture(scope="module")
def people(api: Api) -> dict[str, Person]:
    ingress = api.ingress
    admin, ada = ingress.admin(), ingress.person()
    for body in ({"entry": "credit", "amount": 100}, {"entry": "credit", "amount": 200}):
        assert ingress.post("/transactions", body, ada.token).status == 201
    for _ in range(2):
        assert ingress.post("/holds", {"amount": 1}, ada.token).status == 201
    operator = ingress.becomes(ingress.person(), "operator", admin)
    return {"admin": admin, "operator": operator, "ada": ada}


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_of_another_ledger_or_epoch_is_refused(
    ingress: Ingress, ledger: str, people: dict[str, Person], path: str
) -> None:
    reader = people["admin" if path.startswith(("/users", "/audit")) else "operator"]
    path = path.format(wallet=people["ada"].wallet_id)
    first: dict[str, Any] = ingress.get(path, reader.token).json
    cursor = first["meta"]["next_cursor"]
    second = ingress.get(f"{path}&cursor={cursor}", reader.token)
    assert second.status == 200, second
    assert second.json["data"] != first["data"]
    for what in OTHERS:
        refused(ingress.get(f"{path}&cursor={other(cursor, what, ledger)}", reader.token), what)
    inner = cursor.split(":", 2)[2]
    for text in (inner, f"{ledger}:{EPOCH}", f"{ledger}:0:{inner}", f"{ledger}::{inner}", "x:1:y:"):
        wrong = ingress.get(f"{path}&cursor={text}", reader.token)
        assert wrong.code in ("query_invalid", "position_of_another_ledger"), (text, wrong)
