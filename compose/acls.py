"""What each user of a secured cluster may do: of our services, and of those beside them.

Keeps the rule that a topic is written by its one writer alone, and that nobody may do more than he
does. All of it follows from the names of the topics and the ledger's id, so that two ledgers on the
same brokers do not reach each other.
"""

import shlex
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from enum import StrEnum
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not marked so
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from plumbing.failures import Failure
from schemas import ids
from schemas.topics import ALL, Names

TIMEOUT_S = 30.0
CLUSTER = "kafka-cluster"
# What clients that read by position call their group, because librdkafka wants one: it asks where
# that is coordinated, and nobody ever joins it.
NO_GROUP = "none"


class KafkaUser(StrEnum):
    """Who there is. The words are what `streamledger topics acls` takes."""

    PROCESSOR = "processor"
    SINK = "sink"
    INGRESS = "ingress"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    PRODUCER = "producer"
    ANALYST = "analyst"


ABOUT = {
    KafkaUser.PROCESSOR: "`streamledger processor`, `rebuild state`",
    KafkaUser.SINK: "`streamledger sink`",
    KafkaUser.INGRESS: "`streamledger ingress`",
    KafkaUser.OPERATOR: (
        "`topics create`, `topics check`, `configure`, `log-time`, `dead-letters`; all reading"
    ),
    KafkaUser.AUDITOR: "`streamledger verify`, `rebuild postgres`, `consume`: all reading",
    KafkaUser.PRODUCER: "another producer: sends commands, reads its results",
    KafkaUser.ANALYST: "readers of `transactions`",
}


class ResourceKind(StrEnum):
    """Of what a right is one; the words are the options of `kafka-acls`."""

    TOPIC = "topic"
    GROUP = "group"
    TRANSACTIONAL_ID = "transactional-id"
    CLUSTER = "cluster"


class Right(NamedTuple):
    """Operations on everything of one kind that has this name, or one that begins with it."""

    operations: tuple[str, ...]
    kind: ResourceKind
    name: str
    prefixed: bool = False


def of(role: KafkaUser, user: str, names: Names, ledger_id: str) -> list[Right]:
    """All rights of one role. Those who are not ours have their groups by their own name."""
    ours = ids.service_ids(names.prefix, ledger_id, role)
    rights = [Right(("Describe",), ResourceKind.GROUP, NO_GROUP)]
    if role in (KafkaUser.PROCESSOR, KafkaUser.SINK, KafkaUser.INGRESS, KafkaUser.OPERATOR):
        # For the check at the start.
        rights += _topics(("Describe", "DescribeConfigs"), *map(names.name_of, ALL))
        rights.append(Right(("DescribeConfigs",), ResourceKind.CLUSTER, CLUSTER))
    if role is KafkaUser.PROCESSOR:
        written = (names.journal, names.transactions, names.state, names.commands_dead)
        rights += _topics(("Read",), names.commands, names.state, names.journal)
        # It deletes the records of `coordination` that it has read, never the topic.
        rights += _topics(("Read", "Write", "Delete"), names.coordination)
        rights += _topics(("Write",), *written)
    elif role is KafkaUser.SINK:
        rights += _topics(("Read",), names.journal)
        rights += _topics(("Read", "Write"), names.results, names.results_positions)
    elif role is KafkaUser.INGRESS:
        rights += _topics(("Write",), names.commands)
        rights += _topics(("Read",), names.results)
    elif role is KafkaUser.OPERATOR:
        rights += _topics(("Create", "Read"), *map(names.name_of, ALL))
        rights += _topics(("Write",), names.commands, names.coordination)
        # `configure` asks which workers run, and what they support.
        for service in (KafkaUser.PROCESSOR, KafkaUser.SINK):
            members = ids.service_ids(names.prefix, ledger_id, service)
            rights.append(Right(("Describe",), ResourceKind.GROUP, members, True))
    elif role is KafkaUser.AUDITOR:
        rights += _topics(("Read",), *map(names.name_of, ALL))
        # What is still to be there depends on how long the topic keeps it.
        rights += _topics(("DescribeConfigs",), names.transactions, names.results)
    elif role is KafkaUser.PRODUCER:
        rights += _topics(("Write",), names.commands)
        rights += _topics(("Read",), names.results)
    else:
        rights += _topics(("Read",), names.transactions)
    if role in (KafkaUser.PROCESSOR, KafkaUser.SINK):
        rights.append(Right(("Describe", "Write"), ResourceKind.TRANSACTIONAL_ID, ours, True))
        rights.append(Right(("Read",), ResourceKind.GROUP, ours, True))
    elif role is KafkaUser.INGRESS:
        rights.append(Right(("Read",), ResourceKind.GROUP, ours, True))
    elif role in (KafkaUser.PRODUCER, KafkaUser.ANALYST):
        rights.append(Right(("Read",), ResourceKind.GROUP, f"{user}-", True))
    if role is KafkaUser.PRODUCER:
        rights.append(Right(("Describe", "Write"), ResourceKind.TRANSACTIONAL_ID, f"{user}-", True))
    return rights


class UnknownRole(Failure):
    exit_code = 2


class Wanted(NamedTuple):
    """A role and the user who has it."""

    role: KafkaUser
    user: str


def wanted(role: str | None, user: str | None) -> list[Wanted]:
    """One role, or all of them, each of a user who is called like it."""
    if role is None:
        if user is not None:
            raise UnknownRole(f"name the role of {user}: {', '.join(KafkaUser)}")
        return [Wanted(each, str(each)) for each in KafkaUser]
    if role not in set(KafkaUser):
        raise UnknownRole(f"{role}: no such role; there are {', '.join(KafkaUser)}")
    return [Wanted(KafkaUser(role), user or role)]


def commands(wanted: Iterable[Wanted], names: Names, ledger_id: str) -> Iterator[str]:
    """As an administrator types them, with Kafka's own tool."""
    for role, user in wanted:
        for right in of(role, user, names, ledger_id):
            words = ["kafka-acls.sh", "--bootstrap-server", '"$KAFKA_BROKERS"']
            words += ["--command-config", "admin.properties", "--add"]
            words += ["--allow-principal", shlex.quote(f"User:{user}")]
            words += [word for each in right.operations for word in ("--operation", each)]
            words.append(f"--{right.kind}")
            if right.kind is not ResourceKind.CLUSTER:
                words.append(right.name)
            if right.prefixed:
                words += ["--resource-pattern-type", "prefixed"]
            yield " ".join(words)


def apply(admin: AdminClient, wanted: Iterable[Wanted], names: Names, ledger_id: str) -> int:
    """Gives the rights; those that are there already stay. How many there are."""
    bindings = [
        _binding(right, operation, user)
        for role, user in wanted
        for right in of(role, user, names, ledger_id)
        for operation in right.operations
    ]
    creations: dict[AclBinding, Future[None]] = admin.create_acls(
        bindings, request_timeout=TIMEOUT_S
    )
    for done in creations.values():
        try:
            done.result()
        except KafkaException as error:
            cause: KafkaError = error.args[0]
            raise Failure(f"the ACLs cannot be made: {cause.str()}") from None
    return len(creations)


def _topics(operations: tuple[str, ...], *names: str) -> list[Right]:
    return [Right(operations, ResourceKind.TOPIC, name) for name in names]


_KINDS = {
    ResourceKind.TOPIC: ResourceType.TOPIC,
    ResourceKind.GROUP: ResourceType.GROUP,
    ResourceKind.TRANSACTIONAL_ID: ResourceType.TRANSACTIONAL_ID,
    ResourceKind.CLUSTER: ResourceType.BROKER,
}
_OPERATIONS = {
    "Create": AclOperation.CREATE,
    "Delete": AclOperation.DELETE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
}


def _binding(right: Right, operation: str, user: str) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
    return AclBinding(
        _KINDS[right.kind],
        right.name,
        pattern,
        f"User:{user}",
        "*",
        _OPERATIONS[operation],
        AclPermissionType.ALLOW,
    )
