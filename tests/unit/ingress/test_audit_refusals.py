"""Refusals in the audit log: counted by kind, and bounded however many there are."""

from ingress.audit.entries import Event
from ingress.audit.refusals import Refusal, Source
from ingress.audit.trail import OVERFLOW_INTERVAL_S, OVERFLOW_SUBJECT, RefusalCounts


def refusal(
    number: int = 0, action: str = "forbidden", source: Source = Source.STRANGER
) -> Refusal:
    address = f"10.0.{number // 256}.{number % 256}"
    return Refusal(Event(action=action, address=address, trace=f"t{number}"), source)


def due(counts: RefusalCounts, now: float, *, flush_overflow: bool = False) -> list[Event]:
    return [event for event, _ in counts.take_due(now, flush_overflow=flush_overflow)]


def test_refusals_of_one_kind_share_a_row() -> None:
    counts = RefusalCounts()
    for _ in range(1_000):
        counts.add(refusal())
    counts.add(refusal(action="password refused"))
    assert [(event.action, event.count, event.trace) for event in due(counts, 1.0)] == [
        ("forbidden", 1_000, "t0"),
        ("password refused", 1, "t0"),
    ]
    assert due(counts, 2.0) == []


def test_the_addresses_of_one_network_share_a_row() -> None:
    counts = RefusalCounts()
    for number in range(100):
        event = Event(action="forbidden", address=f"2001:db8:1:2::{number:x}")
        counts.add(Refusal(event, Source.STRANGER))
    (event,) = due(counts, 1.0)
    assert (event.address, event.count) == ("2001:db8:1:2::0", 100)


def test_a_flood_of_strangers_hides_no_refusal_of_users_and_staff() -> None:
    counts = RefusalCounts(burst=10, per_day=100)
    operator = Event(action="password refused", subject="operator", address="203.0.113.9")
    ada = Event(action="forbidden", user_id="ada", subject="GET /audit", address="203.0.113.9")
    rows = []
    for second in range(10):
        for number in range(1_000):
            counts.add(refusal(number))
            counts.add(refusal(number, "password refused"))
        counts.add(Refusal(operator, Source.STAFF))
        counts.add(Refusal(ada, Source.USER))
        rows += due(counts, float(second))
    assert sum(event.subject == "operator" for event in rows) == 10
    assert sum(event.user_id == "ada" for event in rows) == 10
    # A flood of users does not hide refusals of staff.
    for number in range(1_000):
        counts.add(refusal(number, source=Source.USER))
    counts.add(Refusal(operator, Source.STAFF))
    assert operator in due(counts, 3_600.0)


def test_a_day_of_flood_stays_within_the_budget_and_loses_no_count() -> None:
    counts, rows, sent, counted = RefusalCounts(burst=100, per_day=1_000), 0, 0, 0
    for second in range(0, 86_400, 10):
        for number in range(20):
            counts.add(refusal((second * 20 + number) % 65_536))
            sent += 1
        events = due(counts, float(second))
        rows += len(events)
        counted += sum(event.count for event in events)
    last = due(counts, 86_400.0, flush_overflow=True)
    assert counted + sum(event.count for event in last) == sent
    assert rows <= 100 + 1_000 + 86_400 / OVERFLOW_INTERVAL_S


def test_memory_is_bounded_between_two_writes() -> None:
    counts = RefusalCounts(burst=10)
    for number in range(50_000):
        counts.add(refusal(number))
    events = due(counts, OVERFLOW_INTERVAL_S)
    assert len(events) == 11
    assert (events[-1].subject, events[-1].count) == (OVERFLOW_SUBJECT, 49_990)


def test_what_was_not_written_is_written_later() -> None:
    counts = RefusalCounts(burst=1)
    counts.add(refusal(1))
    counts.add(refusal(1))
    first = counts.take_due(OVERFLOW_INTERVAL_S)
    counts.put_back(first)
    counts.add(refusal(1))
    (event,) = due(counts, OVERFLOW_INTERVAL_S)
    assert (event.address, event.count) == ("10.0.0.1", 3)
