"""The workers of a ledger that run, and the highest format level that each supports.

A processor writes it into its member metadata (`processor.streaming.assignor`), a sink into its
client id (`sinks.worker.group_member`). This reads both groups from the brokers and joins neither.
"""

import re
import time
from typing import Any, NamedTuple

import msgspec
from aiokafka.coordinator.protocol import (  # type: ignore[import-untyped]  # it has no types
    ConsumerProtocolMemberMetadata,
)
from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from plumbing.failures import Failure
from plumbing.kafka.clients import ClientConfig

ANSWER_S = 20.0
# A rebalance ends within the session time-out of a member that has died.
STABLE_WITHIN_S = 60.0
POLL_S = 0.5

_SETTLED = (ConsumerGroupState.STABLE, ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD)
_LEVEL_OF_SINK = re.compile(r"-format-(\d+)$")


class Worker(NamedTuple):
    service: str
    client_id: str
    host: str
    format_level: int

    def __str__(self) -> str:
        level = self.format_level or "none that it names"
        return f"{self.service} {self.client_id} at {self.host} (format level {level})"


class Groups(NamedTuple):
    """The ids of the two consumer groups of a ledger."""

    processors: str
    sinks: str


class _UserData(msgspec.Struct):
    format_level: int = 0


_decode_user_data = msgspec.json.Decoder(_UserData).decode


def running(config: ClientConfig, groups: Groups) -> list[Worker]:
    """All members of both groups; waits for a rebalance to end, as the brokers show no metadata
    before."""
    admin = AdminClient(config)
    processors = (
        Worker(
            "processor", member.client_id, member.client_host, level_of_processor(member.metadata)
        )
        for member in _members(admin, groups.processors)
    )
    sinks = (
        Worker("sink", member.client_id, member.client_host, level_of_sink(member.client_id))
        for member in _members(admin, groups.sinks)
    )
    return [*processors, *sinks]


def _members(admin: AdminClient, group: str) -> list[Any]:
    deadline = time.monotonic() + STABLE_WITHIN_S
    while True:
        # The list leaves out a group that this user may not describe, and says nothing. Only the
        # description is refused then; but only the list has what each member wrote about itself.
        count = _described_members(admin, group)
        listed = admin.list_groups(group, timeout=ANSWER_S)
        for each in listed:
            if each.error is not None:
                raise KafkaException(each.error)
        members = [member for each in listed for member in each.members]
        if len(members) == count:
            return members
        if time.monotonic() > deadline:
            raise Failure(f"the consumer group {group} does not finish its rebalance; try again")
        time.sleep(POLL_S)


def _described_members(admin: AdminClient, group: str) -> int | None:
    """How many members a group has; None during a rebalance."""
    (answer,) = admin.describe_consumer_groups([group], request_timeout=ANSWER_S).values()
    try:
        description = answer.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return 0
        raise
    return len(description.members) if description.state in _SETTLED else None


def level_of_processor(metadata: bytes) -> int:
    """0 where it does not say."""
    member = ConsumerProtocolMemberMetadata.decode(metadata)
    try:
        return _decode_user_data(member.user_data).format_level
    except msgspec.MsgspecError:
        return 0


def level_of_sink(client_id: str) -> int:
    """0 where it does not say."""
    found = _LEVEL_OF_SINK.search(client_id)
    return int(found[1]) if found else 0
