"""Faust's own assignor, for lanes instead of partitions.

An assignment names the partitions of both topics, those of a lane always together. Each member
sends how many records of each lane it has on disk, and `assign_lanes` decides. Faust then gets the
result as if each member owned its lanes already, and keeps it. docs/decisions/0018 says why there
are lanes, 0020 who gets which.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiokafka.coordinator.protocol import (  # type: ignore[import-untyped]  # it has no types
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP

from processor.streaming.lane_assignment import MemberState, assign_lanes
from schemas import topics
from schemas.ledger_parameters import FORMAT_LEVEL

_TopicNumbers = Iterable[tuple[str, Iterable[int]]]


class _Assignment(msgspec.Struct):
    actives: dict[str, list[int]]


class _MemberMetadata(msgspec.Struct):
    """The parts that matter here of what a member sends when it joins."""

    assignment: _Assignment
    # By lane. A member that does not send them has none.
    copies: dict[int, int] = {}

    def state(self) -> MemberState:
        owned = self.assignment.actives.values()
        return MemberState(frozenset(lane for lanes in owned for lane in lanes), self.copies)


_decode_metadata = msgspec.json.Decoder(_MemberMetadata).decode


class LaneAssignor(PartitionAssignor):
    app: Any

    @property
    def name(self) -> str:
        """Not Faust's: Kafka rejects a member whose assignor has another name."""
        return "streamledger-lanes"

    def _get_copartitioned_groups(  # type: ignore[override]  # where Faust needs no instance
        self, topics_: set[str], cluster: Any, subscriptions: Any
    ) -> Any:
        """All lanes of the ledger, whatever the metadata says: a broker that has just started may
        know none of the topics, and a lane left out now has no owner until a member joins."""
        together = self._group_co_subscribed(topics_, subscriptions)
        return {topics.lanes(self._partitions): together}

    def metadata(self, topics_: set[str]) -> ConsumerProtocolMemberMetadata:
        """Called after the lanes were released: by then it is noted how complete each copy is."""
        own = super().metadata(topics_)
        return _with(own, copies=self.app.lanes.local_records(), format_level=FORMAT_LEVEL)

    def _perform_assignment(self, cluster: Any, member_metadata: Any) -> Any:
        states = {
            member: _decode_metadata(metadata.user_data).state()
            for member, metadata in member_metadata.items()
        }
        assigned = assign_lanes(topics.lanes(self._partitions), states)
        as_owned = {
            member: _with(metadata, assignment=_owning(metadata.subscription, assigned[member]))
            for member, metadata in member_metadata.items()
        }
        assignments = super()._perform_assignment(cluster, as_owned)
        return {
            member: _replaced(assignment, self._in_partitions(assignment.assignment, cluster))
            for member, assignment in assignments.items()
        }

    def on_assignment(self, assignment: Any) -> None:
        super().on_assignment(_replaced(assignment, self._in_lanes(assignment.assignment)))
        self._active_tps = {
            TP(topic, number) for topic, numbers in assignment.assignment for number in numbers
        }

    def assigned_actives(self) -> set[TP]:
        return self._active_tps

    @property
    def _partitions(self) -> int:
        """The ledger's, for life: partitions that are added to its topics add no lanes."""
        partitions: int = self.app.lanes.identity.partitions
        return partitions

    def _lane(self, partition: int) -> int:
        return topics.lane(partition, self._partitions)

    # Both keep the order of the lanes: Faust compares an assignment with what it noted.

    def _in_partitions(self, assigned: _TopicNumbers, cluster: Any) -> _TopicNumbers:
        for topic, lanes in assigned:
            listed = cluster.partitions_for_topic(topic) or set()
            numbers = sorted(listed.union(range(self._partitions)))
            yield topic, [n for lane in lanes for n in numbers if self._lane(n) == lane]

    def _in_lanes(self, assigned: _TopicNumbers) -> _TopicNumbers:
        for topic, numbers in assigned:
            yield topic, list(dict.fromkeys(self._lane(number) for number in numbers))


def _owning(topics_: Iterable[str], lanes: list[int]) -> Mapping[str, Any]:
    """In Faust's form, without standbys."""
    return {"actives": dict.fromkeys(topics_, lanes), "standbys": {}}


def _with(metadata: Any, **fields: object) -> ConsumerProtocolMemberMetadata:
    """Faust ignores fields that it does not know."""
    user_data = msgspec.json.encode({**msgspec.json.decode(metadata.user_data), **fields})
    return ConsumerProtocolMemberMetadata(metadata.version, metadata.subscription, user_data)


def _replaced(assignment: Any, assigned: _TopicNumbers) -> ConsumerProtocolMemberAssignment:
    return ConsumerProtocolMemberAssignment(
        assignment.version, sorted(assigned), assignment.user_data
    )
