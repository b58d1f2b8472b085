"""The report of verify, as text and as JSON."""

import msgspec

from sinks.verify.report import (
    MAX_REPORTED,
    CurrencyReport,
    Difference,
    Differences,
    PartitionReport,
    VerifyReport,
)


def report(differences: Differences) -> VerifyReport:
    return VerifyReport(
        agree=not differences.counts,
        ledger_id="books",
        partitions=(
            PartitionReport(
                partition=0,
                sequence=12_345,
                postgres=12_000,
                state=None,
                results=11_999,
                waiting=3,
                last_hash="f" * 64,
            ),
        ),
        currencies=(CurrencyReport(currency="NGN", debits=7, credits=7, transit=-2, under_way=-2),),
        compared={"journal records": 12_345, "rows": 0},
        seconds=1.5,
        differences=tuple(differences.first),
        difference_counts=dict(differences.counts),
    )


def test_agreement_in_words() -> None:
    text = report(Differences()).text()
    assert "ledger 'books', 1 partitions" in text
    assert " 12,345    12,000      -   11,999        3" in text
    assert "compared 12,345 journal records in 1.5 s\nall copies agree" in text


def test_differences_by_their_names_and_all_of_them_counted() -> None:
    differences = Differences()
    for number in range(MAX_REPORTED + 5):
        differences.note(
            "postgres",
            "accounts a: balance is 1, expected 2",
            partition=1,
            offset=number,
            sequence=7,
            account="a",
            transaction_id="t",
        )
    differences.note("state", "another")
    verify_report = report(differences)
    assert not verify_report.agree and len(verify_report.differences) == MAX_REPORTED + 1
    text = verify_report.text()
    assert f"{MAX_REPORTED + 6} differences; the first of each copy:" in text
    assert (
        "  postgres, partition 1, offset 0, sequence 7, account a, transaction t: accounts a: bal"
        in text
    )
    assert "\n  state: another\n" in text and text.endswith("... and 5 more")


def test_as_json() -> None:
    differences = Differences()
    differences.note("journal", "a hash", partition=0, offset=0)
    verify_report = report(differences)
    decoded = msgspec.json.decode(verify_report.json())
    assert decoded["agree"] is False and decoded["difference_counts"] == {"journal": 1}
    assert decoded["differences"] == [
        {"copy": "journal", "what": "a hash", "partition": 0, "offset": 0}
    ]
    assert msgspec.json.decode(verify_report.json(), type=VerifyReport) == verify_report
    assert isinstance(verify_report.differences[0], Difference)
