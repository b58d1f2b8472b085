"""Many at once: registrations keep nobody from signing in, and the waits of a user are capped."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.testkit.ledger_api import PASSWORD, PREFIX, Answer, Api, Ingress, Person, beside
from tests.testkit.waiting import eventually

REGISTRATIONS = 300
LOGINS = 10
# Of a client that is refused, though it is asked for more.
PAUSE_S = 0.5
# As slow as it is by default.
HASH_KIB = "19456"
PER_ADDRESS = 4
WAITS = 3
NOTHING = "00000000-0000-4000-8000-000000000000"


def newcomer() -> dict[str, str]:
    return {
        "name": "Somebody New",
        "email": f"new-{secrets.token_hex(6)}@example.com",
        "password": PASSWORD,
    }


async def test_registrations_keep_nobody_from_signing_in(api: Api, tmp_path: Path) -> None:
    ada = api.ingress.person()
    with beside(
        api.pipeline, tmp_path, PASSWORD_MEMORY_KIB=HASH_KIB, REGISTRATIONS_PER_ADDRESS="1000000"
    ) as ingress:
        url = f"http://127.0.0.1:{ingress.port}{PREFIX}"
        credentials = {"email": ada.email, "password": PASSWORD}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def post(path: str, body: Any) -> int:
                headers = {"Prefer": "respond-async"}
                async with session.post(url + path, json=body, headers=headers) as answer:
                    await answer.read()
                    return answer.status

            registered: Counter[int] = Counter()
            full = asyncio.Event()

            async def press() -> None:
                while True:
                    status = await post("/register", newcomer())
                    registered[status] += 1
                    if status == 429:
                        full.set()
                        await asyncio.sleep(PAUSE_S)

            pressing = [asyncio.create_task(press()) for _ in range(REGISTRATIONS)]
            await full.wait()
            signed_in = await asyncio.gather(*(post("/login", credentials) for _ in range(LOGINS)))
            for task in pressing:
                task.cancel()
            await asyncio.gather(*pressing, return_exceptions=True)
    assert signed_in == [200] * LOGINS
    assert set(registered) <= {201, 429}


@pytest.fixture(scope="module")
def strict(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    settings = {
        "REGISTRATIONS_PER_ADDRESS": str(PER_ADDRESS),
        "LOGIN_WINDOW_S": "3600",
        "WAITS_PER_USER": str(WAITS),
        "TRUSTED_PROXIES": "127.0.0.1",
    }
    with beside(api.pipeline, tmp_path_factory.mktemp("strict"), **settings) as ingress:
        yield ingress


def register(ingress: Ingress, place: str, **more: str) -> Answer:
    return ingress.post("/register", {**newcomer(), **more}, headers={"X-Forwarded-For": place})


def test_a_network_address_registers_so_many(strict: Ingress, api: Api) -> None:
    taken = api.ingress.person().email
    for number in range(PER_ADDRESS - 1):
        assert register(strict, f"2001:db8:7:1::{number}").status == 201
    # What costs a hash counts, whatever comes of it.
    assert register(strict, "2001:db8:7:1::8", email=taken).code == "email_taken"
    refused = register(strict, "2001:db8:7:1::9")
    assert (refused.status, refused.code) == (429, "too_many_registrations")
    assert 0 < int(refused.headers["Retry-After"]) <= 3_600 / PER_ADDRESS
    assert register(strict, "2001:db8:7:2::9").status == 201
    # Signing in is counted apart.
    place = {"X-Forwarded-For": "2001:db8:7:1::9"}
    body = {"email": taken, "password": PASSWORD}
    assert strict.post("/login", body, headers=place).status == 200


def test_one_users_waits_are_capped(strict: Ingress) -> None:
    ada, eve = (_person(register(strict, f"198.51.100.{number}")) for number in (1, 2))

    def poll(who: Person, wait_s: int) -> Answer:
        return strict.get(f"/commands/{NOTHING}?wait={wait_s}", who.token)

    with ThreadPoolExecutor(WAITS * 3) as threads:
        answers = list(threads.map(lambda _: poll(ada, 5), range(WAITS * 3)))
        codes = Counter(answer.code for answer in answers)
        assert codes == {"not_decided_or_unknown": WAITS, "too_many_waits": WAITS * 2}
        refused = next(answer for answer in answers if answer.code == "too_many_waits")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        # A wait that has ended counts no more.
        waiting = [threads.submit(poll, ada, 5) for _ in range(WAITS)]
        assert poll(eve, 0).code == "not_decided_or_unknown"
        assert {item.result().code for item in waiting} == {"not_decided_or_unknown"}
    credit = {"entry": "credit", "amount": 100}
    assert strict.post("/transactions", credit, ada.token).status == 201
    # One that does not wait for its outcome is still in flight: it is accepted, or refused whole.
    with ThreadPoolExecutor(WAITS * 3) as threads:
        sent = threads.map(
            lambda _: strict.post(
                "/transactions", credit, ada.token, headers={"Prefer": "respond-async"}
            ),
            range(WAITS * 3),
        )
        assert {answer.status for answer in sent} <= {202, 429}


def test_what_is_refused_for_its_wait_is_not_sent(strict: Ingress) -> None:
    ada = _person(register(strict, "198.51.100.3"))
    credit = {"entry": "credit", "amount": 100, "trans_id": "one"}
    with ThreadPoolExecutor(WAITS * 3) as threads:
        path = f"/commands/{NOTHING}?wait=20"
        waiting = [threads.submit(strict.get, path, ada.token) for _ in range(WAITS * 3)]
        eventually(lambda: sum(item.done() for item in waiting) == WAITS * 2)
        refused = strict.post("/transactions", credit, ada.token)
        assert (refused.status, refused.code) == (429, "too_many_waits")
        codes = Counter(item.result().code for item in waiting)
        assert codes == {"not_decided_or_unknown": WAITS, "too_many_waits": WAITS * 2}
    # Otherwise it would be a replay.
    sent = strict.post("/transactions", credit, ada.token)
    assert sent.status == 201
    assert "Idempotent-Replayed" not in sent.headers
    assert strict.get("/wallet", ada.token).json["wallet"]["balance"] == 100


def _person(registered: Answer) -> Person:
    assert registered.status == 201, registered
    told = registered.json
    return Person(
        told["user"]["email"],
        told["user"]["id"],
        told["user"]["uuid"],
        told["wallet"]["id"],
        told["access_token"],
        told["refresh_token"],
    )
