"""The people of the walk-through: there after a first start, left alone by the next."""

from compose.embedded import demo
from tests.api import PREFIX, Api


def test_demo_people_have_money_and_an_operator_beside_them(api: Api) -> None:
    ingress = api.ingress
    url = f"http://127.0.0.1:{ingress.port}"
    for _ in range(2):
        demo.seed(url, api.database, PREFIX)
    for _, _, email in demo.PEOPLE:
        told = ingress.login(email, demo.PASSWORD).json
        wallet = ingress.get("/wallet", told["access_token"]).json["wallet"]
        assert wallet["balance"] == demo.MONEY
    operator = ingress.login(demo.OPERATOR, demo.PASSWORD).json
    assert operator["user"]["role"] == "operator"
