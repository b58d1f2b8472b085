"""An installation that takes no new users, and where users do not credit themselves."""

from pathlib import Path

import psycopg

from tests.testkit.ledger_api import PASSWORD, Api, beside


def test_registration_can_be_closed_and_self_credit_switched_off(api: Api, tmp_path: Path) -> None:
    ada = api.ingress.person()
    credit = {"entry": "credit", "amount": 100}
    with beside(api.pipeline, tmp_path, REGISTRATION_OPEN="false", SELF_CREDIT="false") as closed:
        request_body = {"name": "Eve", "email": "eve@closed.example.com", "password": PASSWORD}
        for path in ("/register", "/auth/signup"):
            refused = closed.post(path, request_body)
            assert (refused.status, refused.code) == (403, "registration_closed")
        with psycopg.connect(api.database) as connection:
            query = b"SELECT count(*) FROM ledger.users WHERE email = 'eve@closed.example.com'"
            assert connection.execute(query).fetchone() == (0,)
        # Who was there before goes on, but for making money.
        token = closed.login(ada.email).json["access_token"]
        assert closed.post("/transactions", credit, token).code == "self_credit_off"
        assert closed.get("/wallet", token).json["wallet"]["balance"] == 0
        operator = closed.becomes(api.ingress.person(), "operator", closed.admin())
        paid = {**credit, "wallet_id": ada.wallet_id}
        given = closed.post("/transactions", paid, operator.token)
        assert given.status == 201, given
        assert closed.get("/wallet", token).json["wallet"]["balance"] == 100
