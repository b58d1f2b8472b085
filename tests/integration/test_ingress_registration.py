"""Registering, whatever dies meanwhile: all or nothing, and a wallet that takes money at once."""

import itertools
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.testkit.ledger_api import PASSWORD, Api, Ingress
from tests.testkit.waiting import eventually

TIMES = 1_000
AT_ONCE = 8

# The steps after which there is nobody, and those after which there is somebody.
NOTHING = ("register.1-hashed", "register.2-written")
ALL_OF_IT = ("register.3-committed", "relay.1-locked", "relay.2-sent")


def asked(email: str) -> dict[str, Any]:
    return {"first_name": "Ada", "email": email, "password": PASSWORD}


@pytest.mark.parametrize("step", NOTHING + ALL_OF_IT)
def test_a_death_leaves_all_or_nothing(api: Api, tmp_path: Path, step: str) -> None:
    dying = Ingress(tmp_path, api.pipeline.settings).start(CRASH_AT=step)
    answered = 0
    try:
        for number in itertools.count():
            email = f"{step[:8]}{number}-{secrets.token_hex(4)}@example.com"
            try:
                answered += dying.post("/register", asked(email)).status == 201
            except (OSError, HTTPException):
                break
            # The other ingress may have sent this one's command.
            assert number < 100, "it goes on living"
        assert dying.process.wait(30) == -9
    finally:
        dying.process.kill()

    again = api.ingress.login(email)
    if step in NOTHING:
        assert again.code == "credentials_wrong"
        assert api.ingress.post("/register", asked(email)).status == 201
        return
    assert again.status == 200
    assert api.ingress.post("/register", asked(email)).code == "email_taken"
    token = again.json["access_token"]
    wallet = again.json["wallet"]["id"]
    credit = {"entry": "credit", "amount": 100, "trans_id": "first"}

    def credited() -> bool:
        answer = api.ingress.post("/transactions", credit, token)
        assert answer.status == 201, answer
        return True

    eventually(credited, 60)
    # Another ingress sends again what may have been sent; nothing comes of that.
    eventually(lambda: unsent(api, wallet) == 0, 60)
    with psycopg.connect(api.database) as connection:
        opened = connection.execute(
            "SELECT count(*) FROM ledger.transactions WHERE account = %s AND kind = 'open_account'",
            (wallet,),
        ).fetchone()
    assert opened == (1,)


def unsent(api: Api, wallet: str) -> int:
    with psycopg.connect(api.database) as connection:
        row = connection.execute(
            "SELECT count(*) FROM ledger.outbox WHERE account = %s AND sent_at IS NULL", (wallet,)
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_trace_goes_with_the_command_to_its_result(api: Api) -> None:
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    email = f"{secrets.token_hex(8)}@example.com"
    answer = api.ingress.post("/register", asked(email), headers={"traceparent": trace})
    assert answer.headers["X-Request-Id"] == trace[3:35]
    wallet = answer.json["wallet"]["id"]
    told = [each for each in api.pipeline.results() if each.get("trace") == trace]
    with psycopg.connect(api.database) as connection:
        row = connection.execute(
            "SELECT trace, actor FROM ledger.commands WHERE account = %s", (wallet,)
        ).fetchone()
    assert row == (trace, answer.json["user"]["uuid"])
    assert len(told) == 1


def test_no_transaction_is_rejected_for_coming_before_its_wallet(api: Api) -> None:
    def register_and_credit(_: int) -> tuple[int, int]:
        person = api.ingress.person()
        answer = api.ingress.post("/transactions", {"entry": "credit", "amount": 5}, person.token)
        return answer.status, answer.json.get("balance", 0)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = Counter(pool.map(register_and_credit, range(TIMES)))
    assert done == {(201, 5): TIMES}, api.ingress.log_tail()
