"""The wiring of the ingress: every part made here, once, and handed its arguments plainly.

Keeps the rule that nothing is served before the topics were found safe, and that a stop signal
ends it cleanly at any moment. It holds no rule about money and no handler of its own.
"""

import asyncio
import signal
import time
from importlib import metadata

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from ingress.health import Health, Probe
from ingress.settings import IngressSettings
from plumbing import kafka, logging, metrics, postgres, topics_check
from plumbing.failures import Failure

START_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 2.0
RETRY_S = 0.5
SHUTDOWN_TIMEOUT_S = 5.0

log = structlog.stdlib.get_logger(__name__)


def application(
    settings: IngressSettings,
    version: str,
    registry: CollectorRegistry,
    kafka_probe: Probe,
    postgres_probe: Probe,
) -> web.Application:
    about = {
        "name": settings.app_name,
        "service": "ingress",
        "version": version,
        "ledger": settings.ledger_id,
        "environment": settings.app_env,
    }
    health = Health(about, {"kafka": kafka_probe, "postgres": postgres_probe})
    app = web.Application(middlewares=[_measured(registry)])
    app.add_routes(health.routes())
    app.router.add_get("/metrics", metrics.handler(registry))
    return app


async def run(settings: IngressSettings) -> None:
    """Serves until SIGTERM or SIGINT."""
    logging.configure("ingress", settings)
    version = metadata.version("streamledger")
    client_id = f"{settings.ledger_id}-ingress"
    database = settings.database
    admin = kafka.admin(settings, client_id)
    stop = _stop_on_signal()
    if not await _kafka_is_there(admin, settings, stop):
        return
    await asyncio.to_thread(topics_check.check_topics, admin, settings)
    pool = postgres.pool(database, settings.database_pool_size, client_id)

    async def kafka_probe(timeout_s: float) -> str | None:
        return await asyncio.to_thread(kafka.reachable, admin, timeout_s)

    async def postgres_probe(timeout_s: float) -> str | None:
        return await postgres.reachable(pool, timeout_s)

    registry = metrics.registry("ingress", version, settings.ledger_id)
    app = application(settings, version, registry, kafka_probe, postgres_probe)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    try:
        await pool.open()
        await runner.setup()
        await _listen(runner, settings)
        log.info("serving", host=settings.http_host, port=settings.http_port, version=version)
        await stop.wait()
        log.info("stopping")
    finally:
        await runner.cleanup()
        await pool.close()


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _kafka_is_there(
    admin: AdminClient, settings: IngressSettings, stop: asyncio.Event
) -> bool:
    """Waits for the broker for a while; False when asked to stop meanwhile."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not stop.is_set():
        error = await asyncio.to_thread(kafka.reachable, admin, PROBE_TIMEOUT_S)
        if error is None:
            return True
        if time.monotonic() > deadline:
            raise Failure(f"Kafka at {settings.brokers} gives no answer: {error}")
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


def _measured(registry: CollectorRegistry) -> Middleware:
    requests = metrics.counter(registry, metrics.HTTP_REQUESTS)
    seconds = metrics.histogram(registry, metrics.HTTP_SECONDS)

    @web.middleware
    async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "none"
        # A client may make methods up; a label has few values.
        method = request.method if request.method in hdrs.METH_ALL else "other"
        started = time.perf_counter()
        status = 500
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as answer:
            status = answer.status
            raise
        finally:
            seconds.labels(method, route).observe(time.perf_counter() - started)
            requests.labels(method, route, str(status)).inc()
        return response

    return measure
