"""Wires the ingress and runs it: every part is created here, once, with plain arguments.

Keeps the rules that nothing is served before the topics are checked, and that a stop signal ends
the process cleanly at any moment. Creating the parts opens nothing. It has no rule about money.
"""

import asyncio
import signal
import time
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import structlog
import uvloop
from aiohttp import web
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from ingress.admin.audit_routes import AuditLog
from ingress.admin.first_admin import make_first_admin
from ingress.admin.session_routes import SessionAdminRoutes
from ingress.admin.user_routes import UserAdminRoutes
from ingress.audit.trail import AuditTrail
from ingress.auth import demo_users
from ingress.auth.access_tokens import AccessTokens
from ingress.auth.api_keys import ApiKeys
from ingress.auth.authenticator import Authenticator
from ingress.auth.cleanup import Cleanup
from ingress.auth.login_throttle import LoginThrottle
from ingress.auth.passwords import Passwords
from ingress.auth.profile_routes import ProfileRoutes
from ingress.auth.registration import Registration
from ingress.auth.revocations import Revocations
from ingress.auth.sign_in import SignIn
from ingress.auth.signing_keys import SigningKeys
from ingress.http import client_address, openapi, request_parsing, server
from ingress.http.api_docs import ApiDocs
from ingress.http.concurrent_waits import ConcurrentWaits
from ingress.http.health import Health, Probe
from ingress.http.position_tokens import PositionTokens
from ingress.http.roles import PUBLIC
from ingress.http.routes import Answer, Call, Route
from ingress.ledger.ledger_api import LedgerApi
from ingress.outbox_relay import OutboxRelay
from ingress.settings import IngressSettings
from ingress.users.directory import UserDirectory
from ingress.wallets.directory import WalletDirectory
from plumbing import logging, memory, metrics
from plumbing.failures import Failure
from plumbing.kafka import clients, topic_check
from plumbing.postgres import connection_pool
from plumbing.postgres.connection_pool import Pool
from plumbing.worker.crash_points import CrashPoints
from schemas import ids

START_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 2.0
RETRY_S = 0.5
SHUTDOWN_TIMEOUT_S = 5.0
CHECK_TIMEOUT_S = 10.0
# How many registrations may wait for the one thread that hashes their passwords.
MAX_WAITING_REGISTRATIONS = 64

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class IngressService:
    """The parts of the ingress, wired but not started."""

    settings: IngressSettings
    registry: CollectorRegistry
    pool: Pool
    authenticator: Authenticator
    revocations: Revocations
    passwords: Passwords
    registration_passwords: Passwords
    users: UserDirectory
    wallets: WalletDirectory
    ledger: LedgerApi
    trail: AuditTrail
    api_docs: ApiDocs
    routes: list[Route]
    about: dict[str, str]

    def application(self) -> web.Application:
        app = web.Application(
            middlewares=[
                server.edge(
                    self.registry,
                    client_address.parse_networks(self.settings.trusted_proxies),
                    self.trail.add_problem,
                )
            ],
            client_max_size=request_parsing.MAX_BODY_BYTES,
        )
        server.add(
            app,
            self.routes,
            self.authenticator,
            ConcurrentWaits(self.settings.waits_per_user),
            self.settings.api_v1_prefix,
        )
        document = openapi.document(self.routes, self.settings.api_v1_prefix, self.about)
        self.api_docs.set_openapi(document)
        return app


def build_service(
    settings: IngressSettings,
    version: str,
    pool: Pool,
    kafka_probe: Probe,
    postgres_probe: Probe,
) -> IngressService:
    about = {
        "name": settings.app_name,
        "service": "ingress",
        "version": version,
        "ledger": settings.ledger_id,
        "environment": settings.app_env,
    }
    registry = metrics.registry("ingress", version, settings.ledger_id)
    crash = CrashPoints(settings.crash_at, settings.crash_chance)
    keys = SigningKeys.from_settings(settings)
    access = AccessTokens(keys, settings.ledger_id, settings.access_token_ttl_s)
    revocations = Revocations(
        settings.database_url or "", _client_id(settings), settings.access_token_ttl_s
    )
    passwords = Passwords(settings.password_concurrency, settings.password_memory_kib)
    registration_passwords = Passwords(1, settings.password_memory_kib, MAX_WAITING_REGISTRATIONS)
    attempts = LoginThrottle(settings, keys)
    users = UserDirectory(pool)
    wallets = WalletDirectory(pool)
    revocations.subscribe(users.forget)
    sign_in = SignIn(settings, pool, keys, access, passwords, attempts, users, wallets)
    registration = Registration(
        settings, pool, registration_passwords, attempts, wallets, sign_in, crash
    )

    async def revocations_probe(timeout_s: float) -> str | None:
        error = await postgres_probe(timeout_s)
        if error is None and not revocations.loaded:
            return "revocations not loaded yet"
        return error

    health = Health(about, {"kafka": kafka_probe, "postgres": revocations_probe})
    api_docs = ApiDocs()
    positions = PositionTokens(settings.ledger_id)
    trail = AuditTrail(pool)
    ledger = LedgerApi(settings, pool, keys, users, wallets, crash, positions, trail)
    routes = [
        *registration.routes(),
        *sign_in.routes(),
        *ProfileRoutes(settings, pool, passwords, attempts, users).routes(),
        *ApiKeys(settings, pool, passwords, attempts).routes(),
        *UserAdminRoutes(pool, users, positions).routes(),
        *SessionAdminRoutes(pool, users).routes(),
        *AuditLog(pool, users, positions).routes(),
        *ledger.routes(),
        *api_docs.routes(),
        *health.routes(),
        _metrics_route(registry),
    ]
    return IngressService(
        settings=settings,
        registry=registry,
        pool=pool,
        authenticator=Authenticator(pool, keys, access, revocations),
        revocations=revocations,
        passwords=passwords,
        registration_passwords=registration_passwords,
        users=users,
        wallets=wallets,
        ledger=ledger,
        trail=trail,
        api_docs=api_docs,
        routes=routes,
        about=about,
    )


def run() -> None:
    """Serves until SIGTERM or SIGINT. Raises a Failure if the operator can act on it."""
    memory.collect_rarely()
    uvloop.run(_serve(IngressSettings.read()))


async def _serve(settings: IngressSettings) -> None:
    logging.configure("ingress", settings)
    version = metadata.version("streamledger")
    client_id = _client_id(settings)
    admin = clients.admin(settings, ids.service_name(settings.ledger_id, "ingress"))
    stop = _stop_on_signal()
    pool = connection_pool.pool(settings.database, settings.database_pool_size, client_id)
    # A separate pool: an exhausted pool for requests must not make /ready fail.
    probing = connection_pool.pool(settings.database, 1, f"{client_id}-ready")
    if not await _wait_for_kafka(admin, settings, stop):
        return
    await asyncio.to_thread(topic_check.check_topics, admin, settings)
    await connection_pool.check_not_refused(settings.database)

    async def kafka_probe(timeout_s: float) -> str | None:
        return await asyncio.to_thread(clients.unreachable_reason, admin, timeout_s)

    async def postgres_probe(timeout_s: float) -> str | None:
        return await connection_pool.unreachable_reason(probing, timeout_s)

    service = build_service(settings, version, pool, kafka_probe, postgres_probe)
    relay = OutboxRelay(pool, service.ledger, CrashPoints(settings.crash_at, settings.crash_chance))
    service.wallets.nudge = relay.nudge
    cleanup = Cleanup(pool)
    runner = server.Runner(service.application(), shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    try:
        await pool.open()
        await probing.open()
        first_admin = asyncio.get_running_loop().create_task(
            make_first_admin(settings, pool, service.passwords)
        )
        demo_check = asyncio.get_running_loop().create_task(
            demo_users.refuse_demo_password(settings, pool, service.passwords)
        )
        # While Postgres is down nobody can sign in, so the check may finish later.
        await asyncio.wait({demo_check}, timeout=CHECK_TIMEOUT_S)
        if demo_check.done():
            demo_check.result()
        await service.ledger.start()
        service.revocations.start()
        service.trail.start()
        relay.start()
        cleanup.start()
        await runner.setup()
        await _listen(runner, settings)
        log.info("serving", host=settings.http_host, port=settings.http_port, version=version)
        tasks = (
            first_admin,
            demo_check,
            service.revocations.task,
            service.trail.task,
            relay.task,
            cleanup.task,
        )
        await _stopped(stop, *tasks, service.ledger.ended)
        log.info("stopping")
    finally:
        await runner.cleanup()
        await cleanup.close()
        await relay.close()
        await service.ledger.close()
        await service.revocations.close()
        await service.trail.close()
        service.passwords.close()
        service.registration_passwords.close()
        await probing.close()
        await pool.close()


def _client_id(settings: IngressSettings) -> str:
    return f"{settings.ledger_id}-ingress"


def _metrics_route(registry: CollectorRegistry) -> Route:
    show = metrics.handler(registry)

    async def show_metrics(call: Call[None, None]) -> Answer | web.StreamResponse:
        return await show(call.request)

    return Route(
        method="GET",
        path="/metrics",
        handler=show_metrics,
        summary="Metrics for Prometheus",
        tag="About",
        roles=PUBLIC,
        answers={200: "text/plain"},
        versioned=False,
    )


async def _stopped(stop: asyncio.Event, *tasks: asyncio.Future[None]) -> None:
    """Returns when `stop` is set. Raises the error of a task that fails before that."""
    stop_requested = asyncio.get_running_loop().create_task(stop.wait())
    waiting: set[asyncio.Future[Any]] = {stop_requested, *tasks}
    while not stop_requested.done():
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    for task in waiting:
        task.cancel()


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _wait_for_kafka(
    admin: AdminClient, settings: IngressSettings, stop: asyncio.Event
) -> bool:
    """Waits for the broker. Returns False if `stop` is set first. Raises a Failure on timeout."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not stop.is_set():
        error = await asyncio.to_thread(clients.unreachable_reason, admin, PROBE_TIMEOUT_S)
        if error is None:
            return True
        if time.monotonic() > deadline:
            raise Failure(f"Kafka at {settings.brokers} does not answer: {error}")
        log.warning("waiting for Kafka", error=error)
        try:
            await asyncio.wait_for(stop.wait(), RETRY_S)
        except TimeoutError:
            continue
    return False


async def _listen(runner: web.AppRunner, settings: IngressSettings) -> None:
    site = web.TCPSite(runner, settings.http_host, settings.http_port)
    try:
        await site.start()
    except OSError as error:
        where = f"{settings.http_host}:{settings.http_port}"
        raise Failure(
            f"cannot listen at {where} (HTTP_HOST, HTTP_PORT): {error.strerror}"
        ) from None
