"""The bounded cache: it may forget, but what it remembers is what was put last."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.state.cache import Cache

keys = st.integers(0, 30).map(lambda number: b"%d" % number)
deeds = st.lists(st.tuples(st.sampled_from(("put", "get", "drop")), keys), max_size=200)


@given(entries=st.integers(0, 12), deeds=deeds)
def test_what_it_remembers_is_what_was_put_last(
    entries: int, deeds: list[tuple[str, bytes]]
) -> None:
    cache: Cache[int] = Cache(entries)
    put: dict[bytes, int] = {}
    for number, (deed, key) in enumerate(deeds):
        if deed == "put":
            cache.put(key, number)
            put[key] = number
        elif deed == "drop":
            cache.drop(key)
            put.pop(key, None)
        found = cache.get(key)
        assert found is None or found == put[key]
        # Two halves, and the one that makes the young generation an old one.
        assert len(cache) <= max(2, entries) + 1


@pytest.mark.parametrize("entries", [2, 10, 1_000])
def test_recently_used_entries_stay(entries: int) -> None:
    cache: Cache[str] = Cache(entries)
    cache.put(b"hot", "kept")
    for number in range(10 * entries):
        cache.put(b"%d" % number, "passing")
        assert cache.get(b"hot") == "kept"
    assert cache.get(b"0") is None


def test_half_of_it_is_never_forgotten() -> None:
    cache: Cache[int] = Cache(100)
    for number in range(1_000):
        cache.put(b"%d" % number, number)
    assert [cache.get(b"%d" % number) for number in range(950, 1_000)] == list(range(950, 1_000))
