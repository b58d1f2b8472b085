"""Who owns what: whole lanes, of both topics, and no more moves than there must be."""

from types import SimpleNamespace
from typing import Any

import faust
import pytest

from processor.assignor import LaneAssignor
from schemas import topics

TOPICS = ("commands", "legs")
Share = dict[str, list[int]]


class Cluster:
    """What the assignor asks Faust's client."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int]:
        return set(range(self._partitions))


class Group:
    """Workers of a ledger of so many partitions; the first of them assigns."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._workers: dict[str, LaneAssignor] = {}

    def join(self, name: str) -> None:
        app: Any = faust.App(name, web_enabled=False)
        app.ledger = SimpleNamespace(identity=SimpleNamespace(partitions=self._partitions))
        self._workers[name] = LaneAssignor(app, replicas=1)

    def leave(self, name: str) -> None:
        del self._workers[name]

    def share_out(self, grown_to: int | None = None) -> dict[str, Share]:
        cluster = Cluster(grown_to or self._partitions)
        members = {name: each.metadata(set(TOPICS)) for name, each in self._workers.items()}
        shares = next(iter(self._workers.values())).assign(cluster, members)
        for name, worker in self._workers.items():
            worker.on_assignment(shares[name])
            told = {(topic, p) for topic, numbers in shares[name].assignment for p in numbers}
            assert {tuple(tp) for tp in worker.assigned_actives()} == told
        return {name: dict(each.assignment) for name, each in shares.items()}


def lanes(share: Share, partitions: int) -> set[int]:
    return {topics.lane(number, partitions) for number in share.get("commands", ())}


@pytest.mark.parametrize("partitions", [1, 2, 4, 7, 8, 12, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_lanes_are_whole_and_of_both_topics(partitions: int, workers: int) -> None:
    group = Group(partitions)
    for number in range(workers):
        group.join(f"w{number}")
    for _ in range(2):
        shares = group.share_out()
        owned = [lanes(share, partitions) for share in shares.values()]
        assert sorted(lane for each in owned for lane in each) == [*range(topics.lanes(partitions))]
        assert max(map(len, owned)) - min(map(len, owned)) <= 1
        assert all(share.get("commands") == share.get("legs") for share in shares.values())
        together = sorted(p for share in shares.values() for p in share.get("commands", ()))
        assert together == [*range(partitions)]


def test_who_stays_keeps_what_it_has() -> None:
    group = Group(16)
    for name in ("a", "b", "c", "d"):
        group.join(name)
    before = {name: lanes(share, 16) for name, share in group.share_out().items()}
    group.leave("c")
    after = {name: lanes(share, 16) for name, share in group.share_out().items()}
    assert all(before[name] <= after[name] for name in after)
    group.join("e")
    last = {name: lanes(share, 16) for name, share in group.share_out().items()}
    assert len(last["e"]) == 1
    assert sum(len(after[name] - last[name]) for name in after) == 1


def test_topics_that_have_grown_are_told_to_the_owners_of_old_lanes() -> None:
    """Who then refuse: nothing is decided of a partition that the ledger does not know."""
    group = Group(4)
    group.join("a")
    group.join("b")
    shares = group.share_out(grown_to=6)
    assert sorted(p for share in shares.values() for p in share["commands"]) == [*range(6)]
