"""Somebody else may have registered the address of the first admin: it makes nobody an admin, and
keeps nobody from serving.
"""

from pathlib import Path

import psycopg

from tests.testkit.ledger_api import ADMIN_EMAIL, Api, beside
from tests.testkit.waiting import eventually


def test_whoever_has_the_admins_address_first_keeps_no_ingress_from_serving(
    api: Api, database: str, tmp_path: Path
) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO ledger.users (id, email, role) VALUES ('eve', %s, 'user')", (ADMIN_EMAIL,)
        )
    with beside(api.pipeline, tmp_path, DATABASE_URL=database) as ingress:
        eventually(lambda: "first admin not created" in ingress.process.log_text(), 30)
        assert f"email={ADMIN_EMAIL}" in ingress.process.log_text()
        assert "streamledger users create-admin" in ingress.process.log_text()
        # It goes on, and has promoted nobody.
        assert ingress.get("/me").status == 401
        assert ingress.process.running()
        assert ingress.process.ready()
        with psycopg.connect(database) as connection:
            found = connection.execute("SELECT id, role FROM ledger.users").fetchall()
        assert found == [("eve", "user")]
