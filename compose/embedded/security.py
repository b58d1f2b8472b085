"""An embedded Kafka that authenticates clients and gives each user only the rights it needs.

The brokers know one user by their own settings, `admin`, as whom they speak with each other; all
others are kept in Kafka, and are created again at each start, so that the data folder's file of
passwords and Kafka never differ. It must not know what each user needs: that is for `compose.acls`.
"""

from collections.abc import Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from compose import acls
from compose.acls import KafkaUser, Wanted
from compose.embedded.problems import RuntimeProblem
from schemas.topics import Names

ADMIN = "admin"
USERS = (ADMIN, *KafkaUser)
PROTOCOL = "SASL_PLAINTEXT"
MECHANISM = "SCRAM-SHA-512"
# The least that Kafka takes: the passwords are random.
ITERATIONS = 4_096
TIMEOUT_S = 30.0
_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


def properties(password: str, protocol: str = PROTOCOL) -> dict[str, str]:
    """Of each broker, with the password of `admin`: its file of settings is private."""
    listener = f"listener.name.{protocol.lower()}"
    own = f'{_PLAIN} required username="{ADMIN}" password="{password}" user_{ADMIN}="{password}";'
    return {
        "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:{PROTOCOL}",
        "sasl.enabled.mechanisms": f"PLAIN,{MECHANISM}",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        f"{listener}.plain.sasl.jaas.config": own,
        f"{listener}.{MECHANISM.lower()}.sasl.jaas.config": f"{_SCRAM} required;",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.controller.plain.sasl.jaas.config": own,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN}",
    }


def client(user: str, password: str, protocol: str = PROTOCOL) -> dict[str, str]:
    """What a client of librdkafka needs beside the address."""
    return {
        "security.protocol": protocol,
        "sasl.mechanism": _mechanism(user),
        "sasl.username": user,
        "sasl.password": password,
    }


def settings(user: str, password: str, protocol: str = PROTOCOL) -> dict[str, str]:
    """The same as settings of ours."""
    return {
        "KAFKA_SECURITY_PROTOCOL": protocol,
        "KAFKA_SASL_MECHANISM": _mechanism(user),
        "KAFKA_SASL_USERNAME": user,
        "KAFKA_SASL_PASSWORD": password,
    }


def java_properties(user: str, password: str, protocol: str = PROTOCOL) -> dict[str, str]:
    """The same for Kafka's own tools."""
    module = _PLAIN if user == ADMIN else _SCRAM
    return {
        "security.protocol": protocol,
        "sasl.mechanism": _mechanism(user),
        "sasl.jaas.config": f'{module} required username="{user}" password="{password}";',
    }


def admit(
    brokers: Mapping[str, str | int | float | bool],
    passwords: Mapping[str, str],
    names: Names,
    ledger_id: str,
) -> None:
    """Makes every user but `admin`, with his password and his rights. `brokers` is how `admin`
    reaches them."""
    admin = AdminClient(dict(brokers))
    roles = [Wanted(role, str(role)) for role in KafkaUser]
    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
    made: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(each.user, how, passwords[each.user].encode())
        for each in roles
    ]
    try:
        for done in admin.alter_user_scram_credentials(made, request_timeout=TIMEOUT_S).values():
            done.result()
    except KafkaException as error:
        raise RuntimeProblem(f"Kafka's users cannot be made: {error.args[0].str()}.") from error
    acls.apply(admin, roles, names, ledger_id)


def _mechanism(user: str) -> str:
    return "PLAIN" if user == ADMIN else MECHANISM
