"""Transaction ids: the published vectors, and the standard library's uuid5."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids

ACCOUNTS = st.from_regex(ids.ACCOUNT_ID_PATTERN.removesuffix(r"\Z"), fullmatch=True)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@pytest.mark.parametrize(
    ("account", "key", "expected"),
    [
        ("w1", "transfer-1", "ea11b28d-0baf-5cdd-85f3-da280462d991"),
        ("alice", "a", "8fe5f046-33a4-56b3-987a-b4d240f453a4"),
        ("a:b_c-D", "é 😀", "b23c8743-5ee2-534c-a9fa-80c05a231ef0"),
    ],
)
def test_vectors(account: str, key: str, expected: str) -> None:
    assert ids.transaction_id(account, key) == expected


@given(ACCOUNTS, KEYS)
def test_an_id_is_what_the_standard_library_makes_of_account_and_key(
    account: str, key: str
) -> None:
    expected = uuid.uuid5(uuid.uuid5(ids.NAMESPACE, account), key)
    assert ids.transaction_id(account, key) == str(expected)
    expected = uuid.uuid5(uuid.uuid5(ids.WALLETS_ONLY_NAMESPACE, account), key)
    assert ids.transaction_id(account, key, wallets_only=True) == str(expected)


@given(ACCOUNTS, KEYS)
def test_text_and_bytes_of_an_id_are_the_same_id(account: str, key: str) -> None:
    text = ids.transaction_id(account, key)
    assert ids.to_key(text) == uuid.UUID(text).bytes
    assert ids.to_text(ids.to_key(text)) == text


def test_account_and_key_do_not_run_into_each_other() -> None:
    assert ids.transaction_id("ab", "c") != ids.transaction_id("a", "bc")


@pytest.mark.parametrize("account", ["w1", "a", "A-b_c:9", "x" * 64, "system:fees:NGN", "-", ":"])
def test_account_ids(account: str) -> None:
    assert ids.ACCOUNT_ID.match(account)


@pytest.mark.parametrize(
    "account",
    ["", "x" * 65, "x" * 10_000, "a b", "a\n", "\n", "a\x00", "é", "a/b", "a.b", "a\u200bb"],
)
def test_what_is_no_account_id(account: str) -> None:
    assert not ids.ACCOUNT_ID.match(account)


def test_system_accounts_are_recognized_by_name() -> None:
    assert ids.is_system("system:fees:NGN")
    assert ids.is_system("system:")
    assert not ids.is_system("systems:fees")
    assert ids.system_name(ids.FEES, "NGN") == "system:fees:NGN"
    assert ids.system_shard(ids.FUNDING, "NGN", 3) == "system:funding:NGN:3"
