"""Kafka clients: how they connect, made from one settings value, and the producer of commands.

Keeps the rule that each command reaches the partition that its account belongs to: librdkafka
hashes as Java does. What is produced and consumed is the services' own affair.
"""

import ssl
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it hides OffsetSpec
    AdminClient,
    OffsetSpec,
)

from plumbing.failures import Failure
from plumbing.kafka import auth_errors
from plumbing.settings import KafkaSettings, SettingsError

# Values, and functions that are called back: whatever the client takes.
ClientConfig = dict[str, Any]

LOG_PAUSE_S = 5.0
MAX_HEARTBEAT_MS = 500
# A broker that has just started answers so, until it learns which partitions it leads.
TRANSIENT: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError._TRANSPORT,
    }
)
# A batch of `commands` is small in its topic, but may be compressed from much more.
LARGEST_RESPONSE: Final[ClientConfig] = {"receive.message.max.bytes": 2**31 - 1}
RETRY_PAUSE_S: Final = 0.2
METADATA_TIMEOUT_S: Final = 2.0


class NoAnswer(Failure):
    """The brokers did not answer; they may later."""


def client_config(settings: KafkaSettings, client_id: str) -> ClientConfig:
    """The configuration that all librdkafka clients share."""
    config: ClientConfig = {
        "bootstrap.servers": settings.brokers,
        "client.id": f"{settings.topic_prefix}:{client_id}",
        "security.protocol": settings.kafka_security_protocol,
        "reconnect.backoff.max.ms": 1_000,
        # Without the client's own lines about each broken connection: errors reach the caller.
        "log_level": 2,
    }
    given = {
        "ssl.ca.location": settings.kafka_ssl_ca_location,
        "ssl.certificate.location": settings.kafka_ssl_certificate_location,
        "ssl.key.location": settings.kafka_ssl_key_location,
        "ssl.key.password": _secret(settings.kafka_ssl_key_password),
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": _secret(settings.kafka_sasl_password),
    }
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        given |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": settings.kafka_oauth_token_url,
            "sasl.oauthbearer.client.id": settings.kafka_oauth_client_id,
            "sasl.oauthbearer.client.secret": _secret(settings.kafka_oauth_client_secret),
            "sasl.oauthbearer.scope": settings.kafka_oauth_scope,
            "https.ca.location": settings.kafka_oauth_ca_location,
        }
    return config | {name: str(value) for name, value in given.items() if value is not None}


def long_running_client_config(settings: KafkaSettings, client_id: str, log: Any) -> ClientConfig:
    """The same for clients that reconnect by themselves: they log when brokers refuse them."""
    config = client_config(settings, client_id)
    logged_at = 0.0

    def complain(error: KafkaError) -> None:
        nonlocal logged_at
        why = auth_errors.refusal(config, error)
        if why is not None and time.monotonic() - logged_at > LOG_PAUSE_S:
            logged_at = time.monotonic()
            log.error("Kafka refused this client", reason=why)

    return {**config, "error_cb": complain}


def ssl_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """The same TLS for clients that are not librdkafka; None without TLS."""
    if not settings.kafka_security_protocol.endswith("SSL"):
        return None
    location = settings.kafka_ssl_ca_location
    try:
        context = ssl.create_default_context(cafile=location)
    except OSError as error:
        raise SettingsError(
            f"KAFKA_SSL_CA_LOCATION={location}: not a file of certificates (PEM): {error}"
        ) from None
    certificate, key = settings.kafka_ssl_certificate_location, settings.kafka_ssl_key_location
    if certificate is not None:
        password = _secret(settings.kafka_ssl_key_password) or ""
        try:
            context.load_cert_chain(certificate, key, password)
        except OSError as error:
            raise SettingsError(
                f"KAFKA_SSL_CERTIFICATE_LOCATION={certificate}, KAFKA_SSL_KEY_LOCATION={key}: not a"
                f" certificate and its key (PEM), or another KAFKA_SSL_KEY_PASSWORD: {error}"
            ) from None
    return context


def command_producer(settings: KafkaSettings, client_id: str) -> Producer:
    """Idempotent, acks=all, Java's partitioner: the only way that we write to `commands`."""
    return Producer(
        {
            **client_config(settings, client_id),
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 1,
        }
    )


def committed_consumer(config: Mapping[str, Any]) -> Consumer:
    """A consumer in no group, of partitions and offsets that the caller assigns. It sees committed
    records and each partition's end, unless the configuration says otherwise.
    """
    return Consumer(
        {
            # Required by the client; nothing is ever committed or subscribed under it.
            "group.id": "none",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            **config,
        }
    )


class Admin(AdminClient):
    """Remembers why brokers refused it: its calls report only a time-out."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self._config = client_config(settings, client_id)
        self._refused: str | None = None
        config: ClientConfig = {**self._config, "error_cb": self._hear}
        super().__init__(config)

    def last_refusal(self) -> str | None:
        """Why brokers refused it since the last call; None if they did not."""
        self.poll(0)
        why, self._refused = self._refused, None
        return why

    def _hear(self, error: KafkaError) -> None:
        # librdkafka reports the refusal and the connection's end in turn; the latter is no reason.
        self._refused = auth_errors.refusal(self._config, error) or self._refused


def admin(settings: KafkaSettings, client_id: str) -> Admin:
    return Admin(settings, client_id)


def unreachable_reason(admin: AdminClient, timeout_s: float) -> str | None:
    """None when the cluster answers in time, else why not. It blocks: call it in a thread."""
    why: str | None = None
    try:
        admin.describe_cluster(request_timeout=timeout_s).result()
    except KafkaException as error:
        why = str(error.args[0].str())
    # Read it in any case: an old refusal does not explain a later failure.
    refused = admin.last_refusal() if isinstance(admin, Admin) else None
    return why and (refused or why)


def heartbeat_ms(session_timeout_ms: int) -> int:
    """How often a group member sends a heartbeat. It learns of a rebalance with the next one, so
    this bounds a hand-over."""
    return min(MAX_HEARTBEAT_MS, session_timeout_ms // 5)


def watermarks(consumer: Consumer, where: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """The partition's first offset and its end; retried while brokers come back."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return consumer.get_watermark_offsets(where, timeout=timeout_s)
        except KafkaException as error:
            if error.args[0].code() not in TRANSIENT or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_PAUSE_S)
            # A client that asked too early does not know the partition until it fetches metadata.
            with suppress(KafkaException):
                consumer.list_topics(where.topic, timeout=METADATA_TIMEOUT_S)


def request_ends(
    admin: AdminClient,
    where: Iterable[TopicPartition],
    timeout_s: float,
    level: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[TopicPartition, Future[Any]]:
    """Where partitions end for readers of that level; an answer for each, that has an `offset`. The
    dictionary is the client's still: nothing may be taken out of it."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # it has no types
    futures: dict[TopicPartition, Future[Any]] = admin.list_offsets(
        dict.fromkeys(where, latest), isolation_level=level, request_timeout=timeout_s
    )
    return futures


def _secret(secret: Any) -> str | None:
    return None if secret is None else str(secret.get_secret_value())
