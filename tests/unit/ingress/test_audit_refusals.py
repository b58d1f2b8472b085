"""Refusals in the audit log: counted by kind, and bounded however many come."""

from ingress.audit.entries import Event
from ingress.audit.trail import OTHERS, OTHERS_EVERY_S, Refusals


def refusal(number: int = 0, action: str = "forbidden") -> Event:
    return Event(action=action, address=f"10.0.{number // 256}.{number % 256}", trace=f"t{number}")


def test_those_of_one_kind_share_a_row() -> None:
    refusals = Refusals()
    for _ in range(1_000):
        refusals.add(refusal())
    refusals.add(refusal(action="password refused"))
    found = refusals.due(1.0)
    assert [(each.action, each.count, each.trace) for each in found] == [
        ("forbidden", 1_000, "t0"),
        ("password refused", 1, "t0"),
    ]
    assert refusals.due(2.0) == []


def test_a_flood_of_a_day_fills_no_more_than_its_budget_and_none_is_left_out() -> None:
    refusals, rows, sent = Refusals(at_once=100, per_day=1_000), 0, 0
    told = 0
    for second in range(0, 86_400, 10):
        for number in range(20):
            refusals.add(refusal((second * 20 + number) % 65_536))
            sent += 1
        found = refusals.due(float(second))
        rows += len(found)
        told += sum(each.count for each in found)
    last = refusals.due(86_400.0, all_of_them=True)
    assert told + sum(each.count for each in last) == sent
    assert rows <= 100 + 1_000 + 86_400 / OTHERS_EVERY_S


def test_memory_is_bounded_between_two_writes() -> None:
    refusals = Refusals(at_once=10)
    for number in range(50_000):
        refusals.add(refusal(number))
    found = refusals.due(OTHERS_EVERY_S)
    assert len(found) == 11
    assert (found[-1].subject, found[-1].count) == (OTHERS, 49_990)


def test_what_was_not_written_is_written_later() -> None:
    refusals = Refusals(at_once=1)
    refusals.add(refusal(1))
    refusals.add(refusal(1))
    first = refusals.due(OTHERS_EVERY_S)
    refusals.put_back(first)
    refusals.add(refusal(1))
    (again,) = refusals.due(OTHERS_EVERY_S)
    assert (again.address, again.count) == ("10.0.0.1", 3)
