"""A fraud rule: more than MAX_DEBITS of one account within WINDOW raise an alert.

    python fraud.py alerts.db [--follow]

It commits the rule's state, the alerts and the positions read so far together. So it raises each
alert once, even if it is killed at any instant and restarted.
"""

import json
import sqlite3
import sys
from datetime import datetime, timedelta

import transactions

MAX_DEBITS = 3
WINDOW = timedelta(seconds=60)
TABLES = """
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS recent (account TEXT PRIMARY KEY, times TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS alerts (
    account TEXT, version INTEGER, transaction_id TEXT, debits INTEGER,
    PRIMARY KEY (account, version)
);
"""


def apply_rule(database, entry):
    """Uses the entries' log times, so that a late start raises the same alerts."""
    if entry["entry"] != "debit":
        return
    account, now = entry["account_id"], datetime.fromisoformat(entry["timestamp"])
    row = database.execute("SELECT times FROM recent WHERE account = ?", (account,)).fetchone()
    times = [time for time in json.loads(row[0] if row else "[]") if within(time, now)]
    times.append(entry["timestamp"])
    database.execute("INSERT OR REPLACE INTO recent VALUES (?, ?)", (account, json.dumps(times)))
    if len(times) > MAX_DEBITS:
        # Account and version together identify an entry.
        alert = (account, entry["version"], entry["transaction_id"], len(times))
        database.execute("INSERT INTO alerts VALUES (?, ?, ?, ?)", alert)


def within(time, now):
    return now - datetime.fromisoformat(time) <= WINDOW


def main():
    file, *options = sys.argv[1:]
    database = sqlite3.connect(file)
    database.executescript(TABLES)
    positions = dict(database.execute("SELECT partition, next_offset FROM positions"))
    for batch in transactions.batches(positions, follow="--follow" in options):
        with database:  # one SQLite transaction
            for partition, next_offset, entry in batch:
                apply_rule(database, entry)
                database.execute(
                    "INSERT OR REPLACE INTO positions VALUES (?, ?)", (partition, next_offset)
                )
    for row in database.execute("SELECT * FROM alerts ORDER BY account, version"):
        sys.stdout.write("  ".join(map(str, row)) + "\n")
    database.close()


if __name__ == "__main__":
    main()
