"""What each side of a transaction keeps to itself: idempotency keys and notes."""

from typing import Any

import pytest

from ingress.http.roles import UserRole
from tests.testkit.ledger_api import PASSWORD, Api, Ingress, Person
from tests.testkit.waiting import eventually

PRIVATE = {"metadata": {"margin": "12"}, "reference": "internal 17"}


@pytest.fixture(scope="module")
def operator(api: Api) -> Person:
    return api.ingress.becomes(api.ingress.person(), UserRole.OPERATOR, api.ingress.admin())


@pytest.fixture
def ada(ingress: Ingress) -> Person:
    return _rich(ingress)


@pytest.fixture
def ben(ingress: Ingress) -> Person:
    return ingress.person()


def _rich(ingress: Ingress) -> Person:
    person = ingress.person()
    answer = ingress.post("/transactions", {"entry": "credit", "amount": 9_000}, person.token)
    assert answer.status == 201, answer
    return person


def test_a_user_cannot_occupy_an_operators_key(
    ingress: Ingress, operator: Person, ada: Person
) -> None:
    own = {"entry": "debit", "amount": 1, "trans_id": "fee-2026-01"}
    first = ingress.post("/transactions", own, ada.token)
    fee = {**own, "amount": 500, "wallet_id": ada.wallet_id}
    taken = ingress.post("/transactions", fee, operator.token)
    assert (first.status, taken.status) == (201, 201), taken
    assert first.json["id"] != taken.json["id"]
    assert {first.json["trans_id"], taken.json["trans_id"]} == {"fee-2026-01"}
    # Each repeat gets its own transaction, never a conflict with the other's.
    for request_body, token, seen in ((own, ada.token, first), (fee, operator.token, taken)):
        again = ingress.post("/transactions", request_body, token)
        assert (again.status, again.json["id"]) == (201, seen.json["id"])
        assert again.headers["Idempotent-Replayed"] == "true"
    assert ingress.get("/wallet", ada.token).json["wallet"]["balance"] == 9_000 - 501


def test_an_operator_does_not_occupy_a_users_key(
    ingress: Ingress, operator: Person, ada: Person
) -> None:
    request_body = {"amount": 2, "trans_id": "shared", "wallet_id": ada.wallet_id}
    kept = ingress.post("/holds", request_body, operator.token)
    own = ingress.post("/holds", {**request_body, "amount": 3}, ada.token)
    assert (kept.status, own.status) == (201, 201), own
    # The owner of the wallet may void an operator's hold, with an own key.
    for seen in (kept, own):
        step = f"/holds/{seen.json['id']}/void"
        answer = ingress.post(step, {"trans_id": f"void {seen.json['id']}"}, ada.token)
        assert answer.status == 201, answer


@pytest.mark.parametrize("key", ["k" * 200, "user:é 😀" * 20, "~"])
def test_a_users_key_may_be_any_text(ingress: Ingress, ada: Person, key: str) -> None:
    request_body = {"entry": "debit", "amount": 1, "trans_id": key}
    accepted = ingress.post(
        "/transactions", request_body, ada.token, headers={"Prefer": "respond-async"}
    )
    assert (accepted.status, accepted.json["trans_id"]) == (202, key)
    polled = ingress.get(f"{accepted.headers['Location']}&wait=20", ada.token, prefix="")
    assert (polled.json["status"], polled.json["transaction"]["trans_id"]) == ("posted", key)
    seen = ingress.get(f"/transactions/{accepted.json['id']}", ada.token)
    assert seen.json["trans_id"] == key
    again = ingress.post("/transactions", request_body, ada.token)
    assert (again.status, again.json["id"]) == (201, accepted.json["id"])


def test_a_receiver_does_not_see_the_senders_notes(
    ingress: Ingress, operator: Person, ada: Person, ben: Person
) -> None:
    request_body = {
        **PRIVATE,
        "receiver_id": ben.number,
        "amount": 1_000,
        "description": "for lunch",
    }
    sent = ingress.post("/transactions", {**request_body, "trans_id": "mine"}, ada.token).json
    assert sent["fee"] == 15
    for seen in _seen_everywhere(ingress, ben, sent["id"]):
        assert seen["description"] == "for lunch"
        assert (seen["amount"], seen["entry"]) == (1_000, "credit")
        assert (seen["metadata"], seen["reference"], seen["trans_id"]) == ({}, None, None)
        assert (seen["fee"], seen["fee_decimal"], seen["total"]) == (0, "0.00", 1_000)
        assert seen["entries"] == [
            {
                "account_id": ben.wallet_id,
                "direction": "credit",
                "amount": 1_000,
                "amount_decimal": "10.00",
            }
        ]
        assert "1015" not in str(seen) and "10.15" not in str(seen)
    for seen in (*_seen_everywhere(ingress, ada, sent["id"]), _one(ingress, operator, sent["id"])):
        assert {name: seen[name] for name in PRIVATE} == PRIVATE
        assert (seen["fee"], len(seen["entries"])) == (15, 3)
    [item] = ingress.get("/api/transactions", ben.token, prefix="").json["data"]["transactions"][
        "data"
    ]
    assert (item["metadata"], item["commission_fee"]) == ({}, "0.00")


def test_a_receiver_does_not_find_by_the_senders_reference(
    ingress: Ingress, operator: Person, ada: Person, ben: Person
) -> None:
    request_body = {**PRIVATE, "receiver_id": ben.number, "amount": 10}
    id = ingress.post("/transactions", request_body, ada.token).json["id"]
    ingress.post("/transactions", {**PRIVATE, "entry": "debit", "amount": 10}, ben.token)

    def found(token: str, wallet: str, also: str = "") -> list[str]:
        query = f"/transactions?reference=internal+17&wallet_id={wallet}{also}"
        answer = ingress.get(query, token)
        assert answer.status == 200, answer
        return [item["id"] for item in answer.json["data"]]

    assert found(ada.token, ada.wallet_id) == [id]
    assert id not in found(ben.token, ben.wallet_id)
    assert id not in [
        item["id"]
        for item in ingress.get("/transactions?reference=internal+17", ben.token).json["data"]
    ]
    eventually(lambda: id in found(operator.token, ben.wallet_id), 20)
    assert id not in found(ben.token, ben.wallet_id)


def test_users_do_not_see_the_notes_of_a_capture_or_post(
    ingress: Ingress, operator: Person, ada: Person, ben: Person
) -> None:
    hold = ingress.post("/holds", {"amount": 50, "wallet_id": ada.wallet_id}, operator.token).json
    request_body: dict[str, Any] = {**PRIVATE, "to_wallet_id": ben.wallet_id}
    captured = ingress.post(f"/holds/{hold['id']}/capture", request_body, operator.token).json
    entries = [
        {"account_id": account, "direction": direction, "amount": 5}
        for account, direction in ((ada.wallet_id, "debit"), (ben.wallet_id, "credit"))
    ]
    request_body = {**PRIVATE, "currency": "NGN", "entries": entries}
    posted = ingress.post("/transactions", request_body, operator.token).json
    for person, id in ((ben, captured["id"]), (ben, posted["id"]), (ada, posted["id"])):
        for seen in _seen_everywhere(ingress, person, id):
            assert (seen["metadata"], seen["reference"]) == ({}, None)
            assert [line["account_id"] for line in seen["entries"]] == [person.wallet_id]
    for id in (captured["id"], posted["id"]):
        seen = _one(ingress, operator, id)
        assert {name: seen[name] for name in PRIVATE} == PRIVATE


def test_an_owner_does_not_see_an_operators_notes(
    ingress: Ingress, operator: Person, ada: Person, ben: Person
) -> None:
    note: dict[str, Any] = {"metadata": {"case": "F-1"}, "reference": f"fraud case {ada.number}"}
    own: dict[str, Any] = {"metadata": {"for": "rent"}, "reference": f"rent {ada.number}"}
    wallet = {**note, "wallet_id": ada.wallet_id}
    transfer = ingress.post(
        "/transactions", {**own, "receiver_id": ben.number, "amount": 10}, ada.token
    ).json
    hold = ingress.post("/holds", {"amount": 50, "wallet_id": ada.wallet_id}, operator.token).json
    sent = [
        ingress.post(path, {**body, "trans_id": f"case {number}"}, operator.token)
        for number, (path, body) in enumerate(
            (
                ("/transactions", {**wallet, "entry": "credit", "amount": 30}),
                ("/transactions", {**wallet, "entry": "debit", "amount": 20}),
                (f"/holds/{hold['id']}/capture", note),
                (f"/transactions/{transfer['id']}/reverse", note),
            )
        )
    ]
    rejected = ingress.post(
        "/transactions", {**wallet, "entry": "debit", "amount": 10**9}, operator.token
    )
    assert [answer.status for answer in (*sent, rejected)] == [201] * 4 + [422], sent
    for answer in sent:
        for seen in _seen_everywhere(ingress, ada, answer.json["id"]):
            assert (seen["metadata"], seen["reference"], seen["trans_id"]) == ({}, None, None)
        seen = _one(ingress, operator, answer.json["id"])
        assert {name: seen[name] for name in note} == note
    for seen in _seen_everywhere(ingress, ada, transfer["id"]):
        assert {name: seen[name] for name in own} == own

    # The reference is not found by searching for it, either.
    def found(reference: str, more: str = "") -> list[str]:
        query = f"/transactions?reference={reference.replace(' ', '+')}{more}"
        answer = ingress.get(query, ada.token)
        assert answer.status == 200, answer
        return [item["id"] for item in answer.json["data"]]

    for more in ("", f"&wallet_id={ada.wallet_id}", "&status=rejected"):
        assert found(note["reference"], more) == [], more
    assert found(own["reference"]) == [transfer["id"]]
    [item] = ingress.get("/transactions?status=rejected", ada.token).json["data"]
    assert (item["metadata"], item["reference"]) == ({}, None)
    old_items = ingress.get("/api/transactions", ada.token, prefix="").json["data"]
    metadata = [item["metadata"] for item in old_items["transactions"]["data"]]
    assert note["metadata"] not in metadata and own["metadata"] in metadata


def test_a_user_sees_the_notes_of_their_api_key(ingress: Ingress, ada: Person) -> None:
    body = {"name": "shop", "scopes": ["money"], "current_password": PASSWORD}
    key = ingress.post("/api-keys", body, ada.token)
    assert key.status == 201, key
    sent = {**PRIVATE, "entry": "debit", "amount": 5, "trans_id": "by key"}
    id = ingress.post("/transactions", sent, key.json["key"]).json["id"]
    for seen in _seen_everywhere(ingress, ada, id):
        assert {name: seen[name] for name in PRIVATE} == PRIVATE
        assert seen["trans_id"] == "by key"


def _one(ingress: Ingress, person: Person, id: str) -> dict[str, Any]:
    answer = ingress.get(f"/transactions/{id}", person.token)
    assert answer.status == 200, answer
    seen: dict[str, Any] = answer.json
    return seen


def _seen_everywhere(ingress: Ingress, person: Person, id: str) -> list[dict[str, Any]]:
    """The transaction in every response that shows it to this person, except the older app's.
    The receiver's partition may come a moment later."""

    def listed(path: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def there() -> bool:
            data = ingress.get(path, person.token).json["data"]
            found[:] = [item for item in data if item["id"] == id]
            return bool(found)

        try:
            eventually(there, 20)
        except AssertionError:
            raise AssertionError(
                f"{id} is not in {path}: {ingress.get(path, person.token)}"
            ) from None
        return found[0]

    wallet = person.wallet_id
    return [
        listed(f"/wallets/{wallet}/statement"),
        listed("/transactions"),
        listed(f"/transactions?wallet_id={wallet}"),
        _one(ingress, person, id),
        ingress.get(f"/commands/{id}", person.token).json["transaction"],
    ]
