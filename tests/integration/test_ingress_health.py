"""The ingress as its own process: it tells what runs and what it reaches, and stops cleanly."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from compose import provisioning
from compose.embedded import postgres as servers
from plumbing import setting_names
from tests.testkit.waiting import eventually

DEADLINE_S = 60.0
Env = dict[str, str]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def env(kafka: str, topic_prefix: str, database: str) -> Env:
    outside = {name: value for name, value in os.environ.items() if name not in setting_names.ALL}
    ours = {
        "KAFKA_BROKERS": kafka,
        "TOPIC_PREFIX": topic_prefix,
        "PARTITIONS": "2",
        "DATABASE_URL": database,
        "HTTP_PORT": str(free_port()),
        "LEDGER_ID": "books",
    }
    return outside | ours


def create_topics(env: Env) -> None:
    values = {name: env[name] for name in ("KAFKA_BROKERS", "TOPIC_PREFIX", "PARTITIONS")}
    settings = provisioning.ProvisionSettings.model_validate(values)
    provisioning.create_topics(settings.brokers, settings)


@asynccontextmanager
async def ingress(env: Env, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "compose.cli.main", "ingress"),
        env={**env, "PYTHONFAULTHANDLER": "1"},
        cwd=folder,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def said(process: asyncio.subprocess.Process) -> bytes:
    """All that it says, once it has ended by itself."""
    end = asyncio.ensure_future(process.communicate())
    try:
        return (await asyncio.wait_for(asyncio.shield(end), DEADLINE_S))[1]
    except TimeoutError:
        process.send_signal(signal.SIGABRT)  # it shows where it is
        raise AssertionError(f"it goes on:\n{(await end)[1].decode()}") from None


async def get(env: Env, path: str) -> tuple[int, str]:
    url = f"http://127.0.0.1:{env['HTTP_PORT']}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


async def health(env: Env) -> dict[str, object]:
    url = f"http://127.0.0.1:{env['HTTP_PORT']}/health"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
        body: dict[str, object] = await answer.json()
        return body


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    """Beside the loop, whose processes are asked."""
    loop = asyncio.get_running_loop()

    async def has_come() -> bool:
        try:
            return await done()
        except aiohttp.ClientConnectionError:
            return False

    def come() -> bool:
        return asyncio.run_coroutine_threadsafe(has_come(), loop).result(DEADLINE_S)

    await asyncio.to_thread(eventually, come, DEADLINE_S)


async def test_it_tells_what_runs_and_stops_on_sigterm(env: Env, tmp_path: Path) -> None:
    create_topics(env)
    async with ingress(env, tmp_path) as process:

        async def ready() -> bool:
            return (await get(env, "/ready"))[0] == 200

        await until(ready)
        told = await health(env)
        assert (told["name"], told["service"], told["ledger"]) == (
            "streamledger",
            "ingress",
            "books",
        )
        assert told["status"] == "ok"
        assert told["kafka"] == {"reachable": True}
        assert told["postgres"] == {"reachable": True}
        assert isinstance(told["uptime_s"], float)
        assert told["uptime_s"] < DEADLINE_S

        assert (await get(env, "/no/such/page"))[0] == 404
        status, text = await get(env, "/metrics")
        assert status == 200
        assert 'streamledger_info{ledger="books",service="ingress"' in text
        assert (
            'streamledger_http_requests_total{method="GET",route="/health",status="200"} 1.0'
            in text
        )
        assert (
            'streamledger_http_requests_total{method="GET",route="none",status="404"} 1.0' in text
        )

        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_without_postgres_it_serves_and_says_so(env: Env, tmp_path: Path) -> None:
    create_topics(env)
    env["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
    async with ingress(env, tmp_path):

        async def degraded() -> bool:
            return (await health(env))["status"] == "degraded"

        await until(degraded)
        told = await health(env)
        assert told["kafka"] == {"reachable": True}
        assert told["postgres"] == {"reachable": False}
        status, text = await get(env, "/ready")
        assert status == 503
        assert "127.0.0.1" not in text


async def test_a_password_that_postgres_refuses_ends_the_start(env: Env, tmp_path: Path) -> None:
    create_topics(env)
    user = urlsplit(env["DATABASE_URL"]).username or ""
    env["DATABASE_URL"] = servers.as_user(env["DATABASE_URL"], user, "not-the-password")
    async with ingress(env, tmp_path) as process:
        errors = (await said(process)).decode()
    assert process.returncode == 1
    assert "Postgres refuses the connection" in errors and "DATABASE_URL" in errors
    assert len(errors.splitlines()) == 1
    assert "not-the-password" not in errors


async def test_it_refuses_unsafe_topics(env: Env, tmp_path: Path) -> None:
    async with ingress(env, tmp_path) as process:
        errors = await said(process)
    assert process.returncode == 1
    assert b"commands: not there; `streamledger topics create` makes it" in errors
    assert b"Traceback" not in errors


async def test_a_busy_port_is_one_clear_line(env: Env, tmp_path: Path) -> None:
    create_topics(env)
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(env["HTTP_PORT"])))
        other.listen()
        async with ingress(env, tmp_path) as process:
            errors = await said(process)
    assert process.returncode == 1
    last = errors.decode().splitlines()[-1]
    assert last.startswith(f"streamledger: cannot listen at 127.0.0.1:{env['HTTP_PORT']}")
    assert b"Traceback" not in errors


async def test_it_can_be_stopped_while_it_waits_for_kafka(env: Env, tmp_path: Path) -> None:
    env["KAFKA_BROKERS"] = "127.0.0.1:1"
    async with ingress(env, tmp_path) as process:
        assert process.stderr is not None
        line = await asyncio.wait_for(process.stderr.readline(), DEADLINE_S)
        assert b"waiting for Kafka" in line
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0
