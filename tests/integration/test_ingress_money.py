"""Money over HTTP: every shape of a transaction is decided, answered, and answered the same
again."""

from collections import Counter
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.testkit import api_clients
from tests.testkit.api_clients import Client, Reply
from tests.testkit.ledger_api import PASSWORD, PREFIX, Answer, Api, Ingress, Person
from tests.testkit.programs import KILLED
from tests.testkit.waiting import eventually


@pytest.fixture
def ada(ingress: Ingress) -> Person:
    """She has 1,000.00 in her wallet."""
    person = ingress.person()
    credited(ingress, person, 100_000)
    return person


@pytest.fixture
def ben(ingress: Ingress) -> Person:
    return ingress.person()


def credited(ingress: Ingress, person: Person, amount: int) -> dict[str, Any]:
    answer = ingress.post("/transactions", {"entry": "credit", "amount": amount}, person.token)
    assert answer.status == 201, answer
    response: dict[str, Any] = answer.json
    return response


def send_at_once(ingress: Ingress, *senders: Client) -> list[Reply]:
    """All replies; each sender is its own process."""
    response = api_clients.send_at_once(ingress.port, f"{PREFIX}/transactions", senders)
    return [answer for answers in response for answer in answers]


def test_a_credit_is_answered_when_it_is_decided(ingress: Ingress, ben: Person) -> None:
    request_body = {
        "entry": "credit",
        "amount": "12.50",
        "trans_id": "first",
        "metadata": {"a": "b"},
    }
    answer = ingress.post("/transactions", request_body, ben.token)
    assert answer.status == 201, answer
    response = answer.json
    wanted = {
        "kind": "credit",
        "status": "posted",
        "wallet_id": ben.wallet_id,
        "trans_id": "first",
        "receiver_id": ben.number,
        "sender_id": None,
        "entry": "credit",
        "amount": 1250,
        "amount_decimal": "12.50",
        "total": 1250,
        "currency": "NGN",
        "balance": 1250,
        "balance_decimal": "12.50",
        "metadata": {"a": "b"},
    }
    assert {name: response[name] for name in wanted} == wanted
    again = ingress.post("/transactions", request_body, ben.token)
    assert (again.status, again.json) == (201, response)
    assert again.headers["Idempotent-Replayed"] == "true"
    other = ingress.post("/transactions", {**request_body, "amount": 7}, ben.token)
    assert (other.status, other.code) == (409, "idempotency_key_reused")


def test_a_transfer_moves_money_and_takes_commission(
    ingress: Ingress, ada: Person, ben: Person
) -> None:
    request_body = {"receiver_id": ben.number, "amount": 10_000, "trans_id": "t"}
    answer = ingress.post("/transactions", request_body, ada.token)
    assert answer.status == 201, answer
    response = answer.json
    assert (response["amount"], response["fee"], response["total"]) == (10_000, 150, 10_150)
    assert response["balance"] == 100_000 - 10_150
    assert (response["sender_id"], response["receiver_id"]) == (ada.number, ben.number)
    again = ingress.post("/transactions", request_body, ada.token)
    assert (again.status, again.json) == (201, response)


def test_one_key_from_fifty_clients_is_one_transaction(ingress: Ingress, ben: Person) -> None:
    request_body = {"entry": "credit", "amount": 100, "trans_id": "the same"}
    answers = send_at_once(ingress, *(50 * [Client(ben.token, [request_body])]))
    assert Counter(answer.status for answer in answers) == {201: 50}, answers
    assert len({answer.text for answer in answers}) == 1
    assert sum(answer.replayed for answer in answers) == 49
    assert ingress.get("/transactions", ben.token).json["meta"]["total"] == 1
    assert ingress.get("/wallet", ben.token).json["wallet"]["balance"] == 100


def test_debits_take_a_wallet_down_to_exactly_zero(ingress: Ingress, ben: Person) -> None:
    credited(ingress, ben, 100)
    request_body = {"entry": "debit", "amount": 5}
    answers = send_at_once(ingress, *(6 * [Client(ben.token, 5 * [request_body])]))
    assert Counter(answer.status for answer in answers) == {201: 20, 422: 10}, answers
    refused = [answer.json for answer in answers if answer.status == 422]
    assert {item["code"] for item in refused} == {"insufficient_funds"}
    left = sorted(answer.json["balance"] for answer in answers if answer.status == 201)
    assert left == list(range(0, 100, 5))
    assert ingress.get("/wallet", ben.token).json["wallet"]["balance"] == 0
    # A rejection is as final as a posting.
    first = {"entry": "debit", "amount": 5, "trans_id": "late"}
    assert ingress.post("/transactions", first, ben.token).status == 422
    credited(ingress, ben, 100)
    again = ingress.post("/transactions", first, ben.token)
    assert (again.status, again.code) == (422, "insufficient_funds")
    assert again.headers["Idempotent-Replayed"] == "true"


def test_many_senders_pay_one_receiver(ingress: Ingress, ben: Person) -> None:
    senders = [ingress.person() for _ in range(8)]
    for sender in senders:
        credited(ingress, sender, 5 * 203)
    request_body = {"receiver_id": ben.number, "amount": 200}
    answers = send_at_once(
        ingress, *(Client(sender.token, 6 * [request_body]) for sender in senders)
    )
    assert Counter(answer.status for answer in answers) == {201: 40, 422: 8}, answers

    def received() -> bool:
        return bool(ingress.get("/wallet", ben.token).json["wallet"]["balance"] == 40 * 200)

    eventually(received, 30)
    for sender in senders:
        assert ingress.get("/wallet", sender.token).json["wallet"]["balance"] == 0


def test_an_async_submission_is_polled_at_its_location(
    ingress: Ingress, ada: Person, ben: Person
) -> None:
    request_body = {"entry": "credit", "amount": 100, "trans_id": "later"}
    answer = ingress.post(
        "/transactions", request_body, ada.token, headers={"Prefer": "respond-async"}
    )
    assert answer.status == 202, answer
    response = answer.json
    assert answer.headers["Location"] == response["location"]
    path = response["location"].removeprefix("/api/v1")
    polled = ingress.get(f"{path}&wait=20", ada.token)
    assert (polled.status, polled.json["status"]) == (200, "posted"), polled
    id = response["id"]
    assert polled.json["transaction"] == ingress.get(f"/transactions/{id}", ada.token).json
    assert ingress.get(f"/commands/{id}", ada.token).json["status"] == "posted"
    # Another user's URL, an altered one and an unknown id look missing.
    unknown = "00000000-0000-5000-8000-000000000000"
    for where, token in (
        (path, ben.token),
        (f"/commands/{id}", ben.token),
        (path.replace("&signature=", "1&signature="), ada.token),
        (path.replace(id, unknown), ada.token),
        (f"/commands/{unknown}", ada.token),
    ):
        refused = ingress.get(where, token)
        assert (refused.status, refused.code) == (404, "not_decided_or_unknown"), where
    rejected = ingress.post(
        "/transactions",
        {"entry": "debit", "amount": "99999.00"},
        ada.token,
        headers={"Prefer": "respond-async"},
    )
    path = rejected.json["location"].removeprefix("/api/v1")
    polled = ingress.get(f"{path}&wait=20", ada.token)
    assert polled.json["status"] == "rejected", polled
    assert polled.json["problem"]["code"] == "insufficient_funds"


def test_lists_show_the_history_of_a_wallet(ingress: Ingress, ada: Person, ben: Person) -> None:
    sent = ingress.post("/transactions", {"receiver_email": ben.email, "amount": 200}, ada.token)
    assert sent.status == 201, sent
    for _ in range(3):
        credited(ingress, ben, 10)

    def received() -> bool:
        return bool(ingress.get("/transactions", ben.token).json["meta"]["total"] == 4)

    eventually(received, 30)
    first = ingress.get("/transactions?page=1&limit=3", ben.token).json
    second = ingress.get(f"/transactions?limit=3&cursor={first['meta']['next_cursor']}", ben.token)
    response = [*first["data"], *second.json["data"]]
    assert [item["total"] for item in response if item["kind"] == "credit"] == [10, 10, 10]
    transfer = next(item for item in response if item["kind"] == "transfer")
    wanted = (sent.json["id"], "credit", 200, 0, ada.number, ben.number, ada.wallet_id)
    names = ("id", "entry", "amount", "fee", "sender_id", "receiver_id", "counterparty")
    assert tuple(transfer[name] for name in names) == wanted
    shown_again = ingress.get(f"/transactions/{sent.json['id']}", ada.token)
    assert shown_again.json == sent.json
    tag = {"If-None-Match": shown_again.headers["ETag"]}
    assert ingress.get(f"/transactions/{sent.json['id']}", ada.token, headers=tag).status == 304
    stranger = ingress.person()
    assert ingress.get(f"/transactions/{sent.json['id']}", stranger.token).status == 404
    assert ingress.get(f"/transactions?wallet_id={ben.wallet_id}", ada.token).status == 404
    statement = ingress.get(f"/wallets/{ben.wallet_id}/statement", ben.token).json
    assert (statement["opening_balance"], statement["closing_balance"]) == (0, 230)


@pytest.mark.parametrize(
    ("request_body", "status", "code"),
    [
        ({"entry": "credit", "amount": 1.5}, 422, "amount_invalid"),
        ({"entry": "credit", "amount": "1.505"}, 422, "amount_invalid"),
        ({"entry": "credit", "amount": True}, 422, "amount_invalid"),
        ({"entry": "credit", "amount": 0}, 422, "amount_invalid"),
        ({"entry": "gift", "amount": 1}, 422, "fields_invalid"),
        ({"entry": "credit", "amount": 1, "more": 1}, 422, "unknown_field"),
        ({"receiver_id": 10**9, "amount": 1}, 404, "account_not_found"),
        ({"receiver_id": 1, "receiver_email": "a@example.com", "amount": 1}, 422, "fields_invalid"),
        ({"currency": "NGN", "entries": [{}]}, 422, "fields_invalid"),
        ({"entry": "credit", "amount": 1, "wallet_id": "nobodys"}, 404, "account_not_found"),
    ],
)
def test_an_invalid_request_writes_nothing(
    ingress: Ingress, ada: Person, request_body: dict[str, Any], status: int, code: str
) -> None:
    answer = ingress.post("/transactions", request_body, ada.token)
    assert (answer.status, answer.code) == (status, code), answer
    assert ingress.get("/wallet", ada.token).json["wallet"]["version"] == 1


def test_a_user_cannot_use_anothers_wallet(ingress: Ingress, ada: Person, ben: Person) -> None:
    for request_body in (
        {"entry": "debit", "amount": 1, "wallet_id": ada.wallet_id},
        {"receiver_id": ben.number, "amount": 1, "wallet_id": ada.wallet_id},
    ):
        assert ingress.post("/transactions", request_body, ben.token).status == 404
    own = ingress.post("/transactions", {"receiver_id": ada.number, "amount": 1}, ada.token)
    assert (own.status, own.code) == (422, "self_transfer")
    keys = ingress.post(
        "/transactions",
        {"entry": "debit", "amount": 1, "trans_id": "a"},
        ada.token,
        headers={"Idempotency-Key": "b"},
    )
    assert (keys.status, keys.code) == (422, "key_and_trans_id_differ")
    assert ingress.get("/wallet", ada.token).json["wallet"]["balance"] == 100_000


def test_validate_only_answers_what_the_ledger_would_decide(
    ingress: Ingress, ada: Person, ben: Person
) -> None:
    operator = ingress.becomes(ingress.person(), "operator", ingress.admin()).token
    dollars = ingress.post("/wallets", {"currency": "USD"}, ben.token).json["id"]
    cold = ingress.post("/wallets", {}, ben.token).json["id"]
    assert ingress.post(f"/accounts/{cold}/freeze", None, operator).status == 200

    def checked(request_body: dict[str, Any], token: str = ada.token) -> tuple[int, str | None]:
        response = ingress.post("/transactions?validate_only=true", request_body, token)
        return response.status, None if response.status == 204 else response.code

    def post(*entries: tuple[str, str]) -> dict[str, Any]:
        lines = [{"account_id": id, "direction": side, "amount": 10} for id, side in entries]
        return {"currency": "NGN", "entries": lines}

    debit, to = {"entry": "debit", "amount": 1}, {"receiver_id": ben.uuid}
    for request_body, response in (
        (debit, (204, None)),
        ({**debit, "amount": 100_001}, (422, "insufficient_funds")),
        ({**debit, "conditions": {"expected_version": 1}}, (204, None)),
        ({**debit, "conditions": {"expected_version": 7}}, (409, "condition_failed")),
        ({**debit, "conditions": {"min_available_after": 99_999}}, (204, None)),
        ({**debit, "conditions": {"min_available_after": 100_000}}, (409, "condition_failed")),
        ({**to, "amount": 5}, (204, None)),
        ({**to, "amount": 100_001}, (422, "insufficient_funds")),
        ({"receiver_wallet_id": dollars, "amount": 5}, (422, "currency_mismatch")),
        ({"receiver_wallet_id": cold, "amount": 5}, (409, "account_frozen")),
        ({"entry": "credit", "amount": 2**53 - 1}, (422, "balance_overflow")),
    ):
        assert checked(request_body) == response, request_body
    funding = "system:funding:NGN"
    for request_body, response in (
        (post((funding, "debit"), (ben.wallet_id, "credit")), (204, None)),
        (post((ben.wallet_id, "debit"), (funding, "credit")), (422, "insufficient_funds")),
        (post((funding, "debit"), ("nobodys", "credit")), (404, "account_not_found")),
        (post(("system:transit:NGN", "debit"), (funding, "credit")), (403, "system_account")),
        (post((funding, "debit"), (ben.wallet_id, "debit")), (422, "unbalanced")),
    ):
        assert checked(request_body, operator) == response, request_body
    assert ingress.get("/wallet", ada.token).json["wallet"]["version"] == 1


def test_rejected_transactions_are_listed_by_status(
    ingress: Ingress, ada: Person, ben: Person
) -> None:
    operator = ingress.becomes(ingress.person(), "operator", ingress.admin()).token
    other = ingress.post("/wallets", {}, ada.token).json["id"]
    refused = [
        ingress.post("/transactions", {"entry": "debit", "amount": 10**9, **where}, ada.token)
        for where in ({}, {"wallet_id": other})
    ]
    ids = [response.json["transaction_id"] for response in refused]

    def listed(query: str, token: str) -> list[str]:
        data = ingress.get(f"/transactions?status=rejected{query}", token).json["data"]
        assert {(item["status"], item["reason"]) for item in data} <= {
            ("rejected", "insufficient_funds")
        }
        return [item["id"] for item in data]

    assert listed("", ada.token) == ids[::-1]
    assert listed(f"&wallet_id={other}", ada.token) == ids[1:]
    assert listed(f"&user_id={ada.uuid}", operator) == ids[::-1]
    assert listed("&limit=2", operator) == ids[::-1]
    assert (listed("", ben.token), listed("&kind=transfer", ada.token)) == ([], [])
    for query, token in (("entry=debit", operator), ("entry=debit&status=pending", ada.token)):
        response = ingress.get(f"/transactions?{query}", token)
        assert (response.status, response.code) == (422, "query_invalid")


def test_a_capture_without_amount_takes_the_whole_hold(ingress: Ingress, ada: Person) -> None:
    hold = ingress.post("/holds", {"amount": 700}, ada.token).json["id"]
    captured = ingress.post(f"/holds/{hold}/capture", None, ada.token)
    assert (captured.status, captured.json["amount"]) == (201, 700), captured


def test_a_transfer_between_own_wallets_has_no_commission(ingress: Ingress, ada: Person) -> None:
    opened = ingress.post("/wallets", {}, ada.token)
    assert (opened.status, opened.json["status"]) == (201, "open"), opened
    request_body = {"receiver_wallet_id": opened.json["id"], "amount": "100.00"}
    moved = ingress.post("/transactions", request_body, ada.token)
    assert (moved.status, moved.json["fee"]) == (201, 0), moved
    assert len(ingress.get("/wallets", ada.token).json["data"]) == 2


def test_a_users_lists_cover_all_their_wallets(ingress: Ingress, ada: Person, ben: Person) -> None:
    operator = ingress.becomes(ingress.person(), "operator", ingress.admin())
    other = ingress.post("/wallets", {}, ada.token).json["id"]
    moved = ingress.post(
        "/transactions", {"receiver_wallet_id": other, "amount": 700}, ada.token
    ).json["id"]

    def ids(path: str, token: str = ada.token) -> list[str]:
        return [item["id"] for item in ingress.get(path, token).json["data"]]

    def arrived() -> bool:
        wallet = ingress.get(f"/wallets/{other}", ada.token).json
        return bool(wallet["balance"] == 700)

    eventually(arrived, 30)
    spent = ingress.post(
        "/transactions", {"entry": "debit", "amount": 50, "wallet_id": other}, ada.token
    ).json["id"]
    # The transfer between the two wallets is listed once, from the sender's side.
    listed = ingress.get("/transactions", ada.token).json
    first, second, third = listed["data"]
    assert [first["id"], second["id"], third["kind"]] == [spent, moved, "credit"]
    assert (first["wallet_id"], first["balance"]) == (other, 650)
    assert (second["wallet_id"], second["entry"]) == (ada.wallet_id, "debit")
    walked, path = [], "/transactions?limit=1"
    while path:
        page = ingress.get(path, ada.token).json
        walked += page["data"]
        cursor = page["meta"]["next_cursor"]
        path = f"/transactions?limit=1&cursor={cursor}" if cursor else ""
    assert walked == listed["data"]
    assert ids("/transactions?limit=1&page=2") == [moved]
    assert ids("/transactions?kind=debit") == [spent]
    assert ids("/transactions?entry=credit") == [third["id"]]
    since = second["created_at"].replace("+", "%2B")
    assert ids(f"/transactions?since={since}") == [spent, moved]
    assert ids(f"/transactions?until={since}") == [third["id"]]
    assert ids(f"/transactions?wallet_id={other}") == [spent, moved]
    for user in (ada.number, ada.uuid):
        assert ids(f"/transactions?user_id={user}", operator.token) == [spent, moved, third["id"]]
    assert ingress.get(f"/transactions?user_id={ada.number}", ben.token).status == 404
    assert ids("/transactions", ben.token) == []

    holds = [
        ingress.post("/holds", {"amount": 1, "wallet_id": wallet}, ada.token).json["id"]
        for wallet in (other, ada.wallet_id)
    ]
    holds.reverse()
    assert ids("/holds") == holds
    assert ids(f"/holds?account_id={other}") == holds[1:]
    assert ids(f"/holds?user_id={ada.number}", operator.token) == holds
    assert ids("/holds?limit=2&status=open", operator.token) == holds
    assert ids("/holds", ben.token) == []
    assert ingress.get(f"/holds?user_id={ada.number}", ben.token).status == 404


def test_holds_are_captured_or_voided(ingress: Ingress, ada: Person) -> None:
    held = ingress.post("/holds", {"amount": 5_000, "trans_id": "h"}, ada.token)
    assert held.status == 201, held
    wallet = ingress.get("/wallet", ada.token).json["wallet"]
    assert (wallet["held"], wallet["available"]) == (5_000, 95_000)
    id = held.json["id"]
    taken = ingress.post(f"/holds/{id}/capture", {"amount": 2_000}, ada.token)
    assert (taken.status, taken.json["amount"]) == (201, 2_000), taken
    assert ingress.get(f"/holds/{id}", ada.token).json["status"] == "captured"
    again = ingress.post(f"/holds/{id}/void", None, ada.token)
    assert (again.status, again.code) == (409, "hold_closed")
    replay = ingress.post("/holds", {"amount": 5_000, "trans_id": "h"}, ada.token)
    assert (replay.status, replay.json) == (201, held.json)
    wallet = ingress.get("/wallet", ada.token).json["wallet"]
    assert (wallet["held"], wallet["balance"]) == (0, 98_000)
    listed = ingress.get("/holds?status=captured", ada.token).json["data"]
    assert [item["id"] for item in listed] == [id]


def test_operators_open_post_reverse_and_freeze(ingress: Ingress, ada: Person) -> None:
    operator = ingress.becomes(ingress.person(), "operator", ingress.admin())
    token = operator.token
    request_body = {"name": "Rent", "account_type": "expense", "limit": None}
    opened = ingress.post("/accounts", request_body, token, headers={"Idempotency-Key": "rent"})
    assert (opened.status, opened.json["name"]) == (201, "Rent"), opened
    rent = opened.json["id"]
    entries = [
        {"account_id": rent, "direction": "debit", "amount": "30.00"},
        {"account_id": ada.wallet_id, "direction": "credit", "amount": 3_000},
    ]
    posting = {"currency": "NGN", "entries": entries, "idempotency_key": "p"}
    created = ingress.post("/transactions", posting, token)
    assert created.status == 201, created
    assert [item["amount"] for item in created.json["entries"]] == [3_000, 3_000]
    again = ingress.post("/transactions", posting, token)
    assert again.json == created.json
    assert ingress.post("/transactions", posting, ada.token).status == 403
    unbalanced = {**posting, "entries": [entries[0], {**entries[1], "amount": 1}]}
    refused = ingress.post("/transactions", {**unbalanced, "idempotency_key": "q"}, token)
    assert (refused.status, refused.code) == (422, "unbalanced")
    undone = ingress.post(f"/transactions/{created.json['id']}/reverse", None, token)
    assert (undone.status, undone.json["reverses"]) == (201, created.json["id"]), undone
    twice = ingress.post(f"/transactions/{created.json['id']}/reverse", None, token)
    assert (twice.status, twice.code) == (409, "already_reversed")
    frozen = ingress.post(f"/accounts/{rent}/freeze", None, token)
    assert (frozen.status, frozen.json["status"]) == (200, "frozen"), frozen
    closed = ingress.post(f"/accounts/{rent}/close", None, token)
    assert (closed.status, closed.json["status"]) == (200, "closed"), closed
    limited = ingress.call("PATCH", f"/accounts/{ada.wallet_id}", {"limit": -(2**50)}, token)
    assert (limited.status, limited.json["code"]) == (422, "limit_out_of_bounds"), limited
    lines = ingress.get("/trial-balance?currency=NGN", token).json["data"]
    assert sum(int(item["debit"]) - int(item["credit"]) for item in lines) == 0
    listed = ingress.get(f"/accounts?user_id={ada.number}", token).json["data"]
    assert [item["id"] for item in listed] == [ada.wallet_id]
    everything = ingress.get("/transactions?kind=reverse&status=posted&limit=1", token).json
    assert everything["data"][0]["id"] == undone.json["id"]


def test_an_account_change_is_all_or_nothing(ingress: Ingress, ben: Person) -> None:
    token = ingress.becomes(ingress.person(), "operator", ingress.admin()).token
    request_body = {
        "name": "Rent",
        "account_type": "expense",
        "metadata": {"team": "a", "floor": "2"},
    }
    path = f"/accounts/{ingress.post('/accounts', request_body, token).json['id']}"

    def change(body: Any, **headers: str) -> Answer:
        return ingress.call("PATCH", path, body, token, headers=headers)

    both = {"name": "Rent and heat", "limit": -500, "metadata": {"team": "b", "floor": None}}
    changed = change(both, **{"Idempotency-Key": "both", "If-Match": '"0"'})
    assert changed.status == 200, changed
    response = {name: changed.json[name] for name in ("name", "limit", "metadata")}
    assert response == {"name": "Rent and heat", "limit": -500, "metadata": {"team": "b"}}
    assert ingress.get(path, token).json == changed.json
    again = change(both, **{"Idempotency-Key": "both", "If-Match": '"0"'})
    assert (again.status, again.json) == (200, changed.json)
    other = change({"name": "Other"}, **{"Idempotency-Key": "both"})
    assert (other.status, other.code) == (409, "idempotency_key_reused")
    # Fields that are not named stay.
    assert change({"limit": None}).json["limit"] is None
    assert ingress.post(f"{path}/freeze", None, token).json["status"] == "frozen"
    assert change({"metadata": {"tier": "gold"}}).json["metadata"] == {"team": "b", "tier": "gold"}
    assert change({"name": None}).json["name"] is None
    # A rejected change changes nothing.
    large = {"name": "Large", "limit": -1, "metadata": {"much": "x" * 3_000}}
    assert change(large).status == 200
    for body, code in (
        ({"name": "More", "metadata": {"more": "x" * 1_100}}, "metadata_too_large"),
        ({"name": "More", "limit": 1}, "fields_invalid"),
        ({"name": ""}, "fields_invalid"),
        ({"metadata": None}, "fields_invalid"),
        ({"metadata": {"a": 1}}, "fields_invalid"),
        ({}, "fields_invalid"),
    ):
        refused = change(body)
        assert (refused.status, refused.code) == (422, code), refused
    assert change({"metadata": {"a": "x" * 3_100}}).code == "too_large"
    wallet = f"/accounts/{ben.wallet_id}"
    unbounded = ingress.call("PATCH", wallet, {"name": "Ben's", "limit": None}, token)
    assert unbounded.code == "limit_out_of_bounds"
    assert ingress.get(wallet, token).json["name"] is None
    assert change({"name": "Late"}, **{"If-Match": '"7"'}).code == "condition_failed"
    assert (ingress.get(path, token).json["name"], change({"name": "x"}).status) == ("Large", 200)
    assert ingress.post(f"{path}/close", None, token).json["status"] == "closed"
    assert change({"name": "Closed"}).code == "account_closed"
    created = ingress.get("/transactions?kind=change_account&status=posted&limit=1", token).json
    assert created["data"][0]["wallet_id"] == path.removeprefix("/accounts/")


def test_an_etag_changes_with_every_change_and_serves_as_the_version(
    ingress: Ingress, ben: Person
) -> None:
    token = ingress.becomes(ingress.person(), "operator", ingress.admin()).token
    account, wallet = f"/accounts/{ben.wallet_id}", f"/wallets/{ben.wallet_id}"
    places = (account, token), (wallet, ben.token), ("/wallet", ben.token)

    def tags() -> list[str]:
        return [ingress.get(path, who).headers["ETag"] for path, who in places]

    def statuses(etags: list[str]) -> list[int]:
        return [
            ingress.get(path, who, headers={"If-None-Match": f'"other", W/{tag}'}).status
            for (path, who), tag in zip(places, etags, strict=True)
        ]

    for method, path, body, seen_by_all in (
        ("PATCH", account, {"name": "Ben's"}, False),
        ("PATCH", account, {"limit": -1}, False),
        ("PATCH", account, {"metadata": {"team": "a"}}, False),
        ("POST", f"{account}/freeze", None, True),
        ("POST", f"{account}/unfreeze", None, True),
    ):
        before = tags()
        assert statuses(before) == [304, 304, 304]
        changed = ingress.call(method, path, body, token, headers={"If-Match": before[0]})
        assert changed.status == 200, changed
        assert statuses(before) == ([200, 200, 200] if seen_by_all else [200, 304, 304])
        assert changed.headers["ETag"] == tags()[0]
    first = tags()
    assert all(tag.startswith('"0-') for tag in first)
    request_body = {"entry": "credit", "amount": 5}
    created = ingress.post("/transactions", request_body, ben.token, headers={"If-Match": first[1]})
    assert created.status == 201, created
    late = ingress.post("/transactions", request_body, ben.token, headers={"If-Match": first[1]})
    assert (late.status, late.code) == (409, "condition_failed")
    assert statuses(first) == [200, 200, 200]
    transaction = f"/transactions/{created.json['id']}"
    etags = {"If-None-Match": created.headers["ETag"]}
    assert ingress.get(transaction, ben.token, headers=etags).status == 304
    assert ingress.post(f"{transaction}/reverse", None, token).status == 201
    assert ingress.get(transaction, ben.token, headers=etags).json["reversed_by"]
    for wrong in ('"0-"', '"x"', '"0-123g"', "0 1", '"0", "1"'):
        refused = ingress.post(
            "/transactions", request_body, ben.token, headers={"If-Match": wrong}
        )
        assert (refused.status, refused.code) == (422, "headers_invalid"), wrong


def test_the_older_app_has_its_own_units_and_errors(
    ingress: Ingress, ada: Person, ben: Person
) -> None:
    def send(body: bytes) -> Answer:
        return ingress.post("/api/transactions", body, ada.token, prefix="")

    receiver = b'{"receiver_id": %d, "amount": ' % ben.number
    for amount in (b"10", b"10.5", b'"10.50"'):
        answer = send(receiver + amount + b"}")
        assert answer.status == 201, answer
    assert answer.json["amount"] == "10.50"
    for body, field in (
        (receiver + b"10.505}", "amount"),
        (receiver + b"99999}", "amount"),
        (b'{"receiver_id": 999999999, "amount": 1}', "receiver_id"),
        (b'{"receiver_id": %d, "amount": 1}' % ada.number, "receiver_id"),
    ):
        refused = send(body)
        assert refused.status == 422, refused
        assert list(refused.json["errors"]) == [field]
    response = ingress.get("/api/transactions?per_page=2", ada.token, prefix="").json["data"]
    meta = response["transactions"]["meta"]
    assert (meta["total"], meta["last_page"], meta["from"], meta["to"]) == (4, 2, 1, 2)
    assert [item["amount"] for item in response["transactions"]["data"]] == ["10.50", "10.50"]
    # 31.00 sent, each with 1.5 % of commission, rounded half up.
    assert response["balance"] == "968.53"
    assert response["transactions"]["links"]["next"] == "/api/transactions?page=2&per_page=2"


STEPS = ("submit.1-checked", "submit.2-handed-over", "submit.3-appended", "submit.4-decided")


@pytest.mark.parametrize("step", STEPS)
def test_a_submission_happens_once_if_the_ingress_is_killed(
    api: Api, step: str, tmp_path: Path
) -> None:
    ben = api.ingress.person()
    request_body = {"entry": "credit", "amount": 100, "trans_id": "once"}
    dying = Ingress(tmp_path, api.pipeline.settings).start(CRASH_AT=step)
    try:
        with pytest.raises((OSError, HTTPException)):
            dying.post("/transactions", request_body, ben.token)
        assert dying.process.wait(30) == KILLED
    finally:
        dying.process.kill()
    # Another ingress takes the repeated request.
    again = api.ingress.post("/transactions", request_body, ben.token)
    assert again.status == 201, again
    assert again.json["balance"] == 100
    assert api.ingress.get("/wallet", ben.token).json["wallet"]["balance"] == 100


def test_transfer_sends_with_several_processes(api: Api) -> None:
    ingress = api.ingress
    sender, receiver = ingress.person(), ingress.person()
    credited(ingress, sender, 40 * 1_015)
    url = f"http://127.0.0.1:{ingress.port}"
    words = ("--from", sender.email, "--to", receiver.email, "--amount", "10.00", "--url", url)
    response = api.pipeline.streamledger(
        "transfer", *words, "--count", "40", "--processes", "4", "--password", PASSWORD
    )
    assert response.stdout.strip() == "posted 40"

    def received() -> bool:
        wallet = ingress.get("/wallet", receiver.token).json["wallet"]
        return bool(wallet["balance"] == 40_000)

    eventually(received, 30)
    assert ingress.get("/wallet", sender.token).json["wallet"]["balance"] == 0
