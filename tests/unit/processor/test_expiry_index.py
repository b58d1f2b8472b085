"""What is due, against a sorted list of everything: a window on a table tells the same."""

from bisect import insort

from hypothesis import given
from hypothesis import strategies as st

from processor.state.expiry_index import DueIndex
from schemas import state_keys

IDS = [f"00000000-0000-5000-8000-00000000000{n}" for n in range(4)]

times = st.integers(0, 40)
due_keys = st.builds(state_keys.due, times, st.sampled_from(IDS))
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("add"), due_keys),
        st.tuples(st.just("remove"), due_keys),
        st.tuples(st.just("take"), times),
        st.tuples(st.just("earliest"), times),
    ),
    max_size=120,
)


class Everything:
    """A table that knows all due keys, whatever the window over it holds; naive and slow."""

    def __init__(self, keys: set[bytes]) -> None:
        self.keys = sorted(keys)
        self.reads = 0

    def read(self, after: bytes, limit: int) -> list[bytes]:
        self.reads += 1
        return [key for key in self.keys if key > after][:limit]

    def due(self, time_ms: int, limit: int) -> list[bytes]:
        return [key for key in self.keys if int.from_bytes(key[1:9], "big") <= time_ms][:limit]

    def earliest_ms(self) -> int | None:
        return int.from_bytes(self.keys[0][1:9], "big") if self.keys else None


@given(
    there=st.sets(due_keys, max_size=40),
    window=st.integers(1, 6),
    limit=st.integers(1, 12),
    deeds=deeds,
)
def test_a_window_tells_the_same_as_everything(
    there: set[bytes], window: int, limit: int, deeds: list[tuple[str, bytes | int]]
) -> None:
    everything = Everything(there)
    index = DueIndex(everything.read, window)
    for deed, what in deeds:
        if isinstance(what, bytes):
            # As the table does: a key is added once, and stands in the table from then on.
            if deed == "add" and what not in everything.keys:
                index.add(what)
                insort(everything.keys, what)
            elif deed == "remove":
                index.remove(what)
                if what in everything.keys:
                    everything.keys.remove(what)
        elif deed == "take":
            found = index.due(what, limit)
            assert found == everything.due(what, limit)
            for key in found:
                index.remove(key)
                everything.keys.remove(key)
        assert index.earliest_ms() == everything.earliest_ms()


def test_asking_when_nothing_is_due_reads_the_table_once() -> None:
    everything = Everything({state_keys.due(1_000 + n, IDS[0]) for n in range(50)})
    index = DueIndex(everything.read, window=100)
    for now_ms in range(1_000):
        assert index.due(now_ms, 10) == []
    for n in range(1_000):
        index.add(state_keys.due(5_000 + n, IDS[1]))
    assert everything.reads == 1


def test_what_is_due_at_once_comes_by_time_then_by_id() -> None:
    everything = Everything(set())
    index = DueIndex(everything.read)
    index.earliest_ms()
    keys = [state_keys.due(time_ms, id) for time_ms in (7, 8, 300, 70_000) for id in IDS]
    for key in (*keys[8:], *keys[:8][::-1]):
        index.add(key)
    assert index.due(6, 100) == []
    assert index.due(8, 100) == keys[:8]
    assert index.due(8, 3) == keys[:3]
    assert index.due(70_000, 100) == keys
