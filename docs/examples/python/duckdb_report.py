"""Totals per hour, and one account over time, from a file of entries. Needs duckdb.

python duckdb_report.py entries.jsonl alice
"""
# ruff: noqa: T201

import sys

import duckdb

HOURLY = """
SELECT strftime(date_trunc('hour', "timestamp"::TIMESTAMP), '%Y-%m-%d %H:00') AS hour,
       currency, kind, entry, count(*) AS entries, sum(amount)::BIGINT AS amount
FROM entries GROUP BY ALL ORDER BY ALL
"""
ACCOUNT = """
SELECT version, entry, amount, balance FROM entries WHERE account_id = ? ORDER BY version
"""


def main():
    file, account = sys.argv[1:]
    # Amounts fit a BIGINT; an inferred type might not be exact.
    columns = {
        "account_id": "VARCHAR",
        "version": "BIGINT",
        "entry": "VARCHAR",
        "amount": "BIGINT",
        "balance": "BIGINT",
        "currency": "VARCHAR",
        "kind": "VARCHAR",
        "timestamp": "VARCHAR",
    }
    entries = duckdb.read_json(file, format="newline_delimited", columns=columns)
    entries.create_view("entries")
    for row in duckdb.execute(HOURLY).fetchall():
        print("hourly", *row)
    for row in duckdb.execute(ACCOUNT, [account]).fetchall():
        print("account", *row)


if __name__ == "__main__":
    main()
