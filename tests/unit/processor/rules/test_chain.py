"""The hash chain: whatever is done to a journal afterwards shows, and where."""

import hashlib

import msgspec
import pytest

from processor.rules import chain
from schemas import journal
from tests.testkit import stories
from tests.testkit.journal_chains import ChainBroken, verify


@pytest.fixture(scope="module")
def values() -> list[bytes]:
    stage = stories.play(
        "a=1000 b=0; transfer a b 100; debit a 9999 | insufficient_funds; hold a 5 expires=9; "
        "wait 9; credit b 7; transfer a b1 5 | pending"
    )
    return stage.places[0].journal


GENESIS = journal.genesis_hash(stories.LEDGER_ID, 0)


def _untouched(values: list[bytes]) -> str:
    return journal.hash_of(values[-1])


def _shows(values: list[bytes], last: str) -> bool:
    """A chain that was touched breaks, or it ends with another hash than the state keeps."""
    try:
        return verify(values, GENESIS) != last
    except ChainBroken:
        return True


def test_what_was_written_is_whole(values: list[bytes]) -> None:
    assert verify(values, GENESIS) == _untouched(values)
    assert verify(values[:1], GENESIS) == journal.hash_of(values[0])
    assert verify([], GENESIS) == GENESIS


def test_it_may_be_verified_in_parts(values: list[bytes]) -> None:
    for cut in range(len(values) + 1):
        middle = verify(values[:cut], GENESIS)
        assert verify(values[cut:], middle) == _untouched(values)


def test_the_hash_is_of_the_bytes_as_they_are(values: list[bytes]) -> None:
    first = stories.decode_record(values[0])
    assert first.previous_hash == hashlib.sha256(b"stage:0").hexdigest() == GENESIS
    second = stories.decode_record(values[1])
    assert second.previous_hash == hashlib.sha256(values[0]).hexdigest()


def test_a_sealed_record_is_the_record_with_its_hash(values: list[bytes]) -> None:
    for value in values:
        record = stories.decode_record(value)
        assert record.previous_hash and msgspec.json.encode(record) == value
        bare = msgspec.structs.replace(record, previous_hash="")
        assert chain.seal(bare, record.previous_hash) == value
        assert chain.seal(record, record.previous_hash) == value


def test_any_changed_byte_shows(values: list[bytes]) -> None:
    last = _untouched(values)
    for place, value in enumerate(values):
        for at in range(0, len(value), 3):
            for bit in (0x01, 0x10, 0x80):
                changed = value[:at] + bytes([value[at] ^ bit]) + value[at + 1 :]
                touched = [*values[:place], changed, *values[place + 1 :]]
                assert _shows(touched, last), f"byte {at} of record {place + 1}"


def test_a_changed_amount_shows(values: list[bytes]) -> None:
    place = next(n for n, value in enumerate(values) if b'"amount":102' in value)
    changed = values[place].replace(b'"amount":102', b'"amount":101')
    with pytest.raises(ChainBroken, match=f"journal record {place + 2} "):
        verify([*values[:place], changed, *values[place + 1 :]], GENESIS)


def test_a_dropped_record_shows(values: list[bytes]) -> None:
    for place in range(len(values) - 1):
        with pytest.raises(ChainBroken, match=f"journal record {place + 1} "):
            verify(values[:place] + values[place + 1 :], GENESIS)
    assert _shows(values[:-1], _untouched(values)), "the last one is missed at the end"


def test_a_swapped_pair_shows(values: list[bytes]) -> None:
    for place in range(len(values) - 1):
        swapped = [*values[:place], values[place + 1], values[place], *values[place + 2 :]]
        with pytest.raises(ChainBroken, match=f"journal record {place + 1} "):
            verify(swapped, GENESIS)


def test_a_record_that_stands_twice_shows(values: list[bytes]) -> None:
    for place in range(len(values)):
        with pytest.raises(ChainBroken, match=f"journal record {place + 2} "):
            verify(values[: place + 1] + values[place:], GENESIS)


@pytest.mark.parametrize("value", [b"", b"{}", b"null", b"[]", b"not json", b"\xff\xfe"])
def test_what_is_no_record_breaks_it(value: bytes, values: list[bytes]) -> None:
    for place in range(len(values)):
        with pytest.raises(ChainBroken, match=f"journal record {place + 1} "):
            verify([*values[:place], value, *values[place:]], GENESIS)


def test_another_ledger_or_partition_has_another_chain(values: list[bytes]) -> None:
    others = {
        journal.genesis_hash(ledger, partition) for ledger in ("stage", "s") for partition in (0, 1)
    }
    assert len(others) == 4
    for other in others - {GENESIS}:
        with pytest.raises(ChainBroken, match="journal record 1 "):
            verify(values, other)
