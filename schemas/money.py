"""Money: integers in minor units, and the currencies with the number of decimals that each has.

Amounts stay within 2^53 - 1 so that every JSON reader is exact. Decimal text is read and written
here alone, never through a float. Knows nothing of accounts or messages.
"""

import re
from typing import Final

MAX_AMOUNT: Final = 2**53 - 1

_TWO_DECIMALS = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD
CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD
GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA
MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR
RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD
TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
"""
_NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DECIMALS = "CLF UYW"

EXPONENTS: Final[dict[str, int]] = {
    code: exponent
    for exponent, codes in enumerate(
        (_NO_DECIMALS, "", _TWO_DECIMALS, _THREE_DECIMALS, _FOUR_DECIMALS)
    )
    for code in codes.split()
}

_MAJOR = re.compile(r"(0|[1-9][0-9]{0,15})(?:\.([0-9]+))?", re.ASCII)


class AmountInvalid(ValueError):
    """The text is not a positive amount of the currency."""


def from_major(text: str, currency: str) -> int:
    """Minor units of a positive amount in major units: "125.00" USD is 12500, "125" JPY is 125."""
    exponent = EXPONENTS[currency]
    match = _MAJOR.fullmatch(text)
    if match is None:
        raise AmountInvalid(f"{text!r} is not a plain decimal number")
    whole, fraction = match.group(1), match.group(2) or ""
    if len(fraction) > exponent:
        raise AmountInvalid(f"{currency} has at most {exponent} decimals")
    amount = int(whole + fraction.ljust(exponent, "0"))
    if not 0 < amount <= MAX_AMOUNT:
        raise AmountInvalid(f"an amount must be from 1 to {MAX_AMOUNT} minor units")
    return amount


def to_major(amount: int, currency: str) -> str:
    """Decimal text of minor units, negative ones too: 12500 USD is "125.00"."""
    exponent = EXPONENTS[currency]
    sign, digits = ("-" if amount < 0 else ""), str(abs(amount)).rjust(exponent + 1, "0")
    if exponent == 0:
        return sign + digits
    return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"
