"""The rights of each user: as the page lists them, and by names that two ledgers do not share."""

from pathlib import Path

import pytest

from compose import acls
from compose.acls import KafkaUser, ResourceKind, Right, Wanted
from plumbing.kafka import transactional_producer
from schemas import ids, topics
from schemas.topics import Names

PAGE = (Path(__file__).parents[3] / "docs" / "securing.md").read_text(encoding="utf-8")
EVERYONE = [Wanted(role, str(role)) for role in KafkaUser]


def shown(role: KafkaUser) -> str:
    """As a row of the page's table has it."""
    rights = acls.of(role, "<user>", Names("<p>"), "<l>")
    topic_names = {
        each.name.removeprefix("<p>") for each in rights if each.kind is ResourceKind.TOPIC
    }
    may: dict[str, list[str]] = {}
    for each in rights:
        if each.kind is ResourceKind.TOPIC:
            for operation in each.operations:
                may.setdefault(operation, []).append(each.name.removeprefix("<p>"))
    cells = []
    for operation, names in sorted(may.items(), key=lambda item: item[0]):
        every = len(topic_names) == len(topics.ALL) and set(names) == topic_names
        order = [topic.role for topic in topics.ALL if topic.role in names]
        cells.append(f"{operation} {'all' if every else ', '.join(f'`{n}`' for n in order)}")
    others = [
        f"{', '.join(each.operations)} {each.kind} `{each.name}{'*' * each.prefixed}`"
        for each in rights
        if each.kind is not ResourceKind.TOPIC
    ]
    return f"| `{role}` | {acls.ABOUT[role]} | {'; '.join(cells)} | {'; '.join(others)} |"


@pytest.mark.parametrize("role", KafkaUser)
def test_the_page_lists_the_rights_of(role: KafkaUser) -> None:
    assert shown(role) in PAGE


def test_the_page_has_the_commands_that_give_them() -> None:
    wanted = list(acls.commands(EVERYONE, Names(), "streamledger"))
    block = PAGE.split("<!-- streamledger topics acls -->")[1].split("```")[1]
    assert block.removeprefix("sh\n").splitlines() == wanted


def test_each_topic_but_two_has_one_writer() -> None:
    writers: dict[str, list[KafkaUser]] = {}
    for role in KafkaUser:
        for right in acls.of(role, role, Names(), "books"):
            if right.kind is ResourceKind.TOPIC and "Write" in right.operations:
                writers.setdefault(right.name, []).append(role)
    shared = {name: roles for name, roles in writers.items() if len(roles) > 1}
    # The operator sends `configure` as a message, and dead letters again.
    assert shared == {
        "commands": [KafkaUser.INGRESS, KafkaUser.OPERATOR, KafkaUser.PRODUCER],
        "coordination": [KafkaUser.PROCESSOR, KafkaUser.OPERATOR],
    }
    assert set(writers) == {topic.role for topic in topics.ALL}


def test_two_ledgers_share_no_name_but_that_of_no_group() -> None:
    def named(prefix: str, ledger: str) -> set[tuple[ResourceKind, str]]:
        rights: list[Right] = []
        for role in KafkaUser:
            rights += acls.of(role, f"{ledger}-{role}", Names(prefix), ledger)
        return {(right.kind, right.name) for right in rights}

    both = named("a.", "one") & named("b.", "two")
    assert both == {(ResourceKind.GROUP, acls.NO_GROUP), (ResourceKind.CLUSTER, acls.CLUSTER)}


def test_a_role_that_is_none_is_named() -> None:
    with pytest.raises(acls.UnknownRole, match="clerk: no such role; there are processor, sink"):
        acls.wanted("clerk", None)
    with pytest.raises(acls.UnknownRole, match="name the role of ada"):
        acls.wanted(None, "ada")
    assert acls.wanted("sink", "ada") == [(KafkaUser.SINK, "ada")]


# Prefix and ledger id, of ledgers that share brokers; each pair runs together, or is told apart by
# a separator alone.
LEDGERS = [
    ("a", "bc"),
    ("ab", "c"),
    ("", "abc"),
    ("abc-", "processor"),
    ("", "abc"),
    ("abc", "processor"),
    ("", "processor"),
    ("processor", "processor-1"),
    ("processor", "processor"),
]


def names_of(prefix: str, ledger: str) -> set[tuple[ResourceKind, str]]:
    """Groups and transactional ids of its services."""
    found = set()
    for service in ("processor", "sink"):
        id = ids.service_id(prefix, ledger, service)
        found.add((ResourceKind.GROUP, id))
        found |= {
            (ResourceKind.TRANSACTIONAL_ID, transactional_producer.transactional_id(id, lane))
            for lane in (1, 11)
        }
    return found


@pytest.mark.parametrize("one", LEDGERS)
@pytest.mark.parametrize("other", LEDGERS)
def test_no_ledger_has_or_reaches_a_name_of_another(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    """Else one fences the other's owners, or they share their partitions out together."""
    if one == other:
        return
    theirs = names_of(*other)
    assert not names_of(*one) & theirs
    for role in (KafkaUser.PROCESSOR, KafkaUser.SINK, KafkaUser.INGRESS, KafkaUser.OPERATOR):
        for right in acls.of(role, role, Names(one[0]), one[1]):
            for kind, name in theirs:
                reached = name.startswith(right.name) if right.prefixed else name == right.name
                assert not (right.kind is kind and reached), (right, name)


def test_a_services_own_names_are_in_its_rights() -> None:
    for role in (KafkaUser.PROCESSOR, KafkaUser.SINK):
        id = ids.service_id("p.", "books", role)
        names = {
            ResourceKind.GROUP: id,
            ResourceKind.TRANSACTIONAL_ID: transactional_producer.transactional_id(id, 3),
        }
        for right in acls.of(role, role, Names("p."), "books"):
            if right.kind in names and right.name != acls.NO_GROUP:
                assert right.prefixed and names.pop(right.kind).startswith(right.name)
        assert names == {}
        assert id == f"p.:books:{role}:{ids.EPOCH}", "the ledger and the epoch are in it"
