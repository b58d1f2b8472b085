"""The hashing queue: no client fills it, and the ingress's own checks take no place in it."""

import pytest

from ingress.auth.passwords import MAX_WAITING, MAX_WAITING_PER_CLIENT, Passwords
from ingress.http.problems import Code, HttpProblem

MEMORY_KIB = 8_192


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(1, MEMORY_KIB)


def test_one_client_leaves_room_for_others(passwords: Passwords) -> None:
    mallory, ada = b"mallory", b"ada"
    places = [passwords.place([mallory]) for _ in range(MAX_WAITING_PER_CLIENT)]
    for place in places:
        place.__enter__()
    with pytest.raises(HttpProblem) as refused, passwords.place([mallory]):
        pass
    assert refused.value.code == Code.TOO_MANY_WAITS
    # One of two keys over its limit is enough, and then the other is not counted.
    with pytest.raises(HttpProblem), passwords.place([ada, mallory]):
        pass
    with passwords.place([ada]):
        pass
    places[0].__exit__(None, None, None)
    with passwords.place([mallory]):
        pass


def test_a_full_queue_is_busy_for_everybody(passwords: Passwords) -> None:
    places = [passwords.place([b"%d" % number]) for number in range(MAX_WAITING)]
    for place in places:
        place.__enter__()
    with pytest.raises(HttpProblem) as refused, passwords.place([b"ada"]):
        pass
    assert refused.value.code == Code.BUSY


async def test_a_full_queue_does_not_stop_a_check_of_the_ingress_itself() -> None:
    passwords = Passwords(1, MEMORY_KIB, max_waiting=0)
    hashed = await passwords.hash_without_place("correct horse")
    assert await passwords.check_without_place("correct horse", hashed)
    assert not await passwords.check_without_place("correct horse", None)
    with pytest.raises(HttpProblem):
        await passwords.check("correct horse", hashed, [b"ada"])
