"""Signatures, key rotation and the normal form of e-mail addresses."""

import time

import pytest

from ingress.auth.access_tokens import Access, AccessTokens
from ingress.auth.signing_keys import DAY_S, SigningKeys
from ingress.http.roles import UserRole
from ingress.http.routes import Caller
from ingress.users import emails

OLD, NEW = b"an old master of thirty-two bytes", b"a new master of thirty-two bytes!"
CALLER = Caller("5f7d1f7e-0000-4000-8000-000000000000", 7, UserRole.OPERATOR, "a session")


def test_each_purpose_has_a_key_of_its_own() -> None:
    keys = SigningKeys([NEW])
    mac = keys.mac("one", b"data")
    assert keys.check("one", b"data", mac)
    assert not keys.check("two", b"data", mac)
    assert not keys.check("one", b"date", mac)
    assert not keys.check("one", b"data", b"")


def test_what_the_previous_key_signed_is_still_believed() -> None:
    before, now, after = SigningKeys([OLD]), SigningKeys([NEW, OLD]), SigningKeys([NEW])
    mac = before.mac("one", b"data")
    assert now.check("one", b"data", mac)
    assert not after.check("one", b"data", mac)
    assert now.mac("one", b"data") == after.mac("one", b"data")

    token = AccessTokens(before, "books", 900).make(CALLER, 3)
    access = AccessTokens(now, "books", 900).read(token)
    assert access is not None
    assert (access.caller, access.counter) == (CALLER, 3)
    assert AccessTokens(after, "books", 900).read(token) is None
    assert AccessTokens(now, "other books", 900).read(token) is None


def test_clocks_may_differ_by_a_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    access = AccessTokens(SigningKeys([NEW]), "books", 900)
    now = time.time()

    def token_made_at(time_s: float) -> Access | None:
        monkeypatch.setattr("ingress.auth.access_tokens.time.time", lambda: time_s)
        token = access.make(CALLER, 0)
        monkeypatch.undo()
        return access.read(token)

    ahead = token_made_at(now + 3)
    assert ahead is not None
    assert ahead.expires_at >= int(now) + 900
    assert token_made_at(now - 902) is not None
    assert token_made_at(now + 60) is None
    assert token_made_at(now - 960) is None


def test_each_day_has_a_key_and_old_ones_are_not_believed() -> None:
    keys, noon = SigningKeys([NEW]), 20_000.5 * DAY_S
    kid, key = keys.access_key(noon)
    assert keys.access_key(noon + 60) == (kid, key)
    other_kid, other = keys.access_key(noon + DAY_S)
    assert other_kid != kid
    assert other != key
    assert keys.find_access_key(kid, noon + DAY_S) == key
    assert keys.find_access_key(kid, noon + 2 * DAY_S) is None
    name = kid.partition("-")[0]
    for odd in ("", "-", name, f"{name}-", f"{name}-x", f"{name}-{'9' * 50}", f"x{kid}", f"{kid} "):
        assert keys.find_access_key(odd, noon) is None


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Ada@Example.COM", "Ada@example.com"),
        (" ada@example.com ", "ada@example.com"),
        ("ada+tag@sub.example.com", "ada+tag@sub.example.com"),
        ("ada@b\u00fccher.example", "ada@xn--bcher-kva.example"),
        ("ada@\uff25\uff38\uff21\uff2d\uff30\uff2c\uff25.com", "ada@example.com"),  # full width
        ("\u0430da@example.com", None),  # Cyrillic
        ("\uff41da@example.com", None),  # full width
        ("\u212aelvin@example.com", None),  # the Kelvin sign, which is k in lower case
        ("ad\u0131@example.com", None),  # without its dot, which is I in upper case
        ("ada", None),
        ("ada@", None),
        ("@example.com", None),
        ("ada@@example.com", None),
        ("a..b@example.com", None),
        (".ada@example.com", None),
        ("ada@-example.com", None),
        ("ada@example..com", None),
        ("ada@exa mple.com", None),
        ("ada@example.com\n", None),
        ("ada\t@example.com", None),
        ("ada@example.com\x00", None),
        ("<ada@example.com>", None),
        ("x" * 65 + "@example.com", None),
        ("ada@" + "x" * 64 + ".com", None),
        ("ada@" + "x." * 130 + "com", None),
    ],
)
def test_an_address_is_kept_in_one_form(text: str, kept: str | None) -> None:
    assert emails.parse_email(text) == kept
