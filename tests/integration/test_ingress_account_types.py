"""Who may move money of which type of account: every type as source and as receiver, by every role
over HTTP, and by commands that are written directly to Kafka.
"""

import itertools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from ingress.http.roles import UserRole
from schemas.partitioning import partition_of
from tests.testkit import pipeline
from tests.testkit.ledger_api import PASSWORD, Answer, Api, Ingress, Person
from tests.testkit.waiting import eventually

TYPES = ("wallet", "asset", "liability", "equity", "revenue", "expense")
BY_DEBIT = ("asset", "expense")
RICH = 1_000
REFUSED = "account_type_not_allowed"
_keys = itertools.count(1)


class Cast(NamedTuple):
    """A person of each role, and of each type an account of the user's and one without owner."""

    people: dict[UserRole, Person]
    own: dict[str, str]
    other: dict[str, str]

    @property
    def operator(self) -> str:
        return self.people[UserRole.OPERATOR].token

    @property
    def user(self) -> Person:
        return self.people[UserRole.USER]


@pytest.fixture(scope="module")
def cast(api: Api) -> Cast:
    ingress, admin = api.ingress, api.ingress.admin()
    people = {UserRole.ADMIN: admin, UserRole.USER: ingress.person()}
    for role in (UserRole.OPERATOR, UserRole.AUDITOR):
        people[role] = ingress.becomes(ingress.person(), role, admin)
    operator = people[UserRole.OPERATOR].token
    user = people[UserRole.USER]
    own = {type: opened(ingress, operator, type, user.uuid) for type in TYPES}
    own["wallet"] = user.wallet_id
    other = {type: opened(ingress, operator, type, None) for type in TYPES}
    for type, account in [*own.items(), *other.items()]:
        rich(ingress, operator, account, type)
    return Cast(people, own, other)


def opened(ingress: Ingress, operator: str, type: str, owner: str | None) -> str:
    request_body = {"account_type": type} | ({} if owner is None else {"user_id": owner})
    answer = ingress.post("/accounts", request_body, operator)
    assert answer.status == 201, answer
    return str(answer.json["id"])


def rich(ingress: Ingress, operator: str, account: str, type: str) -> None:
    sides = ("debit", "credit") if type in BY_DEBIT else ("credit", "debit")
    assert posted(ingress, operator, (account, sides[0]), ("system:funding:NGN", sides[1])) == 201


def posted(ingress: Ingress, token: str, *entries: tuple[str, str], amount: int = RICH) -> int:
    request_body = {
        "currency": "NGN",
        "entries": [
            {"account_id": account, "direction": direction, "amount": amount}
            for account, direction in entries
        ],
    }
    return ingress.post("/transactions", request_body, token).status


def balance(ingress: Ingress, cast: Cast, account: str) -> int:
    answer = ingress.get(f"/accounts/{account}/balance", cast.operator)
    assert answer.status == 200, answer
    return int(answer.json["balance"])


def refused(answer: Answer) -> bool:
    if answer.status == 201:
        return False
    assert (answer.status, answer.code) == (422, REFUSED), answer
    return True


def without_request_id(answer: Answer) -> dict[str, Any]:
    return {name: value for name, value in answer.json.items() if name != "request_id"}


MOVES: dict[str, dict[str, Any]] = {
    "credit": {"entry": "credit", "amount": 1},
    "debit": {"entry": "debit", "amount": 1},
}


@pytest.mark.parametrize("type", TYPES)
def test_a_user_moves_money_only_from_wallets(api: Api, cast: Cast, type: str) -> None:
    ingress, token = api.ingress, cast.user.token
    account, wallet = cast.own[type], cast.other["wallet"]
    before = balance(ingress, cast, account)
    for request_body in MOVES.values():
        answer = ingress.post("/transactions", {**request_body, "wallet_id": account}, token)
        assert refused(answer) is (type != "wallet"), answer
        rehearsed = ingress.post(
            "/transactions?validate_only=true", {**request_body, "wallet_id": account}, token
        )
        assert rehearsed.status == (204 if type == "wallet" else 422), rehearsed
    hold = ingress.post("/holds", {"wallet_id": account, "amount": 1}, token)
    assert refused(hold) is (type != "wallet"), hold
    if type == "wallet":
        assert ingress.post(f"/holds/{hold.json['id']}/void", {}, token).status == 201
    request_body = {"wallet_id": account, "receiver_wallet_id": wallet, "amount": 1}
    answer = ingress.post("/transactions", request_body, token)
    assert refused(answer) is (type != "wallet"), answer
    assert balance(ingress, cast, account) == before - (1 if type == "wallet" else 0)


RECEIVERS = [(whose, type) for whose in ("own", "other") for type in TYPES]


@pytest.mark.parametrize(
    ("whose", "type"), [item for item in RECEIVERS if item != ("own", "wallet")]
)
def test_a_user_pays_only_into_wallets(api: Api, cast: Cast, whose: str, type: str) -> None:
    ingress, accounts = api.ingress, cast.own if whose == "own" else cast.other
    account = accounts[type]

    def balances() -> list[int]:
        return [balance(ingress, cast, id) for id in (account, cast.user.wallet_id)]

    before, moved = balances(), 2 if type == "wallet" else 0
    request_body = {"receiver_wallet_id": account, "amount": 2}
    if whose == "other" and type != "wallet":
        # An internal account looks like a missing one, so that users cannot enumerate them.
        missing = {"receiver_wallet_id": "no-such-account", "amount": 2}
        for query in ("", "?validate_only=true"):
            answers = [
                ingress.post(f"/transactions{query}", body, cast.user.token)
                for body in (request_body, missing)
            ]
            assert [(a.status, a.code) for a in answers] == [(404, "account_not_found")] * 2
            assert without_request_id(answers[0]) == without_request_id(answers[1])
    else:
        answer = ingress.post("/transactions", request_body, cast.user.token)
        assert refused(answer) is (type != "wallet"), answer
    # The receiver may be in another partition.
    after = [before[0] + moved, before[1] - moved]
    eventually(lambda: balances() == after, 30)


def test_an_api_key_has_no_more_rights_than_its_user(api: Api, cast: Cast) -> None:
    ingress = api.ingress
    wanted = {"name": "shop", "scopes": ["money"], "current_password": PASSWORD}
    key = ingress.post("/api-keys", wanted, cast.user.token).json["key"]
    for type in TYPES:
        request_body = {"entry": "debit", "amount": 1, "wallet_id": cast.own[type]}
        assert refused(ingress.post("/transactions", request_body, key)) is (type != "wallet")


def test_the_older_app_sends_a_users_command(api: Api, cast: Cast) -> None:
    ingress, receiver = api.ingress, api.ingress.person()
    request_body = {"receiver_id": receiver.number, "amount": 0.01}
    sent = ingress.post("/api/transactions", request_body, cast.user.token, prefix="")
    assert sent.status == 201, sent
    commands = [value for _, value in api.pipeline.read(api.pipeline.names.commands)]
    transfer = next(value for value in commands if f'"to":"{receiver.wallet_id}"'.encode() in value)
    assert json.loads(transfer)["wallets_only"] is True


@pytest.mark.parametrize("type", TYPES)
def test_an_operator_moves_money_of_assets_and_expenses_only_by_post(
    api: Api, cast: Cast, type: str
) -> None:
    ingress, token = api.ingress, cast.operator
    own, other, wallet = cast.own[type], cast.other[type], cast.other["wallet"]
    for request_body in MOVES.values():
        answer = ingress.post("/transactions", {**request_body, "wallet_id": own}, token)
        assert refused(answer) is (type in BY_DEBIT), answer
    hold = ingress.post("/holds", {"wallet_id": own, "amount": 1}, token)
    assert refused(hold) is (type in BY_DEBIT), hold
    ways = [(own, wallet)] if other == wallet else [(own, wallet), (wallet, other)]
    for sender, receiver in ways:
        request_body = {"wallet_id": sender, "receiver_wallet_id": receiver, "amount": 1}
        answer = ingress.post("/transactions", request_body, token)
        assert refused(answer) is (type in BY_DEBIT), answer
    kept = ingress.post("/holds", {"wallet_id": cast.own["wallet"], "amount": 3}, token).json["id"]
    if other != cast.own["wallet"]:
        answer = ingress.post(f"/holds/{kept}/capture", {"to_wallet_id": other, "amount": 1}, token)
        assert refused(answer) is (type in BY_DEBIT), answer
    for sides in (("debit", "credit"), ("credit", "debit")):
        entries = (own, sides[0]), ("system:funding:NGN", sides[1])
        assert posted(ingress, token, *entries, amount=1) == 201


@pytest.mark.parametrize("role", [UserRole.USER, UserRole.AUDITOR, UserRole.ADMIN])
@pytest.mark.parametrize("type", TYPES)
def test_only_operators_post_reverse_or_capture_to_an_account(
    api: Api, cast: Cast, type: str, role: UserRole
) -> None:
    ingress, token = api.ingress, cast.people[role].token
    entries = (cast.own[type], "debit"), (cast.other[type], "credit")
    assert posted(ingress, token, *entries) == 403
    request_body = {"entry": "credit", "amount": 1, "wallet_id": cast.other["wallet"]}
    answer = ingress.post("/transactions", request_body, cast.operator)
    assert ingress.post(f"/transactions/{answer.json['id']}/reverse", {}, token).status == 403
    hold = ingress.post("/holds", {"wallet_id": cast.own["wallet"], "amount": 1}, cast.operator)
    capture = f"/holds/{hold.json['id']}/capture"
    answer = ingress.post(capture, {"to_wallet_id": cast.other[type]}, token)
    assert answer.status == (404 if role is UserRole.USER else 403), answer


@pytest.mark.parametrize("type", TYPES)
def test_another_users_account_looks_missing_to_a_user(api: Api, cast: Cast, type: str) -> None:
    ingress, token, account = api.ingress, cast.user.token, cast.other[type]
    for request_body in MOVES.values():
        answer = ingress.post("/transactions", {**request_body, "wallet_id": account}, token)
        assert (answer.status, answer.code) == (404, "account_not_found")
    answer = ingress.post("/holds", {"wallet_id": account, "amount": 1}, token)
    assert (answer.status, answer.code) == (404, "account_not_found")
    request_body = {"wallet_id": account, "receiver_wallet_id": cast.user.wallet_id, "amount": 1}
    assert ingress.post("/transactions", request_body, token).code == "account_not_found"
    if type not in BY_DEBIT:
        held = ingress.post("/holds", {"wallet_id": account, "amount": 1}, cast.operator)
        for step in ("capture", "void"):
            # The books have the hold, but for this user there is nothing to wait for.
            answer = ingress.post(
                f"/holds/{held.json['id']}/{step}", {}, token, headers={"Prefer": "wait=1"}
            )
            assert (answer.status, answer.code) == (404, "hold_not_found")


# Commands written to Kafka: their own `wallets_only` and kind decide what they may do.


def commands_of(account: str, other: str) -> list[Mapping[str, Any]]:
    entries = [
        {"account": account, "direction": "debit", "amount": 1},
        {"account": other, "direction": "credit", "amount": 1},
    ]
    return [
        {"kind": "credit", "account": account, "amount": 1},
        {"kind": "debit", "account": account, "amount": 1},
        {"kind": "hold", "account": account, "amount": 1},
        {"kind": "transfer", "account": account, "to": other, "amount": 1},
        {"kind": "transfer", "account": other, "to": account, "amount": 1},
        {"kind": "post", "account": min(account, other), "currency": "NGN", "entries": entries},
    ]


@pytest.mark.parametrize("type", TYPES)
@pytest.mark.parametrize("wallets_only", [True, False])
def test_commands_from_kafka_follow_wallets_only(
    api: Api, cast: Cast, type: str, wallets_only: bool
) -> None:
    line, account = api.pipeline, cast.other[type]
    other = api.ingress.person().wallet_id
    rich(api.ingress, cast.operator, other, "wallet")
    sent = [
        {**command, "id": f"straight-{next(_keys)}", "wallets_only": wallets_only}
        for command in commands_of(account, other)
    ]
    positions = [_sent(line, command) for command in sent]
    results = line.results_of(positions, 60)
    for command, result in zip(sent, results, strict=True):
        if wallets_only:
            allowed = type == "wallet"
        else:
            allowed = type not in BY_DEBIT or command["kind"] == "post"
        outcome = (result["outcome"], result.get("reason"))
        assert outcome == (("posted", None) if allowed else ("rejected", REFUSED)), (
            command,
            result,
        )


def _sent(line: pipeline.Pipeline, command: Mapping[str, Any]) -> tuple[int, int]:
    account = command["account"]
    return line.send(command, account.encode(), partition_of(account, pipeline.PARTITIONS))
