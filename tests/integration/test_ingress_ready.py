"""/ready says whether Postgres answers, not whether others ask much of it."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from ingress.health import FRESH_S
from tests.api import Api, beside
from tests.waiting import eventually

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
