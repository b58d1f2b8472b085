"""Which worker owns what: Faust's own assignor, which shares out lanes instead of partitions.

The group is told of the partitions of both topics, those of a lane always together. A worker tells
the group what it has on disk; `shares` says who gets what, and Faust is told that everyone has that
already: it keeps it so. What Faust notes stays in lanes. docs/decisions/0018 says why there are
lanes, 0020 who gets which.
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

from processor.streaming.lane_assignment import MemberState, shares
from schemas import topics
from schemas.ledger_parameters import FORMAT_LEVEL

_Shares = Iterable[tuple[str, Iterable[int]]]


class _Assignment(msgspec.Struct):
    actives: dict[str, list[int]]


class _MemberMetadata(msgspec.Struct):
    """What matters here of what a member says of itself when it joins."""

    assignment: _Assignment
    # A program that does not tell them has none.
    copies: dict[int, int] = {}

    def stake(self) -> MemberState:
        owned = self.assignment.actives.values()
        return MemberState(frozenset(lane for lanes in owned for lane in lanes), self.copies)


_told = msgspec.json.Decoder(_MemberMetadata).decode


class LaneAssignor(PartitionAssignor):
    app: Any

    @property
    def name(self) -> str:
        """Not Faust's: a group refuses who would share it out in another way."""
        return "streamledger-lanes"

    def _get_copartitioned_groups(  # type: ignore[override]  # where Faust needs no instance
        self, topics_: set[str], cluster: Any, subscriptions: Any
    ) -> Any:
        """All of the ledger's, whatever is known of the topics: a broker that has just come back
        may know none of them, and what is left out now nobody owns until somebody joins."""
        together = self._group_co_subscribed(topics_, subscriptions)
        return {topics.lanes(self._partitions): together}

    def metadata(self, topics_: set[str]) -> ConsumerProtocolMemberMetadata:
        """Called after what was owned was let go of: it is noted by then how far that is."""
        own = super().metadata(topics_)
        return _with(own, copies=self.app.ledger.copies(), format_level=FORMAT_LEVEL)

    def _perform_assignment(self, cluster: Any, member_metadata: Any) -> Any:
        stakes = {member: _told(each.user_data).stake() for member, each in member_metadata.items()}
        given = shares(topics.lanes(self._partitions), stakes)
        already = {
            member: _with(each, assignment=_having(each.subscription, given[member]))
            for member, each in member_metadata.items()
        }
        shared = super()._perform_assignment(cluster, already)
        return {
            member: _with_shares(each, self._in_partitions(each.assignment, cluster))
            for member, each in shared.items()
        }

    def on_assignment(self, assignment: Any) -> None:
        super().on_assignment(_with_shares(assignment, self._in_lanes(assignment.assignment)))
        self._active_tps = {
            TP(topic, number) for topic, numbers in assignment.assignment for number in numbers
        }

    def assigned_actives(self) -> set[TP]:
        return self._active_tps

    @property
    def _partitions(self) -> int:
        """The ledger's, for life: topics that have grown have no more lanes for it."""
        partitions: int = self.app.ledger.identity.partitions
        return partitions

    def _lane(self, partition: int) -> int:
        return topics.lane(partition, self._partitions)

    # Both keep the order of the lanes: Faust compares what it is told with what it noted.

    def _in_partitions(self, shares: _Shares, cluster: Any) -> _Shares:
        for topic, lanes in shares:
            known = cluster.partitions_for_topic(topic) or set()
            there = sorted(known.union(range(self._partitions)))
            yield topic, [each for lane in lanes for each in there if self._lane(each) == lane]

    def _in_lanes(self, shares: _Shares) -> _Shares:
        for topic, numbers in shares:
            yield topic, list(dict.fromkeys(self._lane(number) for number in numbers))


def _having(topics_: Iterable[str], lanes: list[int]) -> Mapping[str, Any]:
    """As Faust says it. It keeps nobody's standby."""
    return {"actives": dict.fromkeys(topics_, lanes), "standbys": {}}


def _with(of: Any, **said: object) -> ConsumerProtocolMemberMetadata:
    """Faust reads over what it does not know."""
    user_data = msgspec.json.encode({**msgspec.json.decode(of.user_data), **said})
    return ConsumerProtocolMemberMetadata(of.version, of.subscription, user_data)


def _with_shares(of: Any, shares: _Shares) -> ConsumerProtocolMemberAssignment:
    return ConsumerProtocolMemberAssignment(of.version, sorted(shares), of.user_data)
