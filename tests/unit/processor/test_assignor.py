"""Who owns what: whole lanes, of both topics, by who has them on disk, and no more moves than there
must be."""

from collections import Counter
from collections.abc import Mapping
from itertools import product
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka.coordinator.protocol import (  # type: ignore[import-untyped]  # it has no types
    ConsumerProtocolMemberMetadata,
)
from faust.assignor.client_assignment import ClientMetadata
from faust.assignor.partition_assignor import PartitionAssignor
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.streaming.assignor import LaneAssignor
from processor.streaming.lane_assignment import MemberState, assign_lanes
from schemas import topics

TOPICS = ("commands", "coordination")
Share = dict[str, list[int]]


class Cluster:
    """What the assignor asks Faust's client."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._partitions)) or None


class Group:
    """Workers of a ledger of so many partitions; the first of them assigns."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._workers: dict[str, LaneAssignor] = {}
        self.copies: dict[str, Mapping[int, int]] = {}
        # Those that run a program which tells nothing of copies.
        self.older: set[str] = set()

    def join(self, name: str, copies: Mapping[int, int] | None = None) -> None:
        app: Any = faust.App(name, web_enabled=False)
        self.copies[name] = copies or {}
        app.lanes = SimpleNamespace(
            identity=SimpleNamespace(partitions=self._partitions),
            local_records=lambda: self.copies[name],
        )
        self._workers[name] = LaneAssignor(app, replicas=1)

    def leave(self, name: str) -> None:
        del self._workers[name]

    def share_out(self, listed: int | None = None) -> dict[str, Share]:
        """`listed`: how many partitions the topics have in the metadata of the leader."""
        cluster = Cluster(self._partitions if listed is None else listed)
        members = {name: self.metadata(name) for name in self._workers}
        shared = next(iter(self._workers.values())).assign(cluster, members)
        for name, worker in self._workers.items():
            worker.on_assignment(shared[name])
            assigned = {(topic, p) for topic, numbers in shared[name].assignment for p in numbers}
            assert {tuple(tp) for tp in worker.assigned_actives()} == assigned
        return {name: dict(each.assignment) for name, each in shared.items()}

    def lanes(self) -> dict[str, set[int]]:
        return {name: lanes(share, self._partitions) for name, share in self.share_out().items()}

    def metadata(self, name: str) -> ConsumerProtocolMemberMetadata:
        worker = self._workers[name]
        if name in self.older:
            return PartitionAssignor.metadata(worker, set(TOPICS))
        return worker.metadata(set(TOPICS))


def lanes(share: Share, partitions: int) -> set[int]:
    return {topics.lane(number, partitions) for number in share.get("commands", ())}


@pytest.mark.parametrize("partitions", [1, 2, 4, 7, 8, 12, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_lanes_are_whole_and_of_both_topics(partitions: int, workers: int) -> None:
    group = Group(partitions)
    for number in range(workers):
        group.join(f"w{number}")
    for _ in range(2):
        shared = group.share_out().values()
        owned = [lanes(share, partitions) for share in shared]
        assert sorted(lane for each in owned for lane in each) == [*range(topics.lanes(partitions))]
        assert max(map(len, owned)) - min(map(len, owned)) <= 1
        assert all(share.get("commands") == share.get("coordination") for share in shared)
        together = sorted(p for share in shared for p in share.get("commands", ()))
        assert together == [*range(partitions)]


def test_who_stays_keeps_what_it_has() -> None:
    group = Group(16)
    for name in ("a", "b", "c", "d"):
        group.join(name)
    before = group.lanes()
    group.leave("c")
    after = group.lanes()
    assert all(before[name] <= after[name] for name in after)
    group.join("e")
    last = group.lanes()
    assert len(last["e"]) == 1
    assert sum(len(after[name] - last[name]) for name in after) == 1


def test_added_partitions_are_assigned_to_the_owners_of_existing_lanes() -> None:
    """Who then refuse: nothing is decided of a partition that the ledger does not know."""
    group = Group(4)
    group.join("a")
    group.join("b")
    shared = group.share_out(listed=6)
    assert sorted(p for share in shared.values() for p in share["commands"]) == [*range(6)]


@pytest.mark.parametrize("first", ["a", "b"])
def test_workers_that_start_again_get_the_lanes_that_they_have_on_disk(first: str) -> None:
    on_disk = {"a": {1: 900, 2: 900}, "b": {0: 800, 3: 800}}
    group = Group(16)
    # The first has all lanes for a moment, and begins to restore what it does not have.
    group.join(first, on_disk[first])
    assert group.lanes() == {first: {0, 1, 2, 3}}
    for name in {"a", "b"} - {first}:
        group.join(name, on_disk[name])
    for _ in range(2):
        assert group.lanes() == {"a": {1, 2}, "b": {0, 3}}


def test_a_worker_that_was_away_gets_what_it_has_not_what_another_can_spare_best() -> None:
    """`a` has all there is, of lane 0 most: greed would give it that one, and `b` nothing."""
    group = Group(8)
    group.join("a", {0: 900, 1: 1_000})
    group.lanes()
    group.join("b", {1: 400})
    assert group.lanes() == {"a": {0}, "b": {1}}


def test_who_restores_a_lane_gives_it_to_who_has_it() -> None:
    group = Group(8)
    group.join("a", {0: 900})
    group.join("b")
    assert group.lanes() == {"a": {0}, "b": {1}}
    # `b` has begun with lane 1, and has nothing whole yet.
    group.leave("a")
    group.join("c", {1: 900})
    assert group.lanes() == {"b": {0}, "c": {1}}


def test_two_that_have_the_same_the_one_that_runs_it_keeps_it() -> None:
    group = Group(8)
    for name in ("a", "b"):
        group.join(name)
    before = group.lanes()
    group.copies = {"a": {0: 5, 1: 5}, "b": {0: 5, 1: 5}}
    assert group.lanes() == before


def test_a_program_that_tells_nothing_of_copies_is_in_the_group() -> None:
    group = Group(16)
    for name in ("a", "b"):
        group.join(name)
    group.older = {"a"}
    before = group.lanes()
    assert sorted(map(len, before.values())) == [2, 2]
    group.copies["b"] = dict.fromkeys(before["b"], 10)
    group.join("c", dict.fromkeys(before["a"], 10))
    after = group.lanes()
    assert after["c"] <= before["a"]
    assert after["b"] == before["b"]


def test_a_program_that_does_not_know_of_copies_ignores_them() -> None:
    group = Group(8)
    group.join("a", {0: 5})
    group.lanes()
    metadata = ClientMetadata.loads(group.metadata("a").user_data)
    assert metadata.assignment.actives == {topic: [0, 1] for topic in TOPICS}


LANES = st.integers(1, 7)
MEMBERS = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(
        MemberState,
        st.frozensets(st.integers(0, 9), max_size=6),
        st.dictionaries(st.integers(0, 9), st.integers(0, 50), max_size=6),
    ),
    min_size=1,
)


@given(LANES, MEMBERS)
@settings(deadline=None)
def test_each_lane_has_one_member_and_no_member_has_two_more_than_another(
    lanes: int, members: dict[str, MemberState]
) -> None:
    assigned = assign_lanes(lanes, members)
    assert assigned.keys() == members.keys()
    assert sorted(lane for each in assigned.values() for lane in each) == [*range(lanes)]
    counts = [len(each) for each in assigned.values()]
    assert max(counts) - min(counts) <= 1


@given(LANES, MEMBERS)
@settings(deadline=None)
def test_every_member_computes_the_same_assignment(
    lanes: int, members: dict[str, MemberState]
) -> None:
    reordered = dict(reversed(members.items()))
    assert assign_lanes(lanes, reordered) == assign_lanes(lanes, members)


@given(LANES, MEMBERS)
@settings(deadline=None)
def test_no_lane_moves_if_nothing_has_changed(lanes: int, members: dict[str, MemberState]) -> None:
    assigned = assign_lanes(lanes, members)
    again = {name: each._replace(owned=frozenset(assigned[name])) for name, each in members.items()}
    assert assign_lanes(lanes, again) == assigned


@given(st.integers(1, 5), MEMBERS)
@settings(deadline=None)
def test_no_assignment_is_better(lanes: int, members: dict[str, MemberState]) -> None:
    """Of all assignments: the most records on the right disks, and then the fewest moves."""
    members = dict(sorted(members.items())[:4])

    def worth(owners: tuple[str, ...]) -> tuple[int, int]:
        records = (members[owner].records.get(lane, 0) for lane, owner in enumerate(owners))
        return sum(records), sum(lane in members[owner].owned for lane, owner in enumerate(owners))

    def even(owners: tuple[str, ...]) -> bool:
        counts = Counter(dict.fromkeys(members, 0) | Counter(owners))
        return max(counts.values()) - min(counts.values()) <= 1

    best = max(worth(owners) for owners in product(members, repeat=lanes) if even(owners))
    assigned = assign_lanes(lanes, members)
    owners = (next(n for n in assigned if lane in assigned[n]) for lane in range(lanes))
    assert worth(tuple(owners)) == best


@pytest.mark.parametrize("listed", [0, 2])
def test_partitions_that_a_restarted_broker_does_not_list_yet_are_assigned(listed: int) -> None:
    """Otherwise they have no owner until a member joins or leaves."""
    group = Group(4)
    group.join("one")
    group.join("two")
    shares = group.share_out(listed)
    for topic in TOPICS:
        assert sorted(p for share in shares.values() for p in share[topic]) == [0, 1, 2, 3]
