"""/ready says whether Postgres answers, not whether others ask much of it; and not before what was
revoked is known.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from ingress.http.health import FRESH_S
from tests.testkit.ledger_api import START_S, Api, Ingress, beside
from tests.testkit.waiting import eventually

READS = 6


def test_slow_reads_do_not_make_an_ingress_unready(api: Api, tmp_path: Path) -> None:
    ada = api.ingress.person()
    with beside(api.pipeline, tmp_path, DATABASE_POOL_SIZE="1") as ingress:
        path = f"/wallets/{ada.wallet_id}/balance"
        assert ingress.get(path, ada.token).status == 200
        with psycopg.connect(api.database) as blocking, ThreadPoolExecutor(READS) as pool:
            blocking.execute("LOCK TABLE ledger.accounts IN ACCESS EXCLUSIVE MODE")
            reads = [pool.submit(ingress.get, path, ada.token) for _ in range(READS)]

            def waits() -> bool:
                query = (
                    b"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = %s::regclass"
                )
                found = blocking.execute(query, ("ledger.accounts",)).fetchone()
                return found is not None and found[0] > 0

            eventually(waits)
            # Until it has asked Postgres while they wait.
            until = time.monotonic() + 1.5 * FRESH_S
            while time.monotonic() < until:
                ready = ingress.get("/ready", prefix="")
                assert (ready.status, ready.json["postgres"]) == (200, True)
            assert not any(each.done() for each in reads)
            blocking.rollback()
            assert all(each.result().status in (200, 503) for each in reads)


def answers(ingress: Ingress) -> bool:
    try:
        return ingress.get("/health", prefix="").status == 200
    except ConnectionRefusedError:
        return False


def test_it_is_not_ready_before_it_has_loaded_what_was_revoked(api: Api, tmp_path: Path) -> None:
    ada, eve = api.ingress.person(), api.ingress.person()
    assert api.ingress.post("/logout", token=eve.token).status == 204
    own = {**api.pipeline.settings, "DATABASE_POOL_SIZE": "1"}
    ingress = Ingress(tmp_path, own)
    try:
        with psycopg.connect(api.database) as blocking:
            blocking.execute("LOCK TABLE ledger.tokens IN ACCESS EXCLUSIVE MODE")
            ingress.process.start(HTTP_PORT=str(ingress.port))
            eventually(lambda: answers(ingress), START_S)
            until = time.monotonic() + 3 * FRESH_S
            while time.monotonic() < until:
                assert ingress.get("/ready", prefix="").status == 503
            # Nobody knows whether this was revoked.
            assert ingress.get("/me", ada.token).code == "unavailable"
            blocking.rollback()
        eventually(lambda: ingress.get("/ready", prefix="").status == 200)
        assert ingress.get("/me", ada.token).status == 200
        assert ingress.get("/me", eve.token).status == 401
    finally:
        ingress.process.kill()
