"""Kafka clients: how they connect, made from one settings value, and the producer of commands.

Keeps the rule that each command reaches the partition its account belongs to: librdkafka is told
to hash as Java does. What is produced and consumed is the services' own affair.
"""

import ssl
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from plumbing.settings import KafkaSettings, SettingsError

ClientConfig = dict[str, str | int | float | bool]


def client(settings: KafkaSettings, client_id: str) -> ClientConfig:
    """What every librdkafka client of ours begins with."""
    config: ClientConfig = {
        "bootstrap.servers": settings.brokers,
        "client.id": settings.topic_prefix + client_id,
        "security.protocol": settings.kafka_security_protocol,
        "reconnect.backoff.max.ms": 1_000,
        # Its own lines on each broken connection are for no one; errors reach who calls.
        "log_level": 2,
    }
    if settings.kafka_ssl_ca_location is not None:
        config["ssl.ca.location"] = str(settings.kafka_ssl_ca_location)
    if settings.kafka_sasl_mechanism is not None:
        config |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_sasl_username or "",
            "sasl.password": _password(settings) or "",
        }
    return config


def aiokafka_client(settings: KafkaSettings, client_id: str) -> dict[str, Any]:
    """The same for aiokafka's clients, as keyword arguments."""
    config: dict[str, Any] = {
        "bootstrap_servers": settings.brokers.split(","),
        "client_id": settings.topic_prefix + client_id,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        config["ssl_context"] = _ssl_context(settings)
    if settings.kafka_sasl_mechanism is not None:
        config |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": _password(settings),
        }
    return config


def command_producer(settings: KafkaSettings, client_id: str) -> Producer:
    """Idempotent, acks=all, Java's partitioner: the only way that we write to `commands`."""
    return Producer(
        {
            **client(settings, client_id),
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 1,
        }
    )


def admin(settings: KafkaSettings, client_id: str) -> AdminClient:
    return AdminClient(client(settings, client_id))


def reachable(admin: AdminClient, timeout_s: float) -> str | None:
    """None when the cluster answers in time, else why not. It blocks: call it in a thread."""
    try:
        admin.describe_cluster(request_timeout=timeout_s).result()
    except KafkaException as error:
        cause: KafkaError = error.args[0]
        return str(cause.str())
    return None


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    location = settings.kafka_ssl_ca_location
    try:
        return ssl.create_default_context(cafile=location)
    except OSError as error:
        raise SettingsError(
            f"KAFKA_SSL_CA_LOCATION={location}: not a file of certificates (PEM): {error}"
        ) from None


def _password(settings: KafkaSettings) -> str | None:
    secret = settings.kafka_sasl_password
    return secret.get_secret_value() if secret is not None else None
