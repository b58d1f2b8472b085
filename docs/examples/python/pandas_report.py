"""Totals per hour, and one account over time, from a file of entries. Needs pandas.

python pandas_report.py entries.jsonl alice
"""
# ruff: noqa: T201

import json
import sys
from pathlib import Path

import pandas


def main():
    file, account = sys.argv[1:]
    with Path(file).open(encoding="utf-8") as lines:
        entries = pandas.DataFrame(map(json.loads, lines))
    entries["time"] = pandas.to_datetime(entries["timestamp"], utc=True, format="ISO8601")
    entries["hour"] = entries["time"].dt.strftime("%Y-%m-%d %H:00")
    groups = entries.groupby(["hour", "currency", "kind", "entry"])["amount"]
    for names, row in groups.agg(["count", "sum"]).sort_index().iterrows():
        print("hourly", *names, row["count"], row["sum"])
    one = entries[entries["account_id"] == account].sort_values("version")
    for row in one[["version", "entry", "amount", "balance"]].itertuples(index=False):
        print("account", *row)


if __name__ == "__main__":
    main()
