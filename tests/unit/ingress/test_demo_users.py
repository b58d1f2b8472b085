"""Demo users: which addresses are loopback, and what counts as the demo password."""

import pytest

from ingress.auth import demo_users

LOOPBACK = ("127.0.0.1", "127.0.0.2", "localhost", "::1", "[::1]")
ELSEWHERE = ("", "0.0.0.0", "::", "10.0.0.7", "ledger.example.com", "127.0.0.1.example.com")


def test_only_these_addresses_are_loopback() -> None:
    assert all(map(demo_users.is_loopback, LOOPBACK))
    assert not any(map(demo_users.is_loopback, ELSEWHERE))


@pytest.mark.parametrize("password", ["password", "\uff50assword", "pa\u017f\u017fword"])
def test_the_demo_password_is_known_however_it_is_composed(password: str) -> None:
    assert demo_users.is_known(demo_users.OPERATOR.title(), password)
    assert not demo_users.is_known("ada@example.com", password)


def test_another_password_is_not_the_demo_password() -> None:
    assert not demo_users.is_known(demo_users.OPERATOR, "Password")
