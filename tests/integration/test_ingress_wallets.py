"""A user's wallets are read in one query."""

import psycopg

from ingress.wallets import wallet_view
from plumbing.postgres import connection_pool
from tests.testkit.ledger_api import Api
from tests.testkit.sql_statements import counted


async def test_all_wallets_of_a_user_are_read_in_one_query(api: Api) -> None:
    ingress, ada = api.ingress, api.ingress.person()
    for currency in ("USD", "JPY", "NGN"):
        assert ingress.post("/wallets", {"currency": currency}, ada.token).status == 201
    credit = {"entry": "credit", "amount": 700}
    assert ingress.post("/transactions", credit, ada.token).status == 201
    assert ingress.post("/holds", {"amount": 300}, ada.token).status == 201
    with psycopg.connect(api.database) as connection:
        # A wallet that the ledger has not opened yet.
        connection.execute(
            "INSERT INTO ledger.wallets (id, user_id, currency, is_default)"
            " VALUES ('not open yet', %s, 'KES', false)",
            (ada.uuid,),
        )
    listed = ingress.get("/wallets", ada.token).json["data"]
    assert listed[0]["id"] == ada.wallet_id
    assert [each["currency"] for each in listed] == ["NGN", "USD", "JPY", "NGN", "KES"]
    assert [each["status"] for each in listed] == 4 * ["open"] + ["opening"]
    first = listed[0]
    assert (first["balance"], first["held"], first["available"]) == (700, 300, 400)
    assert first["updated_at"] > first["created_at"]
    for each in listed[:-1]:
        assert ingress.get(f"/wallets/{each['id']}", ada.token).json == each
    async with (
        connection_pool.pool(api.database, 1, "test") as pool,
        pool.connection() as connection,
    ):
        with counted() as seen:
            found = await wallet_view.read_all(connection, ada.uuid, ada.number)
        assert len(found) == len(listed)
        assert len(seen) == 1
