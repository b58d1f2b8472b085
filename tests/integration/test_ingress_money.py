"""Money over HTTP: every shape of a transaction is decided, told and told again the same."""

import threading
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.api import PASSWORD, Answer, Api, Ingress, Person, beside
from tests.programs import KILLED
from tests.waiting import eventually


@pytest.fixture
def ada(ingress: Ingress) -> Person:
    """With 1,000.00 in her wallet."""
    person = ingress.person()
    credited(ingress, person, 100_000)
    return person


@pytest.fixture
def ben(ingress: Ingress) -> Person:
    return ingress.person()


def credited(ingress: Ingress, person: Person, amount: int) -> dict[str, Any]:
    answer = ingress.post("/transactions", {"entry": "credit", "amount": amount}, person.token)
    assert answer.status == 201, answer
    told: dict[str, Any] = answer.json
    return told


def at_once(count: int, do: Callable[[int], Answer]) -> list[Answer]:
    answers: list[Answer] = []
    threads = [
        threading.Thread(target=lambda number=number: answers.append(do(number)))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == count
    return answers


def test_a_credit_is_answered_when_it_is_decided(ingress: Ingress, ben: Person) -> None:
    asked = {"entry": "credit", "amount": "12.50", "trans_id": "first", "metadata": {"a": "b"}}
    answer = ingress.post("/transactions", asked, ben.token)
    assert answer.status == 201, answer
    told = answer.json
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
    assert {name: told[name] for name in wanted} == wanted
    again = ingress.post("/transactions", asked, ben.token)
    assert (again.status, again.json) == (201, told)
    assert again.headers["Idempotent-Replayed"] == "true"
    other = ingress.post("/transactions", {**asked, "amount": 7}, ben.token)
    assert (other.status, other.code) == (409, "idempotency_key_reused")


def test_a_transfer_moves_money_and_takes_commission(
    ingress: Ingress, ada: Person, ben: Person
) -> None:
    asked = {"receiver_id": ben.number, "amount": 10_000, "trans_id": "t"}
    answer = ingress.post("/transactions", asked, ada.token)
    assert answer.status == 201, answer
    told = answer.json
    assert (told["amount"], told["fee"], told["total"]) == (10_000, 150, 10_150)
    assert told["balance"] == 100_000 - 10_150
    assert (told["sender_id"], told["receiver_id"]) == (ada.number, ben.number)
    again = ingress.post("/transactions", asked, ada.token)
    assert (again.status, again.json) == (201, told)


def test_one_key_from_fifty_clients_is_one_transaction(ingress: Ingress, ben: Person) -> None:
    asked = {"entry": "credit", "amount": 100, "trans_id": "the same"}
    answers = at_once(50, lambda _: ingress.post("/transactions", asked, ben.token))
    assert Counter(answer.status for answer in answers) == {201: 50}, answers
    assert len({answer.text for answer in answers}) == 1
    replayed = Counter(answer.headers["Idempotent-Replayed"] for answer in answers)
    assert replayed == {"true": 49, None: 1}
    assert ingress.get("/wallet", ben.token).json["wallet"]["balance"] == 100


def test_debits_take_a_wallet_down_to_exactly_zero(ingress: Ingress, ben: Person) -> None:
    credited(ingress, ben, 100)
    asked = {"entry": "debit", "amount": 5}
    answers = at_once(30, lambda _: ingress.post("/transactions", asked, ben.token))
    assert Counter(answer.status for answer in answers) == {201: 20, 422: 10}, answers
    refused = [answer for answer in answers if answer.status == 422]
    assert {answer.code for answer in refused} == {"insufficient_funds"}
    assert ingress.get("/wallet", ben.token).json["wallet"]["balance"] == 0
    # A rejection is as final as a posting.
    first = {"entry": "debit", "amount": 5, "trans_id": "late"}
    assert ingress.post("/transactions", first, ben.token).status == 422
    credited(ingress, ben, 100)
    again = ingress.post("/transactions", first, ben.token)
    assert (again.status, again.code) == (422, "insufficient_funds")
    assert again.headers["Idempotent-Replayed"] == "true"


def test_what_is_not_waited_for_is_polled_for(ingress: Ingress, ada: Person, ben: Person) -> None:
    asked = {"entry": "credit", "amount": 100, "trans_id": "later"}
    answer = ingress.post("/transactions", asked, ada.token, headers={"Prefer": "respond-async"})
    assert answer.status == 202, answer
    told = answer.json
    assert answer.headers["Location"] == told["location"]
    path = told["location"].removeprefix("/api/v1")
    polled = ingress.get(f"{path}&wait=20", ada.token)
    assert (polled.status, polled.json["status"]) == (200, "posted"), polled
    id = told["id"]
    assert polled.json["transaction"] == ingress.get(f"/transactions/{id}", ada.token).json
    assert ingress.get(f"/commands/{id}", ada.token).json["status"] == "posted"
    # Another's, and an altered one, are not there; nor is what nobody sent.
    unknown = "00000000-0000-5000-8000-000000000000"
    for where, token in (
        (path, ben.token),
        (f"/commands/{id}", ben.token),
        (path.replace("position=", "position=1"), ada.token),
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


def test_lists_tell_what_happened_to_a_wallet(ingress: Ingress, ada: Person, ben: Person) -> None:
    sent = ingress.post("/transactions", {"receiver_email": ben.email, "amount": 200}, ada.token)
    assert sent.status == 201, sent
    for _ in range(3):
        credited(ingress, ben, 10)

    def received() -> bool:
        return bool(ingress.get("/transactions", ben.token).json["meta"]["total"] == 4)

    eventually(received, 30)
    first = ingress.get("/transactions?page=1&limit=3", ben.token).json
    second = ingress.get(f"/transactions?limit=3&cursor={first['meta']['next_cursor']}", ben.token)
    told = [*first["data"], *second.json["data"]]
    assert [each["total"] for each in told if each["kind"] == "credit"] == [10, 10, 10]
    came = next(each for each in told if each["kind"] == "transfer")
    wanted = (sent.json["id"], "credit", 200, 0, ada.number, ben.number, ada.wallet_id)
    names = ("id", "entry", "amount", "fee", "sender_id", "receiver_id", "counterparty")
    assert tuple(came[name] for name in names) == wanted
    shown = ingress.get(f"/transactions/{sent.json['id']}", ada.token)
    assert shown.json == sent.json
    tag = {"If-None-Match": shown.headers["ETag"]}
    assert ingress.get(f"/transactions/{sent.json['id']}", ada.token, headers=tag).status == 304
    stranger = ingress.person()
    assert ingress.get(f"/transactions/{sent.json['id']}", stranger.token).status == 404
    assert ingress.get(f"/transactions?wallet_id={ben.wallet_id}", ada.token).status == 404
    statement = ingress.get(f"/wallets/{ben.wallet_id}/statement", ben.token).json
    assert (statement["opening_balance"], statement["closing_balance"]) == (0, 230)


@pytest.mark.parametrize(
    ("asked", "status", "code"),
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
def test_what_is_not_well_asked_writes_nothing(
    ingress: Ingress, ada: Person, asked: dict[str, Any], status: int, code: str
) -> None:
    answer = ingress.post("/transactions", asked, ada.token)
    assert (answer.status, answer.code) == (status, code), answer
    assert ingress.get("/wallet", ada.token).json["wallet"]["version"] == 1


def test_nobody_uses_anothers_wallet(ingress: Ingress, ada: Person, ben: Person) -> None:
    for asked in (
        {"entry": "debit", "amount": 1, "wallet_id": ada.wallet_id},
        {"receiver_id": ben.number, "amount": 1, "wallet_id": ada.wallet_id},
    ):
        assert ingress.post("/transactions", asked, ben.token).status == 404
    own = ingress.post("/transactions", {"receiver_id": ada.number, "amount": 1}, ada.token)
    assert (own.status, own.code) == (422, "self_transfer")
    keys = ingress.post(
        "/transactions",
        {"entry": "debit", "amount": 1, "trans_id": "a"},
        ada.token,
        headers={"Idempotency-Key": "b"},
    )
    assert (keys.status, keys.code) == (422, "key_and_trans_id_differ")
    checked = ingress.post(
        "/transactions?validate_only=true", {"entry": "debit", "amount": 1}, ada.token
    )
    assert checked.status == 204
    assert ingress.get("/wallet", ada.token).json["wallet"]["balance"] == 100_000


def test_between_ones_own_wallets_there_is_no_commission(ingress: Ingress, ada: Person) -> None:
    opened = ingress.post("/wallets", {}, ada.token)
    assert (opened.status, opened.json["status"]) == (201, "open"), opened
    asked = {"receiver_wallet_id": opened.json["id"], "amount": "100.00"}
    moved = ingress.post("/transactions", asked, ada.token)
    assert (moved.status, moved.json["fee"]) == (201, 0), moved
    assert len(ingress.get("/wallets", ada.token).json["data"]) == 2


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
    assert [each["id"] for each in listed] == [id]


def test_operators_open_post_reverse_and_freeze(ingress: Ingress, ada: Person) -> None:
    operator = ingress.becomes(ingress.person(), "operator", ingress.admin())
    token = operator.token
    asked = {"name": "Rent", "account_type": "expense", "limit": None}
    opened = ingress.post("/accounts", asked, token, headers={"Idempotency-Key": "rent"})
    assert (opened.status, opened.json["name"]) == (201, "Rent"), opened
    rent = opened.json["id"]
    entries = [
        {"account_id": rent, "direction": "debit", "amount": "30.00"},
        {"account_id": ada.wallet_id, "direction": "credit", "amount": 3_000},
    ]
    posting = {"currency": "NGN", "entries": entries, "idempotency_key": "p"}
    made = ingress.post("/transactions", posting, token)
    assert made.status == 201, made
    assert [each["amount"] for each in made.json["entries"]] == [3_000, 3_000]
    again = ingress.post("/transactions", posting, token)
    assert again.json == made.json
    assert ingress.post("/transactions", posting, ada.token).status == 403
    unbalanced = {**posting, "entries": [entries[0], {**entries[1], "amount": 1}]}
    refused = ingress.post("/transactions", {**unbalanced, "idempotency_key": "q"}, token)
    assert (refused.status, refused.code) == (422, "unbalanced")
    undone = ingress.post(f"/transactions/{made.json['id']}/reverse", None, token)
    assert (undone.status, undone.json["reverses"]) == (201, made.json["id"]), undone
    twice = ingress.post(f"/transactions/{made.json['id']}/reverse", None, token)
    assert (twice.status, twice.code) == (409, "already_reversed")
    frozen = ingress.post(f"/accounts/{rent}/freeze", None, token)
    assert (frozen.status, frozen.json["status"]) == (200, "frozen"), frozen
    closed = ingress.post(f"/accounts/{rent}/close", None, token)
    assert (closed.status, closed.json["status"]) == (200, "closed"), closed
    limited = ingress.call("PATCH", f"/accounts/{ada.wallet_id}", {"limit": -(2**50)}, token)
    assert (limited.status, limited.json["code"]) == (422, "limit_out_of_bounds"), limited
    lines = ingress.get("/trial-balance?currency=NGN", token).json["data"]
    assert sum(int(each["debit"]) - int(each["credit"]) for each in lines) == 0
    listed = ingress.get(f"/accounts?user_id={ada.number}", token).json["data"]
    assert [each["id"] for each in listed] == [ada.wallet_id]
    everything = ingress.get("/transactions?kind=reverse&status=posted&limit=1", token).json
    assert everything["data"][0]["id"] == undone.json["id"]


def test_the_older_app_has_its_own_words(ingress: Ingress, ada: Person, ben: Person) -> None:
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
    told = ingress.get("/api/transactions?per_page=2", ada.token, prefix="").json["data"]
    meta = told["transactions"]["meta"]
    assert (meta["total"], meta["last_page"], meta["from"], meta["to"]) == (4, 2, 1, 2)
    assert [each["amount"] for each in told["transactions"]["data"]] == ["10.50", "10.50"]
    # 31.00 sent, each with 1.5 % of commission, rounded half up.
    assert told["balance"] == "968.53"
    assert told["transactions"]["links"]["next"] == "/api/transactions?page=2&per_page=2"


STEPS = ("submit.1-checked", "submit.2-handed-over", "submit.3-appended", "submit.4-decided")


@pytest.mark.parametrize("step", STEPS)
def test_a_submission_that_was_killed_happens_once(api: Api, step: str, tmp_path: Path) -> None:
    with beside(api.pipeline, tmp_path) as ingress:
        ben = ingress.person()
        ingress.process.kill()
        ingress.start(CRASH_AT=step)
        asked = {"entry": "credit", "amount": 100, "trans_id": "once"}
        with pytest.raises((OSError, HTTPException)):
            ingress.post("/transactions", asked, ben.token)
        assert ingress.process.wait(30) == KILLED
        ingress.start()
        again = ingress.post("/transactions", asked, ben.token)
        assert again.status == 201, again
        assert again.json["balance"] == 100
        assert ingress.get("/wallet", ben.token).json["wallet"]["balance"] == 100


def test_many_processes_send_all_that_was_asked(api: Api) -> None:
    ingress = api.ingress
    sender, receiver = ingress.person(), ingress.person()
    credited(ingress, sender, 40 * 1_015)
    url = f"http://127.0.0.1:{ingress.port}"
    words = ("--from", sender.email, "--to", receiver.email, "--amount", "10.00", "--url", url)
    told = api.pipeline.streamledger(
        "transfer", *words, "--count", "40", "--processes", "4", "--password", PASSWORD
    )
    assert told.stdout.strip() == "posted 40"

    def received() -> bool:
        wallet = ingress.get("/wallet", receiver.token).json["wallet"]
        return bool(wallet["balance"] == 40_000)

    eventually(received, 30)
    assert ingress.get("/wallet", sender.token).json["wallet"]["balance"] == 0
