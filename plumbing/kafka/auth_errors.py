"""What an operator reads when brokers refuse a client: the settings to check, never a secret.

Waiting mends no error of authentication, TLS or authorization. Other errors pass unchanged.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException

from plumbing.failures import Failure

AUTHENTICATION_ERRORS: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
AUTHORIZATION_ERRORS: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)


class BrokersRefused(Failure):
    """The brokers refuse this client: it needs another password, certificate or right, not more
    time."""

    exit_code = 2


def refusal(config: Mapping[str, Any], error: KafkaError) -> str | None:
    """What an operator can do about an error that no waiting mends; None for any other error."""
    where = f"Kafka at {config['bootstrap.servers']}"
    protocol = f"KAFKA_SECURITY_PROTOCOL={config['security.protocol']}"
    if error.code() in AUTHENTICATION_ERRORS:
        mechanism = config.get("sasl.mechanism")
        look_at = f"KAFKA_SASL_MECHANISM={mechanism}, KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD"
        if mechanism == "OAUTHBEARER":
            look_at = "KAFKA_OAUTH_TOKEN_URL, KAFKA_OAUTH_CLIENT_ID, KAFKA_OAUTH_CLIENT_SECRET"
        elif mechanism is None:
            look_at = protocol
        return f"{where} refuses {_who(config)}: {error.str()} ({look_at})"
    # If the connection ends at the same moment, the client reports that, with the reason of TLS.
    if error.code() == KafkaError._SSL or "SSL routines" in error.str():
        look_at = f"{protocol}, KAFKA_SSL_CA_LOCATION={config.get('ssl.ca.location', '')}"
        return f"{where}: no TLS with it: {error.str()} ({look_at})"
    if error.code() in AUTHORIZATION_ERRORS:
        return f"{where} does not let {_who(config)} do that: {error.str()} (docs/securing.md)"
    return None


def with_operator_hint(config: Mapping[str, Any], error: BaseException) -> BaseException:
    """The error, or in its place what an operator can do about it."""
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        why = refusal(config, error.args[0])
        if why is not None:
            return BrokersRefused(why)
    return error


@contextmanager
def as_failures(config: Mapping[str, Any]) -> Iterator[None]:
    """For a command at a terminal: one line for what the brokers refuse or do not answer."""
    try:
        yield
    except KafkaException as error:
        why = with_operator_hint(config, error)
        if why is error:
            why = Failure(f"Kafka at {config['bootstrap.servers']}: {error.args[0].str()}")
        raise why from None


def _who(config: Mapping[str, Any]) -> str:
    if (name := config.get("sasl.username")) is not None:
        return f"the user {name!r}"
    if (name := config.get("sasl.oauthbearer.client.id")) is not None:
        return f"the client {name!r}"
    return "us"
