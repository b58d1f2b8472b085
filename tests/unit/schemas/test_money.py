"""Money as text: what is an amount in a currency, and what is not."""

import pytest

from schemas import money


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("125.00", "USD", 12_500),
        ("125", "USD", 12_500),
        ("125.5", "USD", 12_550),
        ("0.01", "NGN", 1),
        ("125", "JPY", 125),
        ("1.250", "KWD", 1_250),
        ("0.001", "KWD", 1),
        ("0.0001", "CLF", 1),
        ("90071992547409.91", "USD", money.MAX_AMOUNT),
        ("9007199254740991", "JPY", money.MAX_AMOUNT),
    ],
)
def test_major_units_become_minor_units_in_the_scale_of_the_currency(
    text: str, currency: str, minor: int
) -> None:
    assert money.from_major(text, currency) == minor


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("125.001", "USD"),
        ("125.0", "JPY"),
        ("1.2500", "KWD"),
        ("0", "USD"),
        ("0.00", "USD"),
        ("-1", "USD"),
        ("+1", "USD"),
        ("1e3", "USD"),
        ("1E3", "USD"),
        ("NaN", "USD"),
        ("Infinity", "USD"),
        ("0x10", "USD"),
        ("1_000", "USD"),
        ("1,000.00", "USD"),
        ("1,5", "USD"),
        ("01", "USD"),
        ("00.10", "USD"),
        (".5", "USD"),
        ("5.", "USD"),
        ("", "USD"),
        (" 1", "USD"),
        ("1 ", "USD"),
        ("1\n", "USD"),
        ("1.0\n", "USD"),
        ("١٢٥", "USD"),
        ("12\x00", "USD"),
        ("90071992547409.92", "USD"),
        ("9007199254740992", "JPY"),
        ("9" * 10_000, "JPY"),
        ("1." + "0" * 10_000, "USD"),
        ("true", "USD"),
        ("$5", "USD"),
    ],
)
def test_other_texts_are_no_amount(text: str, currency: str) -> None:
    with pytest.raises(money.AmountInvalid):
        money.from_major(text, currency)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (12_500, "USD", "125.00"),
        (5, "USD", "0.05"),
        (0, "USD", "0.00"),
        (-5, "USD", "-0.05"),
        (-12_345, "NGN", "-123.45"),
        (125, "JPY", "125"),
        (-7, "JPY", "-7"),
        (1_250, "KWD", "1.250"),
        (1, "CLF", "0.0001"),
        (10**30, "USD", "1" + "0" * 28 + ".00"),
    ],
)
def test_minor_units_are_shown_in_the_scale_of_the_currency(
    minor: int, currency: str, text: str
) -> None:
    assert money.to_major(minor, currency) == text


@pytest.mark.parametrize("currency", sorted(money.EXPONENTS))
@pytest.mark.parametrize("minor", [1, 9, 10, 99, 1_000, 123_456_789, money.MAX_AMOUNT])
def test_to_major_and_back_is_the_same_amount(minor: int, currency: str) -> None:
    assert money.from_major(money.to_major(minor, currency), currency) == minor


def test_the_exponents_of_some_currencies() -> None:
    exponents = {"NGN": 2, "USD": 2, "EUR": 2, "JPY": 0, "XOF": 0, "KWD": 3, "BHD": 3, "CLF": 4}
    assert {code: money.EXPONENTS[code] for code in exponents} == exponents
    assert all(len(code) == 3 and code.isupper() for code in money.EXPONENTS)
    assert "XXX" not in money.EXPONENTS
