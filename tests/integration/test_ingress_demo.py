"""The people of the walk-through: there after a first start, left alone by the next.

And the README's transfer between them: run as it stands, and answered as it says.
"""

import asyncio
import io
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest
from rich.console import Console

from compose.embedded import demo
from compose.embedded.console import Display
from compose.embedded.up import Up, UpOptions, UpSettings
from ingress.auth import demo_users
from ingress.auth.passwords import Passwords
from tests.testkit.ledger_api import PASSWORD, PREFIX, SIGNING_KEY, Api, Ingress

README = Path(__file__).parents[2] / "README.md"
RUN_S = 120


def test_demo_people_have_money_and_an_operator_beside_them(api: Api) -> None:
    ingress = api.ingress
    url = f"http://127.0.0.1:{ingress.port}"
    for _ in range(2):
        demo.seed(url, api.database, PREFIX, "NGN")
    for _, _, email in demo_users.PEOPLE:
        answer = ingress.login(email, demo_users.PASSWORD).json
        wallet = ingress.get("/wallet", answer["access_token"]).json["wallet"]
        assert wallet["balance"] == demo.MONEY
    operator = ingress.login(demo_users.OPERATOR, demo_users.PASSWORD).json
    assert operator["user"]["role"] == "operator"


def script() -> str:
    section = README.read_text("utf-8").partition("## Send a transfer")[2].partition("\n## ")[0]
    lines = [line[4:] for line in section.splitlines() if line.startswith("    ") or not line]
    return "\n".join(lines)


def test_the_transfer_of_the_readme_lands(api: Api, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{api.ingress.port}"
    demo.seed(url, api.database, PREFIX, "NGN")
    written = script()
    ours = f"{sys.executable} -m compose.cli.main"
    run = written.replace("http://127.0.0.1:8000", url).replace(".venv/bin/streamledger", ours)
    ended = subprocess.run(
        ["sh", "-euc", run],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], **api.pipeline.settings},
        capture_output=True,
        text=True,
        timeout=RUN_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    answers = [line[2:] for line in written.splitlines() if line.startswith("# {")]
    assert len(answers) == 2
    for answer in answers:
        pieces = [re.escape(piece) for piece in answer.split("…")]
        assert re.search(".*".join(pieces), ended.stdout), (answer, ended.stdout)
    assert '"ada"' in ended.stdout


@pytest.mark.parametrize(
    ("host", "brokers", "loopback"),
    [
        ("127.0.0.1", "127.0.0.1:9092,localhost:9093", True),
        ("0.0.0.0", "127.0.0.1:9092", False),
        ("127.0.0.1", "127.0.0.1:9092,10.0.0.7:9092", False),
    ],
)
def test_demo_users_that_others_reach_have_a_password_of_their_own(
    database: str, tmp_path: Path, host: str, brokers: str, loopback: bool
) -> None:
    operators(database, demo_users.PASSWORD)
    shown, up = quiet_up(tmp_path, host)
    password = up._demo_password(brokers, database)
    assert (password == demo_users.PASSWORD) is loopback
    assert signs_in(database, password)
    assert signs_in(database, demo_users.PASSWORD) is loopback
    # At once: if the rest of the start fails, nobody else knows it.
    line = f"The password of {demo_users.OPERATOR}, shown only now: {password}\n"
    assert shown.getvalue() == ("" if loopback else line)
    # Who has one of their own keeps it.
    again = up._demo_password(brokers, database)
    assert signs_in(database, password)
    assert (again == password) is loopback
    assert shown.getvalue() == ("" if loopback else line)


def test_a_random_password_is_shown_once(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, una = "operator-elsewhere@example.com", "una-elsewhere@example.com"
    monkeypatch.setattr(demo, "OPERATOR", operator)
    monkeypatch.setattr(demo, "PEOPLE", (("Una", "Obi", una),))
    shown, up = quiet_up(tmp_path, "0.0.0.0")
    up._url = f"http://127.0.0.1:{api.ingress.port}"
    first, second = demo.random_password(), demo.random_password()
    for password in (first, second):
        up._make_demo(api.database, password)
    output = shown.getvalue()
    assert f"The password of {operator}, {una}, shown only now: {first}\n" in output
    assert output.count("The password of") == 1
    for email in (operator, una):
        assert api.ingress.login(email, first).status == 200
        assert api.ingress.login(email, demo_users.PASSWORD).status == 401


def quiet_up(folder: Path, host: str) -> tuple[io.StringIO, Up]:
    """One that is not run, and what it shows."""
    shown = io.StringIO()
    display = Display(Console(file=shown, highlight=False))
    return shown, Up(UpOptions(folder), UpSettings(http_host=host), display, threading.Event())


def operators(database: str, password: str) -> None:
    assert asyncio.run(demo._add_operator(database, password))


def signs_in(database: str, password: str) -> bool:
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT password_hash FROM ledger.users WHERE email = %s", (demo_users.OPERATOR,)
        ).fetchone()
    assert row is not None

    async def fits() -> bool:
        passwords = Passwords(1, 8_192)
        try:
            return await passwords.check_without_place(password, row[0])
        finally:
            passwords.close()

    return asyncio.run(fits())


@pytest.mark.parametrize(
    "where",
    [
        {"APP_ENV": "production", "SIGNING_KEY": SIGNING_KEY},
        {"HTTP_HOST": "10.255.255.1"},
    ],
)
def test_an_ingress_that_others_reach_refuses_the_demo_password(
    api: Api, database: str, tmp_path: Path, where: dict[str, str]
) -> None:
    operators(database, demo_users.PASSWORD)
    ingress = Ingress(tmp_path, {**api.pipeline.settings, "DATABASE_URL": database})
    port = str(ingress.port)
    try:
        ingress.process.start(HTTP_PORT=port, **where)
        assert ingress.process.wait(60) == 1
        last = ingress.process.log_text().splitlines()[-1]
        name = next(iter(where))
        assert last.startswith(f"streamledger: {name}={where[name]}: demo users have the demo")
        assert demo_users.OPERATOR in last
    finally:
        ingress.process.kill()


def test_production_takes_demo_users_with_another_password(
    api: Api, database: str, tmp_path: Path
) -> None:
    operators(database, "battery staple")
    settings = {**api.pipeline.settings, "DATABASE_URL": database, "APP_ENV": "production"}
    ingress = Ingress(tmp_path, settings)
    try:
        ingress.start()
        assert ingress.login(demo_users.OPERATOR, "battery staple").status == 200
    finally:
        ingress.process.kill()


def test_who_gets_the_demo_password_later_does_not_sign_in_with_it(
    api: Api, database: str, tmp_path: Path
) -> None:
    """The check at the start cannot see them, and may come late where Postgres is away."""
    settings = {**api.pipeline.settings, "DATABASE_URL": database, "APP_ENV": "production"}
    ingress = Ingress(tmp_path, settings)
    try:
        ingress.start()
        operators(database, demo_users.PASSWORD)
        for path in ("/login", "/auth/cookie"):
            body = {"email": demo_users.OPERATOR.title(), "password": demo_users.PASSWORD}
            assert ingress.post(path, body).code == "credentials_wrong"
        demo.replace_known_password(database, "battery staple")
        assert ingress.login(demo_users.OPERATOR, "battery staple").status == 200
    finally:
        ingress.process.kill()


def test_where_others_reach_it_nobody_registers_as_a_demo_user_or_with_the_demo_password(
    api: Api, database: str, tmp_path: Path
) -> None:
    """Otherwise one anonymous request would keep every later ingress from starting."""
    settings = {**api.pipeline.settings, "DATABASE_URL": database, "APP_ENV": "production"}
    ingress = Ingress(tmp_path, settings)
    name = {"name": "Mallory Moe"}
    try:
        ingress.start()
        for email, password, field in (
            (demo_users.OPERATOR.upper(), PASSWORD, "email"),
            ("mallory@example.com", demo_users.PASSWORD, "password"),
            ("mallory@example.com", "\uff50assword", "password"),
        ):
            asked = {**name, "email": email, "password": password}
            refused = ingress.post("/register", asked)
            assert (refused.status, refused.code) == (422, "fields_invalid")
            assert [error["field"] for error in refused.json["errors"]] == [field]
        mallory = ingress.person()
        change = {"current_password": PASSWORD, "password": demo_users.PASSWORD}
        refused = ingress.post("/auth/password", change, mallory.token)
        assert [error["field"] for error in refused.json["errors"]] == ["password"]
        assert ingress.login(mallory.email).status == 200
        ingress.process.kill()
        ingress.start()
    finally:
        ingress.process.kill()
