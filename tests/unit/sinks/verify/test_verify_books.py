"""The replayed books: a whole journal passes, and a forged one does not, even if its hashes are
correct."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas import journal
from schemas.journal import JournalRecord
from sinks.verify import expected_effects
from sinks.verify.coordination_channels import CoordinationChannels
from sinks.verify.replayed_books import ReplayedBooks
from sinks.verify.report import Differences
from tests.testkit import histories

PARTITIONS = histories.of_seed(44).partitions
_decode = msgspec.json.Decoder(JournalRecord).decode

Value = dict[str, Any]


def folded(
    partition: int, values: list[bytes]
) -> tuple[ReplayedBooks, Differences, CoordinationChannels]:
    differences = Differences()
    books, ways = ReplayedBooks(partition, differences), CoordinationChannels(differences)
    for offset, value in enumerate(values):
        record = _decode(value)
        expected = expected_effects.compare(books, offset, record, differences)
        ways.before_fold(books, offset, record, expected)
        books.fold(offset, value, record)
    books.finish()
    return books, differences, ways


def own_values(partition: int = 0) -> list[bytes]:
    return [value for _, value in PARTITIONS[partition].journal]


def forged(change: Callable[[Value], bool]) -> tuple[int, list[bytes]]:
    """Changes the first suitable record, some way in, and corrects all later hashes."""
    values = own_values()
    for place in range(60, len(values)):
        record = msgspec.json.decode(values[place])
        if change(record):
            break
    else:
        raise AssertionError("no record takes this change")
    values[place] = msgspec.json.encode(record)
    for after in range(place + 1, len(values)):
        old = _decode(values[after]).previous_hash
        new = journal.hash_of(values[after - 1])
        values[after] = values[after].replace(old.encode(), new.encode(), 1)
    return place, values


def test_whole_journals_pass() -> None:
    differences = Differences()
    ways = CoordinationChannels(differences)
    for one in PARTITIONS:
        books = ReplayedBooks(one.number, differences)
        for offset, (_, value) in enumerate(one.journal):
            record = _decode(value)
            expected = expected_effects.compare(books, offset, record, differences)
            ways.before_fold(books, offset, record, expected)
            books.fold(offset, value, record)
        books.finish()
        assert books.hash == one.last_hash
        assert books.sequence == len(one.journal)
    ways.compare()
    assert differences.first == []


def entry(change: Callable[[Value], None]) -> Callable[[Value], bool]:
    def apply(record: Value) -> bool:
        ordinary = [e for e in record.get("entries", ()) if isinstance(e["balance"], int)]
        if ordinary:
            change(ordinary[0])
        return bool(ordinary)

    return apply


def field(name: str, change: Callable[[Any], Any]) -> Callable[[Value], bool]:
    def apply(record: Value) -> bool:
        if name not in record:
            return False
        record[name] = change(record[name])
        return True

    return apply


def steps(step: str, apply: Callable[[Value], bool]) -> Callable[[Value], bool]:
    """Of what was decided at once."""
    return lambda r: r["step"] == step and "command_offset" not in r and apply(r)


def changed_by(kind: str, change: Callable[[Value], None]) -> Callable[[Value], bool]:
    change_account = inside("account", change)
    return lambda r: r.get("command", {}).get("kind") == kind and change_account(r)


def more(name: str) -> Callable[[Value], None]:
    return lambda fields: fields.update({name: fields[name] + 1})


def system(record: Value) -> bool:
    shards = [e for e in record.get("entries", ()) if isinstance(e["balance"], str)]
    if shards:
        shards[0]["balance"] = str(int(shards[0]["balance"]) - 1)
    return bool(shards)


def inside(name: str, change: Callable[[Value], None]) -> Callable[[Value], bool]:
    def apply(record: Value) -> bool:
        if name in record:
            change(record[name])
        return name in record

    return apply


def first_of(name: str, change: Callable[[Value], None]) -> Callable[[Value], bool]:
    def apply(record: Value) -> bool:
        if record.get(name):
            change(record[name][0])
        return bool(record.get(name))

    return apply


more_released = first_of("released", more("amount"))

LIES: dict[str, tuple[Callable[[Value], bool], str]] = {
    "an amount": (entry(more("amount")), "balance is"),
    "a balance": (entry(more("balance")), "balance is"),
    "a version": (entry(more("version")), "version is"),
    "a held amount": (entry(lambda e: e.update(held=e.get("held", 0) + 1)), "held is"),
    "a system account's balance": (system, "balance is"),
    "a sequence": (field("sequence", lambda n: n + 1), "sequence is"),
    "a time": (field("time_ms", lambda n: n - 10_000_000), "time goes back"),
    "a partition": (field("partition", lambda n: n + 1), "partition is"),
    "a settings version": (field("settings_version", lambda n: n + 1), "settings version is"),
    "an id": (
        steps(
            "posted", field("transaction_id", lambda id: id[:-1] + ("0" if id[-1] != "0" else "1"))
        ),
        "id is",
    ),
    "a body": (
        steps("posted", inside("command", lambda c: c.update(reference="forged"))),
        "body hash is",
    ),
    "a reservation": (first_of("reserved", more("amount")), ", expected "),
    "a release": (first_of("released", more("amount")), ", expected "),
    "a participant's release": (
        lambda r: r["step"] in ("committed", "aborted") and more_released(r),
        "released: ",
    ),
    "a coordinator's release": (
        lambda r: "command_offset" in r and "hold" not in r and more_released(r),
        "released: ",
    ),
    "a hold's amount": (
        steps("expired", inside("hold", more("amount"))),
        "amount of hold",
    ),
    "a hold's status": (
        steps("expired", inside("hold", lambda h: h.update(status="open"))),
        "changes from open to open",
    ),
    "an account's type": (
        inside("account", lambda a: a.update(currency="XXX")),
        "",
    ),
    "an opened account's metadata": (
        changed_by("open_account", lambda a: a.update(metadata={"forged": "x"})),
        "metadata is {'forged': 'x'}, expected",
    ),
    "an account's limit": (
        changed_by("change_account", lambda a: a.update(min_balance=a.get("min_balance", 0) - 1)),
        "min_balance is",
    ),
    "an account's metadata": (
        changed_by("change_account", lambda a: a.update(metadata={"forged": "x"})),
        "metadata is {'forged': 'x'}, expected",
    ),
    "metadata that nobody changed": (
        changed_by("freeze", lambda a: a.update(metadata={"forged": "x"})),
        "metadata is {'forged': 'x'}, expected",
    ),
    "an account's status": (
        changed_by("unfreeze", lambda a: a.update(status="frozen")),
        "status is frozen, expected open",
    ),
    "a first's status": (
        steps(
            "replayed", field("first_status", lambda s: "posted" if s != "posted" else "rejected")
        ),
        "status of the first outcome is",
    ),
    "a command's offset": (
        lambda r: r["source"]["topic"] == "commands" and not r["source"].update(offset=1),
        "a second outcome, or out of order",
    ),
    "a message's number": (
        lambda r: (
            "number" in r.get("message", {})
            and not r["message"].update(number=r["message"]["number"] + 1)
        ),
        "reads message",
    ),
    "a sent message": (
        field("sent", lambda sent: [[sent[0][0], sent[0][1] + 1], *sent[1:]]),
        "sends message",
    ),
}


@pytest.mark.parametrize("what", LIES)
def test_a_lie_with_whole_hashes_is_named(what: str) -> None:
    change, words = LIES[what]
    place, values = forged(change)
    _, differences, _ = folded(0, values)
    assert differences.first, f"{what} was not noticed"
    named = [each for each in differences.first if each.offset == place]
    if words:
        assert any(words in each.what for each in named), differences.first


def test_any_change_that_leaves_the_hashes_is_named() -> None:
    values = own_values()
    for place in range(0, len(values) - 1, 97):
        copy = list(values)
        copy[place] = values[place][:-1] + b" }"
        _, differences, _ = folded(0, copy)
        assert [each.offset for each in differences.first] == [place + 1]
        assert f"(offset {place})" in differences.first[0].what


def test_records_that_stand_elsewhere_are_named() -> None:
    values = own_values()
    values[100], values[101] = values[101], values[100]
    _, differences, _ = folded(0, values)
    assert differences.first[0].offset == 100


def test_only_the_first_of_many_are_kept() -> None:
    values = own_values()
    del values[70]
    _, differences, _ = folded(0, values)
    assert len(differences.first) <= 40
    assert sum(differences.counts.values()) >= len(differences.first)
