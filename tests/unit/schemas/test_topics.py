"""The topics are those of the design, kept as it says, under the names that the operator chose."""

from collections import Counter

import pytest

from schemas import topics

DAY_MS = 86_400_000
MIB = 1_048_576


def test_their_names_without_prefix_are_their_roles() -> None:
    names = topics.Names()
    assert [names.name_of(topic) for topic in topics.ALL] == [
        "commands",
        "coordination",
        "journal",
        "transactions",
        "state",
        "results",
        "results.positions",
        "commands.dead",
    ]


def test_a_prefix_goes_before_all_and_one_can_be_renamed() -> None:
    names = topics.Names("t1.", "posted")
    assert all(names.name_of(topic).startswith("t1.") for topic in topics.ALL)
    assert names.transactions == "t1.posted"
    assert names.results_positions == "t1.results.positions"
    assert names.commands_dead == "t1.commands.dead"
    assert {names.commands, names.coordination, names.journal, names.state, names.results} == {
        "t1.commands",
        "t1.coordination",
        "t1.journal",
        "t1.state",
        "t1.results",
    }


def test_the_ledgers_own_topics_have_its_partition_count() -> None:
    others = {topic.role for topic in topics.ALL if topic.count(12) != 12}
    assert others == {"results", "results.positions", "commands.dead"}


@pytest.mark.parametrize(
    ("partitions", "lanes"), [(1, 1), (2, 2), (3, 2), (8, 2), (9, 3), (12, 3), (64, 16)]
)
def test_lanes_have_four_partitions_at_most_and_each_has_one(partitions: int, lanes: int) -> None:
    assert topics.RESULTS_POSITIONS.count(partitions) == lanes
    shared = Counter(topics.lane(number, partitions) for number in range(partitions))
    assert sorted(shared) == list(range(lanes))
    assert max(shared.values()) <= 4


def test_the_lane_layout_is_given_whole() -> None:
    assert topics.whole_lanes([0, 2], 12) == [0, 2, 3, 5, 6, 8, 9, 11]
    assert topics.whole_lanes([], 12) == []


def test_only_the_inputs_have_the_brokers_time() -> None:
    timed = {topic.role for topic in topics.ALL if topic.log_append_time}
    assert timed == {"commands", "coordination"}


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda topic: topic.role)
def test_how_each_is_kept(topic: topics.Topic) -> None:
    config = topic.config(3)
    compacted = topic.role in {"state", "results.positions"}
    assert config["cleanup.policy"] == ("compact" if compacted else "delete")
    assert config["max.message.bytes"] == str(MIB if topic.role == "commands" else 4 * MIB)
    assert config["unclean.leader.election.enable"] == "false"
    if not compacted:
        assert config["retention.bytes"] == "-1"
        assert config["retention.ms"] == (str(7 * DAY_MS) if topic.role == "results" else "-1")


def test_brokers_number_the_commands_themselves() -> None:
    compressed = {topic.role for topic in topics.ALL if "compression.type" in topic.config(1)}
    assert compressed == {"commands"}
    assert topics.COMMANDS.config(1)["compression.type"] == "lz4"


def test_the_state_is_kept_long_enough_to_restore_from() -> None:
    config = topics.STATE.config(1)
    assert config["delete.retention.ms"] == str(7 * DAY_MS)
    assert config["min.compaction.lag.ms"] == str(DAY_MS)


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_a_write_waits_for_a_majority(replicas: int, in_sync: int) -> None:
    assert topics.JOURNAL.config(replicas)["min.insync.replicas"] == str(in_sync)
