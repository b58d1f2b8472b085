"""A fraud rule: more than MOST debits of one account within WINDOW raise an alert.

    python fraud.py alerts.db [--follow]

What the rule remembers, the alerts that it raised and the positions up to which it has read are
committed together: killed at any instant and started again, it raises each alert once.
"""

import json
import sqlite3
import sys
from datetime import datetime, timedelta

import transactions

MOST = 3
WINDOW = timedelta(seconds=60)
TABLES = """
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS recent (account TEXT PRIMARY KEY, times TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS alerts (
    account TEXT, version INTEGER, transaction_id TEXT, debits INTEGER,
    PRIMARY KEY (account, version)
);
"""


def judge(kept, entry):
    """The times are the log's, so that a late start judges as one that was there."""
    if entry["entry"] != "debit":
        return
    account, now = entry["account_id"], datetime.fromisoformat(entry["timestamp"])
    row = kept.execute("SELECT times FROM recent WHERE account = ?", (account,)).fetchone()
    times = [each for each in json.loads(row[0] if row else "[]") if within(each, now)]
    times.append(entry["timestamp"])
    kept.execute("INSERT OR REPLACE INTO recent VALUES (?, ?)", (account, json.dumps(times)))
    if len(times) > MOST:
        # An account's version numbers its entries: with it each one has a name of its own.
        alert = (account, entry["version"], entry["transaction_id"], len(times))
        kept.execute("INSERT INTO alerts VALUES (?, ?, ?, ?)", alert)


def within(time, now):
    return now - datetime.fromisoformat(time) <= WINDOW


def main():
    file, *options = sys.argv[1:]
    kept = sqlite3.connect(file)
    kept.executescript(TABLES)
    positions = dict(kept.execute("SELECT partition, next_offset FROM positions"))
    for batch in transactions.batches(positions, follow="--follow" in options):
        with kept:  # one SQLite transaction: all of it, or nothing
            for partition, next_offset, entry in batch:
                judge(kept, entry)
                kept.execute(
                    "INSERT OR REPLACE INTO positions VALUES (?, ?)", (partition, next_offset)
                )
    for row in kept.execute("SELECT * FROM alerts ORDER BY account, version"):
        sys.stdout.write("  ".join(map(str, row)) + "\n")
    kept.close()


if __name__ == "__main__":
    main()
